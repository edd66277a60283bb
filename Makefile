# metasrv: every command a person needs. `make` alone lists them.
#
# Needs only Python 3.11 or later with its venv module: each target makes .venv and installs what requirements/ names with its
# hashes, the first time and whenever that or pyproject.toml changes.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WORKERS ?= 3
ROUNDS ?= 50
N ?= 2000
STOCK_N ?= 40
SEED ?= 1
MINUTES ?= 10
SECONDS ?= 10
KEYS ?= 200000
ARGS ?=

export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Some machines set it. Each node would compile all its modules at every start, and most tests start three.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16

.PHONY: run
run: $(STAMP) ## Start the three nodes of conf/ under .metasrv/ and follow them until Ctrl-C (ARGS="--fresh")
	@exec $(BIN)/python -m metasrv.cli.local_cluster $(ARGS)

PYTEST = $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup -m "not docker and not long"

.PHONY: test
test: $(STAMP) ## Run all tests but those with containers, under the floor of coverage; about 15 min (ARGS="-k name" for some)
ifeq ($(strip $(ARGS)),)
	@$(PYTEST) tests/unit tests/socket --cov --cov-report=term:skip-covered
	@exec $(PYTEST) tests/cluster tests/chaos tests/sim
else
	@exec $(PYTEST) $(ARGS)
endif

.PHONY: test-long
test-long: $(STAMP) ## Run the tests that `make test` leaves out for their length; about 8 min
	@exec $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup -m "long and not docker" $(ARGS)

.PHONY: test-documents
test-documents: $(STAMP) ## Run the commands of the pages for operators against real nodes; about 4 min
	@exec $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup -m "not docker" tests/cluster/test_documents*.py $(ARGS)

.PHONY: test-upgrade
test-upgrade: $(STAMP) ## Take clusters of the previous release to this one and back under a checked load; about 3 min
	@exec $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup -m "not docker" tests/cluster/test_release_upgrade.py $(ARGS)

.PHONY: test-alerts
test-alerts: $(STAMP) ## Make each fault on real nodes and see whether console, top, events and alerts name it (needs Debian's prometheus); 3 min
	@exec $(BIN)/python -m pytest -m "" tests/cluster/test_alerts_in_faults.py tests/cluster/test_prometheus_scrape.py $(ARGS)

.PHONY: test-unit
test-unit: $(STAMP) ## Run the tests that only compute; about 2 min
	@exec $(PYTEST) tests/unit $(ARGS)

.PHONY: test-interpreters
test-interpreters: ## Run the unit tests with each supported Python that is found, in environments of their own; about 5 min
	@WORKERS=$(WORKERS) exec $(if $(wildcard $(BIN)/python),$(BIN)/python,python3) scripts/interpreters.py $(ARGS)

.PHONY: test-socket
test-socket: $(STAMP) ## Run the tests that open sockets in their own process; about 60 s
	@exec $(PYTEST) tests/socket $(ARGS)

.PHONY: test-sim
test-sim: $(STAMP) ## Run the simulator's own tests, with 150 histories and the planted defects; about 2 min
	@exec $(PYTEST) tests/sim $(ARGS)

.PHONY: test-cluster
test-cluster: $(STAMP) ## Run the tests that start real nodes, without breaking them; about 9 min
	@exec $(PYTEST) tests/cluster $(ARGS)

.PHONY: test-chaos
test-chaos: $(STAMP) ## Run twenty rounds of faults on real nodes, and clusters sabotaged on purpose; about 80 s
	@exec $(PYTEST) tests/chaos $(ARGS)

# Needs a Docker engine, and minutes for an image, so `make test` leaves it out. Skipped if no engine answers.
.PHONY: test-compose
test-compose: $(STAMP) ## Build the image and test docker-compose.yml with real containers (ARGS="-m essential"; METASRV_COMPOSE_IMAGE=name)
	@exec $(BIN)/python -m pytest tests/compose -o faulthandler_timeout=600 $(ARGS)

.PHONY: coverage
coverage: $(STAMP) ## Run the unit and the socket tests, show what they do not reach, and fail below the floor; about 60 s
	@exec $(PYTEST) tests/unit tests/socket --cov --cov-report=term $(ARGS)

# The unit and the socket tests run under measurement here, and so once.
.PHONY: check
check: lint audit coverage test-sim test-cluster test-chaos ## Everything that must hold: style, types, layering, coverage, tests; about 8 min

.PHONY: lint
lint: $(STAMP) ## Style and types only; about 10 s
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

.PHONY: format
format: $(STAMP) ## Format the source
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

.PHONY: sim
sim: $(STAMP) ## Simulate clusters under faults, deterministically (N=100000 SEED=1)
	@exec $(BIN)/python -m verification.simulation --histories $(N) --seed $(SEED) --workers $(WORKERS) $(ARGS)

.PHONY: soak
soak: $(STAMP) ## A mixed load on three local nodes, and whether any file, descriptor, thread or memory grows (MINUTES=60)
	@exec $(BIN)/python -m verification.endurance --minutes $(MINUTES) $(ARGS)

.PHONY: attack
attack: $(STAMP) ## Hostile clients against three local nodes, beside a load whose answers are checked (SECONDS=10, ARGS=--secured with TLS and tokens)
	@exec $(BIN)/python -m verification.attack --seconds $(SECONDS) $(ARGS)

.PHONY: fuzz
fuzz: $(STAMP) ## Fuzz everything that reads what others wrote, guided by coverage (MINUTES=10, ARGS="--only http2_bytes")
	@exec $(BIN)/python -m verification.fuzz --minutes $(MINUTES) $(ARGS)

.PHONY: replay
replay: $(STAMP) ## Run one simulated history again and print all that happened in it; about 1 s (SEED=87329)
	@exec $(BIN)/python -m verification.simulation --replay $(SEED) --trace $(ARGS)

.PHONY: chaos
chaos: $(STAMP) ## Break real processes under load, and check every answer (ROUNDS=500)
	@exec $(BIN)/python -m verification.chaos_rounds --rounds $(ROUNDS) $(ARGS)

.PHONY: chaos-compose
chaos-compose: $(STAMP) ## Break real containers under load, and check every answer (ROUNDS=50)
	@exec $(BIN)/python -m verification.compose_rounds --rounds $(ROUNDS) $(ARGS)

.PHONY: mutants
mutants: $(STAMP) ## Plant each known defect and see how soon the simulator notices (ARGS="--only 'term not stored'")
	@exec $(BIN)/python -m verification.mutants --seed $(SEED) $(ARGS)

.PHONY: sim-stock
sim-stock: $(STAMP) ## Put plain pysyncobj and metasrv through the same simulated faults (STOCK_N=40 SEED=1)
	@exec $(BIN)/python -m verification.stock --histories $(STOCK_N) --seed $(SEED) $(ARGS)

.PHONY: bench
bench: $(STAMP) ## Measure metasrv beside two versions of etcd on this machine (ARGS="--loads write --keys 0" for a part)
	@exec $(BIN)/python -m benchmarks.compared $(ARGS)

.PHONY: bench-beside
bench-beside: $(STAMP) ## Measure small writes beside large work, and what holds the nodes' loops (KEYS=1000000)
	@exec $(BIN)/python benchmarks/beside.py --keys $(KEYS) $(ARGS)

.PHONY: databend
databend: ## Install Databend's engine beside, for the tests that speak with the genuine meta service in it (Linux x86-64, Python 3.12)
	@scripts/databend_environment.sh .genuine

.PHONY: proto
proto: $(STAMP) ## Generate the gRPC code again from metasrv/protocol/proto/meta.proto
	@$(BIN)/python -m grpc_tools.protoc -I . --python_out=. --pyi_out=. --grpc_python_out=. metasrv/protocol/proto/meta.proto

.PHONY: reference
reference: $(STAMP) ## Write docs/reference again from what the program declares
	@$(BIN)/python scripts/make_reference.py

.PHONY: wheel
wheel: $(STAMP) ## Build the wheel and the source archive into dist/
	@$(BIN)/python -m pip install --quiet build
	@$(BIN)/python -m build --outdir dist .

.PHONY: wheel-compiled
wheel-compiled: $(STAMP) ## Build the wheel whose hot modules are compiled, for this Python and platform, into dist/; needs a C compiler; 2 min
	@$(BIN)/python scripts/compiled_wheel.py $(ARGS)

.PHONY: notices
notices: $(STAMP) ## Write THIRD-PARTY-NOTICES again, after a change of the dependencies
	@$(BIN)/python scripts/third_party_notices.py

.PHONY: lock
lock: ## Write requirements/*.txt again, after a change of the dependencies (ARGS=--upgrade for the newest versions)
	@PYTHON=$(if $(wildcard $(BIN)/python),$(BIN)/python,python3) exec scripts/lock.sh $(ARGS)

.PHONY: audit
audit: ## Look for known vulnerabilities of what metasrv needs to run; says so where the data cannot be reached
	@PYTHON=$(if $(wildcard $(BIN)/python),$(BIN)/python,python3) exec scripts/audit.sh

.PHONY: check-wheels
check-wheels: $(STAMP) ## Check that every dependency has wheels for Linux and macOS, x86-64 and arm64 (90 s)
	@exec $(BIN)/python scripts/check_wheels.py

.PHONY: docker-base
docker-base: ## Build a Python base image from Debian packages, for machines that cannot pull images
	@exec docker/make_base.sh

# `docker-compose up` builds the image by itself where a build reaches a package index.
.PHONY: docker
docker: $(STAMP) ## Build the container image from wheels made here (BASE=image, METASRV_IMAGE=name)
	@PYTHON=$(BIN)/python exec docker/build.sh

.PHONY: clean
clean: ## Remove the virtual environment, caches and the data of `make run`
	rm -rf $(VENV) .interpreters .audit .fuzz .genuine .metasrv .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage dist build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): pyproject.toml requirements/build.txt requirements/development.txt scripts/make_environment.sh scripts/choose_python.sh
	@scripts/make_environment.sh $(VENV)
	@touch $@

# metasrv: every command a person needs. `make` alone lists them.
#
# Nothing is needed first but Python 3.11 or later with its venv module: each target makes .venv and installs what
# pyproject.toml names, once, and again when pyproject.toml changes.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WORKERS ?= 2
ROUNDS ?= 50
N ?= 2000
STOCK_N ?= 40
SEED ?= 1
ARGS ?=

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16

.PHONY: run
run: $(STAMP) ## Start the three nodes of conf/ under .metasrv/ and follow them until Ctrl-C (ARGS="--fresh")
	@exec $(BIN)/python -m metasrv.cli.local_cluster $(ARGS)

.PHONY: test
test: $(STAMP) ## Run all tests but those with containers (ARGS="-k name")
	@exec $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup -m "not docker" $(ARGS)

# Containers need an engine and minutes for an image, so `make test` leaves them out; skipped where no engine answers.
.PHONY: test-compose
test-compose: $(STAMP) ## Build the image and test docker-compose.yml with real containers (ARGS="-m essential"; METASRV_COMPOSE_IMAGE=name)
	@exec $(BIN)/python -m pytest tests/compose -o faulthandler_timeout=600 $(ARGS)

.PHONY: check
check: lint test ## Everything that must hold: style, types, layering, tests

.PHONY: lint
lint: $(STAMP) ## Style and types only
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

.PHONY: format
format: $(STAMP) ## Format the source
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

.PHONY: sim
sim: $(STAMP) ## Deterministic simulation of clusters under faults (N=100000 SEED=1)
	@exec $(BIN)/python -m verification.simulation --histories $(N) --seed $(SEED) --workers $(WORKERS) $(ARGS)

.PHONY: chaos
chaos: $(STAMP) ## Faults on real processes under load, checked for linearizability (ROUNDS=500)
	@exec $(BIN)/python -m verification.chaos_rounds --rounds $(ROUNDS) $(ARGS)

.PHONY: chaos-compose
chaos-compose: $(STAMP) ## Faults on real containers under load, checked for linearizability (ROUNDS=50)
	@exec $(BIN)/python -m verification.compose_rounds --rounds $(ROUNDS) $(ARGS)

.PHONY: mutants
mutants: $(STAMP) ## Plant each known defect and see how soon the simulator notices (ARGS="--only 'term not stored'")
	@exec $(BIN)/python -m verification.mutants --seed $(SEED) $(ARGS)

.PHONY: sim-stock
sim-stock: $(STAMP) ## Plain pysyncobj and metasrv through the same simulated faults, kind by kind (STOCK_N=40 SEED=1)
	@exec $(BIN)/python -m verification.stock --histories $(STOCK_N) --seed $(SEED) $(ARGS)

.PHONY: bench
bench: $(STAMP) ## Side by side with etcd on this machine (needs Debian's etcd-server and nghttp2-client)
	@exec $(BIN)/python benchmarks/side_by_side.py $(ARGS)

.PHONY: proto
proto: $(STAMP) ## Generate the gRPC code again from metasrv/protocol/proto/meta.proto
	@$(BIN)/python -m grpc_tools.protoc -I . --python_out=. --pyi_out=. --grpc_python_out=. metasrv/protocol/proto/meta.proto

.PHONY: wheel
wheel: $(STAMP) ## Build the wheel and the source archive into dist/
	@$(BIN)/python -m pip install --quiet build
	@$(BIN)/python -m build --outdir dist .

.PHONY: check-wheels
check-wheels: $(STAMP) ## Is there a wheel of every dependency for Linux and macOS, x86-64 and arm64? (90 s)
	@exec $(BIN)/python scripts/check_wheels.py

.PHONY: docker-base
docker-base: ## Build a Python base image from Debian packages, for machines that can not pull images
	@exec docker/make_base.sh

.PHONY: docker
docker: $(STAMP) ## Build the container image from wheels made here (BASE=image, METASRV_IMAGE=name)
	@PYTHON=$(BIN)/python exec docker/build.sh

.PHONY: clean
clean: ## Remove the virtual environment, caches and the data of `make run`
	rm -rf $(VENV) .metasrv .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): pyproject.toml scripts/development_requirements.py scripts/make_environment.sh
	@scripts/make_environment.sh $(VENV)
	@touch $@

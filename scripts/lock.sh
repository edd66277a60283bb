#!/usr/bin/env bash
# Writes requirements/*.txt again: every package with its version and the hashes of its files, for Python 3.11 and later and for
# every platform (markers). Takes the newest versions that pyproject.toml and requirements/*.in allow with --upgrade, else keeps
# those that stand there. PYTHON is an interpreter with pip; the index is uv's default one, or UV_DEFAULT_INDEX.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-.venv/bin/python}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$python" -m venv "$work/uv"
"$work/uv/bin/python" -m pip install --quiet uv

# Write $1 from the inputs that follow. Neither the command nor an index stands in the file.
compile() {
    local output=$1
    shift
    "$work/uv/bin/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
        --custom-compile-command "make lock" --no-emit-index-url --output-file "$output" "${upgrade[@]}" "$@"
}

upgrade=("$@")
"$python" scripts/development_requirements.py >"$work/development.in"
# First what contains all, so that the others agree with it.
compile requirements/development.txt pyproject.toml "$work/development.in" requirements/build.in
compile requirements/runtime.txt --constraint requirements/development.txt pyproject.toml
compile requirements/build.txt --constraint requirements/development.txt requirements/build.in
compile requirements/audit.txt requirements/audit.in

#!/usr/bin/env bash
# Makes the virtual environment $1 with Databend's engine, which has a genuine meta service within: for the tests that speak with one.
# The wheel is for Linux on x86-64 and Python 3.12 or later; ends with 1 and a sentence where there is no such thing.
set -euo pipefail
environment=$1

is_suitable() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null
}

find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3 python3.14 python3.13 python3.12 "$HOME"/.pyenv/versions/3.1[2-9]*/bin/python3; do
        [ -n "$candidate" ] || continue
        if is_suitable "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    echo "Databend's engine needs Python 3.12 or later, and none was found; tests that need it are skipped." >&2
    return 1
}

if "$environment/bin/python" -c 'import databend' 2>/dev/null; then
    exit
fi
python=$(find_python)
rm -rf "$environment"
"$python" -m venv "$environment"
if ! "$environment/bin/python" -m pip install --quiet --only-binary :all: --require-hashes --requirement requirements/databend.txt; then
    rm -rf "$environment"
    echo "Databend's engine could not be installed, for the reason above; tests that need it are skipped." >&2
    exit 1
fi

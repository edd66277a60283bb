#!/usr/bin/env bash
# Makes the virtual environment $1 and installs metasrv and what its development needs into it.
set -euo pipefail
environment=$1

find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3 python3.14 python3.13 python3.12 python3.11; do
        [ -n "$candidate" ] || continue
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    echo "metasrv needs Python 3.11 or later; none was found (looked for python3, python3.11 to python3.14; set PYTHON=/path/to/python)." >&2
    return 1
}

if ! "$environment/bin/python" -m pip --version >/dev/null 2>&1; then
    python=$(find_python)
    echo "Making $environment with $("$python" --version) ..."
    rm -rf "$environment"
    if ! "$python" -m venv "$environment"; then
        rm -rf "$environment"
        echo "$python can not make a virtual environment; on Debian and Ubuntu install the package python3-venv." >&2
        exit 1
    fi
fi

echo "Installing metasrv and its development requirements into $environment ..."
"$environment/bin/python" scripts/development_requirements.py >"$environment/development-requirements.txt"
if ! "$environment/bin/python" -m pip install --quiet --editable . --requirement "$environment/development-requirements.txt"; then
    echo "The installation failed; the reason is above. Nothing else was changed: run make again when it is mended." >&2
    exit 1
fi

#!/usr/bin/env bash
# Prints the interpreter to make metasrv's environment with: PYTHON if that is set, else the first one built with
# optimisation of python3, python3.14 to python3.11 on the PATH and the system's own, else the first suitable one of them.
# What is chosen depends on how they were built, never on how fast they are just now.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
system_python=${SYSTEM_PYTHON:-/usr/bin/python3}

# 3.11 or later, and able to make an environment with pip.
is_suitable() {
    "$1" -c 'import sys; import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

if [ -n "${PYTHON:-}" ] && is_suitable "$PYTHON"; then
    command -v "$PYTHON"
    exit
fi
first=
for candidate in python3 python3.14 python3.13 python3.12 python3.11 "$system_python"; do
    is_suitable "$candidate" || continue
    if [ "$("$candidate" scripts/interpreter_build.py)" = optimised ]; then
        [ -z "$first" ] || echo "$candidate is used: it was built with optimisation, $first was not; PYTHON=$first decides otherwise." >&2
        command -v "$candidate"
        exit
    fi
    first=${first:-$(command -v "$candidate")}
done
if [ -z "$first" ]; then
    echo "metasrv needs Python 3.11 or later with venv; none was found (looked for python3, python3.11 to python3.14; set" \
        "PYTHON=/path/to/python, or install the package python3-venv on Debian and Ubuntu)." >&2
    exit 1
fi
echo "$first was built without optimisation, and no other was found; nodes run about half as fast again with one that was." >&2
echo "$first"

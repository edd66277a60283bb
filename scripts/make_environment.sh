#!/usr/bin/env bash
# Makes the virtual environment $1 and installs metasrv and what its development needs into it.
#
# Uses the interpreter PYTHON if that is set; else the first suitable one on the PATH, or the system's own if that is at least
# 15 % faster: version managers build Python without the optimisations that distributions use.
set -euo pipefail
environment=$1
system_python=/usr/bin/python3

is_suitable() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3 python3.14 python3.13 python3.12 python3.11; do
        [ -n "$candidate" ] || continue
        if is_suitable "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    echo "metasrv needs Python 3.11 or later; none was found (looked for python3, python3.11 to python3.14; set PYTHON=/path/to/python)." >&2
    return 1
}

# Print the best of three times for $1 and for $2, taken in turns because a machine's speed varies.
compare_speed() {
    local round first second first_us= second_us=
    for round in 1 2 3; do
        first=$("$1" scripts/interpreter_speed.py)
        second=$("$2" scripts/interpreter_speed.py)
        [ -n "$first_us" ] && [ "$first_us" -le "$first" ] || first_us=$first
        [ -n "$second_us" ] && [ "$second_us" -le "$second" ] || second_us=$second
    done
    echo "$first_us $second_us"
}

choose_python() {
    local found found_us system_us
    found=$(find_python)
    if [ -n "${PYTHON:-}" ] || [ "$found" = "$system_python" ] || ! is_suitable "$system_python" ||
        ! "$system_python" -c 'import ensurepip, venv' 2>/dev/null; then
        echo "$found"
        return
    fi
    read -r found_us system_us < <(compare_speed "$found" "$system_python")
    if [ $((system_us * 115)) -lt $((found_us * 100)) ]; then
        echo "$system_python takes $system_us us where $found takes $found_us us, so it is used; PYTHON=$found decides otherwise." >&2
        echo "$system_python"
    else
        echo "$found"
    fi
}

if ! "$environment/bin/python" -m pip --version >/dev/null 2>&1; then
    python=$(choose_python)
    echo "Making $environment with $("$python" --version) ..."
    rm -rf "$environment"
    if ! "$python" -m venv "$environment"; then
        rm -rf "$environment"
        echo "$python cannot make a virtual environment; on Debian and Ubuntu install the package python3-venv." >&2
        exit 1
    fi
fi

echo "Installing metasrv and its development requirements into $environment ..."
# Exactly what requirements/ names, with its hashes. What builds packages comes first, because pip would otherwise fetch that
# without looking at hashes.
install() {
    "$environment/bin/python" -m pip install --quiet "$@"
}
if ! { install --require-hashes --requirement requirements/build.txt &&
    install --require-hashes --no-build-isolation --requirement requirements/development.txt &&
    install --no-deps --no-build-isolation --editable .; }; then
    echo "The installation failed; the reason is above. Nothing else was changed: fix it and run make again." >&2
    exit 1
fi

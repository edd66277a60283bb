#!/usr/bin/env bash
# Makes the virtual environment $1 and installs metasrv and what its development needs into it.
#
# Uses the interpreter that scripts/choose_python.sh names: PYTHON if that is set, else one built with optimisation, as
# distributions do and version managers do not.
set -euo pipefail
environment=$1

if ! "$environment/bin/python" -m pip --version >/dev/null 2>&1; then
    python=$(scripts/choose_python.sh)
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

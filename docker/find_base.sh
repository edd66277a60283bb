#!/usr/bin/env bash
# Prints the image to build from, after making sure that it is here: BASE if that is set, else python:X.Y-slim-bookworm, else
# metasrv-base, which docker/make_base.sh makes if it is missing. $1 is X.Y, the Python that makes the wheels: they fit that
# version only. Fails, with the reason, if there is no such image.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
version=$1
base=${BASE:-}
PULL_SECONDS=${PULL_SECONDS:-120}

fail() {
    echo "find_base: $*" >&2
    exit 1
}

if [ -z "$base" ]; then
    base=python:$version-slim-bookworm
    if ! docker image inspect "$base" >/dev/null 2>&1 && ! timeout "$PULL_SECONDS" docker pull --quiet "$base" >/dev/null 2>&1; then
        echo "find_base: $base cannot be pulled, using metasrv-base." >&2
        docker/make_base.sh >&2 || fail "there is no base; fix the problem above, or name one: make docker BASE=..."
        base=metasrv-base
    fi
fi
inside=$(docker run --rm --entrypoint python3 "$base" -c 'import sys; print("%d.%d" % sys.version_info[:2])') ||
    fail "$base has no python3."
[ "$inside" = "$version" ] ||
    fail "$base has Python $inside but the wheels are made by $version, and fit that version only; set PYTHON or BASE."
if [ "$(docker run --rm --interactive --entrypoint python3 "$base" - <scripts/interpreter_build.py)" = plain ]; then
    echo "find_base: the Python of $base was built without optimisation; nodes run half as fast again with one that was." >&2
fi
echo "$base"

#!/usr/bin/env bash
# Builds the image: wheels first, on this machine with this machine's pip settings, into build/wheels; then the image from
# them alone. PYTHON is the interpreter with pip; METASRV_IMAGE the image's name; BASE the image to start from, by default
# python:3.11-slim-bookworm, or metasrv-base where that can not be pulled: docker/make_base.sh makes it if it is not there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
image=${METASRV_IMAGE:-metasrv}
python=${PYTHON:-.venv/bin/python}
base=${BASE:-}
PULL_SECONDS=${PULL_SECONDS:-120}

fail() {
    echo "build: $*" >&2
    exit 1
}

docker version >/dev/null 2>&1 || fail "no Docker engine answers; start it, or set DOCKER_HOST."
[ "$(uname -s)" = Linux ] || fail "the wheels must be built on Linux, like the image they go into."
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')

if [ -z "$base" ]; then
    base=python:$version-slim-bookworm
    if ! docker image inspect "$base" >/dev/null 2>&1 && ! timeout "$PULL_SECONDS" docker pull --quiet "$base" >/dev/null 2>&1; then
        echo "build: $base can not be pulled, using metasrv-base."
        docker/make_base.sh || fail "there is no base; mend what is said above, or name one: make docker BASE=..."
        base=metasrv-base
    fi
fi
inside=$(docker run --rm --entrypoint python3 "$base" -c 'import sys; print("%d.%d" % sys.version_info[:2])') ||
    fail "$base has no python3."
[ "$inside" = "$version" ] ||
    fail "$base has Python $inside but $python is $version, and wheels fit one version only; set PYTHON or BASE."

echo "build: wheels for Python $version ..."
mkdir -p build/wheels
rm -f build/wheels/*.whl
"$python" -m pip wheel --quiet --wheel-dir build/wheels .

commit=unknown
if git rev-parse --verify --quiet HEAD >/dev/null 2>&1; then
    commit=$(git rev-parse --short=12 HEAD)
    git diff --quiet HEAD -- metasrv pyproject.toml docker Dockerfile || commit=$commit-modified
fi
release=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' metasrv/__init__.py)
echo "build: image $image from $base ..."
docker build --quiet --build-arg BASE="$base" --build-arg METASRV_COMMIT="$commit" \
    --build-arg METASRV_VERSION="$release" --tag "$image" . >/dev/null
docker image inspect --format "build: $image is ready, {{.Size}} bytes, commit $commit." "$image"

#!/usr/bin/env bash
# Builds the image where a build reaches no package index: wheels first, on this machine with this machine's pip settings,
# into docker/wheels; then the image from them alone. PYTHON is the interpreter with pip; METASRV_IMAGE the image's name; BASE
# the image to start from, by default the one that docker/find_base.sh finds. The wheel of metasrv is the compiled one where this
# machine can compile; COMPILED=no leaves it out.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
image=${METASRV_IMAGE:-metasrv}
python=${PYTHON:-.venv/bin/python}

fail() {
    echo "build: $*" >&2
    exit 1
}

docker version >/dev/null 2>&1 || fail "no Docker engine answers; start it, or set DOCKER_HOST."
[ "$(uname -s)" = Linux ] || fail "the wheels must be built on Linux, like the image they go into."
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')

base=$(docker/find_base.sh "$version") || exit 1

echo "build: wheels for Python $version ..."
rm -rf docker/wheels
mkdir -p docker/wheels
trap 'rm -rf docker/wheels' EXIT
locked=(--quiet --no-deps --no-build-isolation --wheel-dir docker/wheels)
"$python" -m pip install --quiet --require-hashes --requirement requirements/build.txt
"$python" -m pip wheel "${locked[@]}" --require-hashes --requirement requirements/runtime.txt
"$python" -m pip wheel "${locked[@]}" .
# Beside the ordinary wheel, which the image gets where the compiled one does not run: on a base with an older C library.
if [ "${COMPILED:-yes}" = no ] || ! "$python" scripts/compiled_wheel.py --output docker/wheels; then
    echo "build: nothing is compiled; the image gets the ordinary wheel."
fi

commit=unknown
if git rev-parse --verify --quiet HEAD >/dev/null 2>&1; then
    commit=$(git rev-parse --short=12 HEAD)
    git diff --quiet HEAD -- metasrv pyproject.toml docker Dockerfile || commit=$commit-modified
fi
echo "build: image $image from $base ..."
docker build --quiet --build-arg INSTALL_FROM=wheels --build-arg BASE="$base" --build-arg METASRV_COMMIT="$commit" \
    --tag "$image" . >/dev/null
docker image inspect --format "build: $image is ready, {{.Size}} bytes, commit $commit." "$image"

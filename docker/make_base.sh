#!/usr/bin/env bash
# Makes the image metasrv-base: a minimal Debian 12 with its Python 3.11, for machines that cannot pull images.
# Needs root (debootstrap makes device files), debootstrap, a Docker engine and a Debian mirror: the one of this machine's
# debootstrap, or METASRV_DEBIAN_MIRROR=URL. Does nothing if the image is there already, unless METASRV_BASE_REBUILD=1.
set -euo pipefail
image=${METASRV_BASE_IMAGE:-metasrv-base}

fail() {
    echo "make_base: $*" >&2
    exit 1
}

docker version >/dev/null 2>&1 || fail "no Docker engine answers; start it, or set DOCKER_HOST."
if [ -z "${METASRV_BASE_REBUILD:-}" ] && docker image inspect "$image" >/dev/null 2>&1; then
    echo "make_base: $image is there already (METASRV_BASE_REBUILD=1 makes it anew)."
    exit 0
fi
command -v debootstrap >/dev/null || fail "debootstrap is missing; on Debian and Ubuntu: apt-get install debootstrap."
[ "$(id -u)" -eq 0 ] || fail "debootstrap needs root; run it as root: sudo make docker-base."

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
echo "make_base: fetching Debian packages ..."
# python3-venv brings the pip that the build stage uses; nothing here can compile.
debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$root/system" \
    ${METASRV_DEBIAN_MIRROR:+"$METASRV_DEBIAN_MIRROR"} >"$root/debootstrap.log" 2>&1 ||
    { tail -n 20 "$root/debootstrap.log" >&2; fail "debootstrap failed; its last lines are above."; }

# What a container never reads: package lists and archives, manuals, translations, and the mirror that was used. The
# licences of the packages stay, in /usr/share/doc/*/copyright.
rm -rf "$root"/system/var/lib/apt/lists/* "$root"/system/var/cache/apt/* "$root"/system/var/log/* \
    "$root"/system/usr/share/{man,info,locale,lintian}/* "$root"/system/debootstrap
find "$root/system/usr/share/doc" -mindepth 2 ! -type d ! -name copyright -delete
find "$root/system/usr/share/doc" -mindepth 1 -type d -empty -delete
: >"$root/system/etc/apt/sources.list"
rm -f "$root/system/etc/resolv.conf" "$root/system/etc/hostname"

tar -C "$root/system" --numeric-owner -c . |
    docker import --change 'ENV LANG=C.UTF-8' --change 'CMD ["/usr/bin/python3"]' \
        --message "Debian 12 minimal with Python 3.11" - "$image" >/dev/null
docker image inspect --format "make_base: {{index .RepoTags 0}} is ready, {{.Size}} bytes." "$image"

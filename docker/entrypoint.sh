#!/bin/sh
# Starts a node in a container. With METASRV_SHARED_DIR, a directory that all nodes of a cluster share (docker-compose.yml
# mounts a volume there), whichever node comes first makes the raft secret, unless METASRV_RAFT_SECRET has one.
# Any other command is run as it is: docker run metasrv metactl --help
set -eu

fail() {
    echo "metasrv-entrypoint: $*" >&2
    exit 2
}

case "${1:-metasrv}" in
-*) set -- metasrv "$@" ;;
metasrv) [ $# -gt 0 ] || set -- metasrv ;;
*) exec "$@" ;;
esac
case "${2:-}" in
config | --help | -h | --version | --cmd) exec "$@" ;;
esac

shared=${METASRV_SHARED_DIR:-}
umask 077

# Create a file of one line, complete or not at all, unless it exists: `ln` never replaces.
create_once() {
    draft=$(mktemp "$1.XXXXXX") || fail "$(dirname "$1") cannot be written by user $(id -u); check who owns the volume."
    printf '%s\n' "$2" >"$draft"
    sync "$draft"
    ln "$draft" "$1" 2>/dev/null || true
    rm -f "$draft"
    [ -s "$1" ] || fail "$1 is empty or could not be made; remove it if no node has ever started, else restore it."
}

if [ -n "$shared" ] && [ -z "${METASRV_RAFT_SECRET:-}" ]; then
    create_once "$shared/raft-secret" "$(od -An -v -tx1 -N32 /dev/urandom | tr -d ' \n')"
    METASRV_RAFT_SECRET=$(cat "$shared/raft-secret")
    export METASRV_RAFT_SECRET
fi

exec "$@"

#!/bin/sh
# Starts a node in a container. With METASRV_SHARED_DIR, a directory that all nodes of a cluster share (docker-compose.yml
# mounts a volume there), it also
#   - makes the raft secret, whichever node comes first, unless METASRV_RAFT_SECRET or the configuration file has one;
#   - lets the node with METASRV_BEGINS_CLUSTER=true begin the cluster exactly once. If its data is lost later it joins the
#     other nodes instead of beginning a second cluster beside theirs.
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
data=${METASRV_RAFT_DIR:-/var/lib/metasrv}
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

if [ -n "$shared" ] && [ "${METASRV_BEGINS_CLUSTER:-false}" = true ]; then
    if [ -e "$data/began-cluster" ] || [ ! -e "$shared/cluster-began" ]; then
        # In this order: a crash in between is finished by the next start, with the same data.
        create_once "$data/began-cluster" "node ${METASRV_ID:-?}"
        create_once "$shared/cluster-began" "node ${METASRV_ID:-?}"
        METASRV_SINGLE=true
        METASRV_JOIN=
        export METASRV_SINGLE METASRV_JOIN
    else
        echo "metasrv-entrypoint: the cluster has begun before but its data is not here; joining ${METASRV_JOIN:-} instead." \
            "If all nodes' data was removed on purpose, remove the shared volume too." >&2
    fi
fi
exec "$@"

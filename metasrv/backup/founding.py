"""The data directory of a cluster that begins with a state: identity, log and state that belong together.

Used by restores and by the recovery of a cluster that has lost its majority. Log, state and identity are written by the
modules that own their formats. The log begins with two entries, as after a snapshot: the last one that the state has
applied, and one before it. Every node of such a cluster begins with the same, so they agree from the start.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from hashlib import blake2b
from typing import NamedTuple

from metasrv.model.entries import KIND_NOOP, encode_noop_entry
from metasrv.model.types import Endpoint, LogId, Member, Membership, Node
from metasrv.model.wire import pack
from metasrv.process.data_directory import DataDirectory
from metasrv.process.operating_system import sync_directory
from metasrv.raft.log.format import LogEntry
from metasrv.raft.log.store import LogStore
from metasrv.state.bulk import Beginning, give_beginning
from metasrv.state.format import Applied

_FIRST_ENTRY = (bytes((KIND_NOOP,)), 1, 0)
"""The engine's own first entry, the same on every node."""
INDEX_MIN = 2
"""Index of the last applied entry: two entries stand in the log."""
_ID_SIZE_BYTES = 16


class Names(NamedTuple):
    """What tells a new cluster and its data directories from all others."""

    cluster_id: str
    incarnations: Mapping[int, str]


def name_cluster(applied: Applied, voters: Mapping[int, Endpoint], learners: Mapping[int, Endpoint], token: str) -> Names:
    """Ids of the cluster and of its directories.

    Those of a cluster of one are random. Several nodes are restored one by one, without asking each other, so theirs
    follow from what they have in common: the state, the members and the token.
    """
    if len(voters) + len(learners) == 1:
        (node_id,) = (*voters, *learners)
        return Names(uuid.uuid4().hex, {node_id: uuid.uuid4().hex})
    members = [[node_id, *endpoint] for node_id, endpoint in sorted({**voters, **learners}.items())]
    log_id, *scalars = applied
    cluster_id = _hash("cluster", *log_id, *scalars, members, sorted(voters), token)
    return Names(cluster_id, {node_id: _hash("directory", cluster_id, node_id) for node_id in {**voters, **learners}})


def _hash(*parts: object) -> str:
    return blake2b(pack(parts), digest_size=_ID_SIZE_BYTES).hexdigest()


def membership_of(names: Names, voters: Mapping[int, Endpoint], learners: Mapping[int, Endpoint]) -> Membership:
    """The members with the data directories that they are about to get."""
    voting, learning = (
        {node_id: Member(endpoint, names.incarnations[node_id]) for node_id, endpoint in group.items()}
        for group in (voters, learners)
    )
    return Membership(voting, learning)


def found(
    root: str,
    node_id: int,
    names: Names,
    state_path: str,
    log_id: LogId,
    membership_log_id: LogId,
    membership: Membership,
    nodes: tuple[Node, ...],
    features: tuple[str, ...] | None = None,
    secrets: Mapping[str, bytes] | None = None,
) -> None:
    """Make the data directory `root` around the state file `state_path`, which is moved into it.

    `features` are those that are on, `secrets` the replicated ones; None for those in the state. `log_id` becomes the
    last entry of the log, and the last one that the state has applied. Raises StorageError or DataDamagedError.
    """
    give_beginning(
        state_path, Beginning(log_id, membership_log_id, membership, nodes, names.cluster_id, features, secrets)
    )
    directory = DataDirectory.open(root, node_id, incarnation=names.incarnations[node_id])
    try:
        os.replace(state_path, directory.state_path)
        store = LogStore.open(directory.log_path, create_entries=_tail(log_id))
        store.open_writer().close()
        for path in (directory.log_path, directory.state_path):
            sync_directory(os.path.dirname(path))
        directory.complete(names.cluster_id)
    finally:
        directory.close()


def log_id_to_begin_with(log_id: LogId) -> LogId:
    """The same, unless it is too early for a log of two entries."""
    return LogId(max(1, log_id.term), max(INDEX_MIN, log_id.index), log_id.node_id)


def _tail(log_id: LogId) -> list[LogEntry]:
    content = encode_noop_entry(log_id.node_id)
    before = _FIRST_ENTRY if log_id.index == INDEX_MIN else (content, log_id.index - 1, log_id.term)
    return [before, (content, log_id.index, log_id.term)]

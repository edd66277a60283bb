"""A `RaftStatus` as a msgpack tree, field by field, for a gateway to answer from. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from metasrv.gateway.messages import checked
from metasrv.model.command_table import NODE
from metasrv.model.errors import InvariantError
from metasrv.model.shapes import (
    BOOLEAN,
    INTEGER,
    STRING,
    UNSIGNED,
    UNSIGNED_OR_NONE,
    Shape,
    optional,
    record,
    sequence,
)
from metasrv.model.types import (
    CompactionStatus,
    Endpoint,
    LogId,
    Member,
    Membership,
    PeerProgress,
    RaftLogStatus,
    RaftState,
    RaftStatus,
    SnapshotStatus,
    WriteLimits,
)
from metasrv.model.wire import mapping

K = TypeVar("K")
V = TypeVar("V")


def _float(value: Any) -> float:
    if type(value) not in (int, float):
        raise TypeError("a number was expected")
    return float(value)


def _keyed(key: Shape[K], value: Shape[V]) -> Shape[Mapping[K, V]]:
    """A map."""
    read_key, read_value, write = key.read, value.read, value.write
    return Shape(
        lambda tree: {read_key(each): read_value(found) for each, found in mapping(tree).items()},
        lambda found: {each: part if write is None else write(part) for each, part in found.items()},
    )


def _membership_in(tree: Any) -> Membership:
    voters, learners = tree
    return Membership(_MEMBERS.read(voters), _MEMBERS.read(learners))


LOG_ID = record(LogId, term=UNSIGNED, index=UNSIGNED, node_id=UNSIGNED)
ENDPOINT = record(Endpoint, addr=STRING, port=UNSIGNED)
_MEMBERS = _keyed(UNSIGNED, record(Member, endpoint=ENDPOINT, incarnation=STRING))
MEMBERSHIP: Shape[Membership] = Shape(_membership_in, lambda it: (dict(it.voters), dict(it.learners)))
NODES = _keyed(UNSIGNED, NODE)
_SIZES = _keyed(STRING, UNSIGNED)
_TEXT = optional(STRING)

_FIELDS: Mapping[str, Shape[Any]] = {
    "node_id": UNSIGNED,
    "cluster_id": _TEXT,
    "state": Shape(RaftState, str),
    "term": UNSIGNED,
    "leader_id": UNSIGNED_OR_NONE,
    "last_log_id": LOG_ID,
    "commit_index": UNSIGNED,
    "last_applied": LOG_ID,
    "purged": optional(LOG_ID),
    "membership": MEMBERSHIP,
    "membership_committed": BOOLEAN,
    "nodes": NODES,
    "replication": optional(_keyed(UNSIGNED, optional(LOG_ID))),
    "peers": sequence(
        record(
            PeerProgress,
            node_id=UNSIGNED,
            match_log_id=optional(LOG_ID),
            last_contact_ms=optional(INTEGER),
            connected=BOOLEAN,
            other_cluster=_TEXT,
            clock_offset_ms=optional(INTEGER),
            learner_for_ms=optional(INTEGER),
            caught_up=optional(BOOLEAN),
        )
    ),
    "leader_contact_ms": optional(INTEGER),
    "has_quorum": BOOLEAN,
    "contact_bound_ms": UNSIGNED,
    "proposals_pending": UNSIGNED,
    "proposals_failed": UNSIGNED,
    "leader_changes": UNSIGNED,
    "last_seq": UNSIGNED,
    "raft_log": record(
        RaftLogStatus,
        cache_items=UNSIGNED,
        cache_used_size=UNSIGNED,
        wal_total_size=UNSIGNED,
        wal_open_chunk_size=UNSIGNED,
        wal_offset=UNSIGNED,
        wal_closed_chunk_count=UNSIGNED,
        wal_closed_chunk_total_size=UNSIGNED,
        wal_closed_chunk_sizes=_SIZES,
    ),
    "state_size_bytes": UNSIGNED,
    "state_log_size_bytes": UNSIGNED,
    "snapshot": record(
        SnapshotStatus,
        last_log_id=optional(LOG_ID),
        key_count=UNSIGNED,
        expire_count=UNSIGNED,
        size_bytes=UNSIGNED,
        building=BOOLEAN,
        installing=BOOLEAN,
        path=_TEXT,
        files_size_bytes=UNSIGNED,
    ),
    "fatal": _TEXT,
    "clock_offset_ms": optional(INTEGER),
    "log_time_ahead_ms": INTEGER,
    "disk_stall": _TEXT,
    "disk_stalled_seconds": Shape(_float),
    "removed": _TEXT,
    "limits": record(WriteLimits, read_only=_TEXT, read_only_since_ms=UNSIGNED, quota_bytes=UNSIGNED),
    "data_size_bytes": UNSIGNED,
    "key_count": UNSIGNED,
    "writes_refused": UNSIGNED,
    "drained": BOOLEAN,
    "compaction": optional(
        record(
            CompactionStatus,
            step=STRING,
            entries_purged=UNSIGNED,
            sizes_before=_SIZES,
            sizes_after=_SIZES,
            error=_TEXT,
        )
    ),
}
if [field.name for field in fields(RaftStatus)] != list(_FIELDS):
    raise InvariantError("the shapes of a status are not those of its fields")


def status_out(status: RaftStatus) -> tuple[Any, ...]:
    """The tree of a status."""
    values = ((getattr(status, name), shape.write) for name, shape in _FIELDS.items())
    return tuple(value if write is None else write(value) for value, write in values)


def status_in(tree: Any) -> RaftStatus:
    """The status of a tree; raises CodecError."""
    return checked(
        lambda: RaftStatus(**{name: shape.read(part) for (name, shape), part in zip(_FIELDS.items(), tree, strict=True)})
    )

"""The messages between a node and its gateways: their kinds, and the shapes of what they carry.

A gateway that the node starts is of its own release; one on another machine says which `REMOTE_VERSION` it speaks, and a
node refuses one that it does not know. Shapes are checked all the same
(invariant 7): a gateway talks to everybody, and must not be able to do more to the node than what is listed here. Pure.

    message   [kind, field, ...]       a frame holds several (`link.py`)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import Any, NamedTuple, TypeVar

from metasrv.model.errors import CodecError
from metasrv.model.types import KVMeta, SeqV, WriteLimits
from metasrv.model.wire import byte_string, integer, string, unsigned, unsigned_or_none

T = TypeVar("T")

Message = tuple[Any, ...]


class FromGateway(IntEnum):
    """What a gateway says, with the fields that follow."""

    READY = 0
    """It serves."""
    PROPOSE = 1
    """number, whether a follower forwards it, timeout in ms, encoded command; if it is traced, two headers."""
    BARRIER = 2
    """number, whether a follower asks the leader, timeout in ms."""
    STATUS = 3
    """number."""
    CURRENT = 4
    """number: commit what is applied to the state file, and tell which file that is."""
    WATCH = 5
    """number, key, end of the range or None, whether existing records are wanted."""
    WATCH_PAGE = 6
    """number of a watch: the next of its existing records."""
    WATCH_END = 7
    """number of a watch whose existing records are no longer wanted."""
    WATCHERS = 8
    """How many watch streams it has."""
    VIEWS = 9
    """How many views of the state file it has pinned."""
    COUNTS = 10
    """What it has counted since the last time (`counts.py`)."""
    LOG = 11
    """level, logger, text, trace or None, further fields of the line."""
    DAMAGE = 12
    """A sentence: a read found the state file damaged."""
    PONG = 13
    SLOW_WRITES = 14
    """The slowest and the largest writes since the last time (`slow_writes.py`)."""
    GREET = 15
    """The first message from another machine: `REMOTE_VERSION`, its name, its release."""
    READ = 16
    """number, a `Confirm`, timeout in ms, [keys of one read, ...], ..."""
    LIST = 17
    """number, a `Confirm`, timeout in ms, prefix, limit or None."""
    VIEW = 18
    """number, a `Confirm`, timeout in ms, whether it is for a few keys (KvGetMany)."""
    VIEW_HEAD = 19
    """number, number of a view: what it says beside its records."""
    VIEW_PAGE = 20
    """number, number of a view, first key, end of the range or None."""
    VIEW_EXPIRY = 21
    """number, number of a view: the next part of its expiry index."""
    VIEW_KEYS = 22
    """number, number of a view, keys."""
    VIEW_END = 23
    """number of a view that is no longer wanted."""


FROM_REMOTE = frozenset(
    (
        FromGateway.GREET,
        FromGateway.PROPOSE,
        FromGateway.BARRIER,
        FromGateway.STATUS,
        FromGateway.WATCH,
        FromGateway.WATCH_PAGE,
        FromGateway.WATCH_END,
        FromGateway.WATCHERS,
        FromGateway.PONG,
        FromGateway.READ,
        FromGateway.LIST,
        FromGateway.VIEW,
        FromGateway.VIEW_HEAD,
        FromGateway.VIEW_PAGE,
        FromGateway.VIEW_EXPIRY,
        FromGateway.VIEW_KEYS,
        FromGateway.VIEW_END,
    )
)
"""What a gateway on another machine may say, and nothing else."""

REMOTE_VERSION = 1
"""The version of this list of kinds, as it goes between machines; raised with every change of a kind or a shape."""


class Confirm(IntEnum):
    """What a read waits for before it is answered."""

    NOTHING = 0
    """Stale: the node answers what it has, and hides what has expired by its own clock."""
    HERE = 1
    """The node has to lead."""
    ANYWHERE = 2
    """A node that does not lead asks the leader."""


class FromNode(IntEnum):
    """What the node says."""

    BEGIN = 0
    """(`beginning.py`)"""
    DONE = 1
    """number, encoded reply."""
    FAILED = 2
    """number, encoded error: of a proposal, a barrier, a watch."""
    CURRENT = 3
    """number: the state file holds what was asked for; then how often another file took its place."""
    STATUS = 4
    """number, or 0 when nobody asked; a status (`statuses.py`)."""
    REGISTRY = 5
    """A `Registry`."""
    PULSE = 6
    """A `Pulse`."""
    CHANGES = 7
    """[key, record before or None, record after or None], ..."""
    WATCHING = 8
    """number of a watch: all later changes are its own."""
    WATCH_PAGE = 9
    """number of a watch, [key, record], ..., whether these are its last existing records."""
    WATCHES_RESET = 10
    """A sentence: every watch ends."""
    REVOKE = 11
    """A sentence: every pinned view ends."""
    SETTINGS = 12
    """The configuration has changed, or files that it names (`beginning.py`)."""
    STOP = 13
    """Time in ms for calls under way."""
    PING = 14
    GREETED = 15
    """The first message to another machine: node's release, status, `Registry`, `Pulse`."""
    REFUSED = 16
    """A sentence: the node does not serve this gateway, and ends the link."""
    READ = 17
    """number, place of the first, the records of each read or None where they are too large, ..."""
    LISTED = 18
    """number, [key, record], ...; or None: a view of this number is pinned instead."""
    ANSWER = 19
    """number, what was asked for of a view."""


class Registry(NamedTuple):
    """The small replicated tables that the client port reads."""

    cluster_id: str | None
    features: tuple[str, ...]
    limits: WriteLimits
    secrets: Mapping[str, bytes]


class Pulse(NamedTuple):
    """What changes often, and what a gateway does otherwise because of it."""

    draining: bool
    serves: bool
    hurry: bool
    applied_index: int
    installs: int
    """How often another file took the state file's place."""


def registry_out(registry: Registry) -> Message:
    return (registry.cluster_id, registry.features, registry.limits, dict(registry.secrets))


def registry_in(tree: Any) -> Registry:
    """Raises CodecError."""

    def build() -> Registry:
        cluster_id, features, (read_only, since_ms, quota_bytes), secrets = tree
        return Registry(
            None if cluster_id is None else string(cluster_id),
            tuple(map(string, features)),
            WriteLimits(None if read_only is None else string(read_only), unsigned(since_ms), unsigned(quota_bytes)),
            {string(name): byte_string(secret) for name, secret in secrets.items()},
        )

    return checked(build)


def pulse_in(tree: Any) -> Pulse:
    """Raises CodecError."""

    def build() -> Pulse:
        draining, serves, hurry, applied_index, installs = tree
        return Pulse(bool(draining), bool(serves), bool(hurry), unsigned(applied_index), unsigned(installs))

    return checked(build)


def record_in(tree: Any) -> SeqV | None:
    """A record; raises TypeError or ValueError."""
    if tree is None:
        return None
    seq, data, meta = tree
    if meta is None:
        return SeqV(unsigned(seq), byte_string(data))
    expire_at, proposed_at_ms = meta
    expires = None if expire_at is None else integer(expire_at)
    return SeqV(unsigned(seq), byte_string(data), KVMeta(expires, unsigned_or_none(proposed_at_ms)))


def checked(build: Callable[[], T]) -> T:
    """What `build` makes of a tree; raises CodecError for one of another shape."""
    try:
        return build()
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        raise CodecError(f"not a message of a gateway's link: {error}") from error

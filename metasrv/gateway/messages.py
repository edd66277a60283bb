"""The messages between a node and its gateways: their kinds, and the shapes of what they carry.

Both ends are the same release: the node starts its gateways from its own files. Shapes are checked all the same
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

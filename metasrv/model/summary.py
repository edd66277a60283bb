"""What one node tells another about itself for the console: a summary, its newest events, and their bytes.

A form of its own with a version of its own: the console is not what nodes need to agree on. A summary in a version that
is not known counts as none. Fields are only added at the end, with the version raised. Pure; runs anywhere.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from metasrv.model.errors import CodecError
from metasrv.model.events import Event
from metasrv.model.limits import SUMMARY_EVENTS_MAX
from metasrv.model.wire import integer, pack, string, unpack, unsigned, unsigned_or_none

SUMMARY_VERSION = 1


class CheckResult(NamedTuple):
    """One check of readiness."""

    name: str
    passed: bool
    warns: bool
    reason: str


class NodeSummary(NamedTuple):
    """One node as it sees itself at one instant."""

    node_id: int
    role: str
    """`leader`, `follower`, `candidate`, `learner` or `removed`."""
    term: int
    leader_id: int | None
    version: str
    admin_address: str
    """Where its admin API is reached, `host:port`; empty when it has none."""
    admin_tls: bool
    uptime_ms: int
    clock_offset_ms: int | None
    """Its wall clock less that of the majority."""
    last_log_index: int
    applied_index: int
    database_bytes: int
    log_bytes: int
    sync_microseconds: int | None
    """Mean of the last log writes; None when there were none in the last seconds."""
    checks: tuple[CheckResult, ...]
    lags: tuple[tuple[int, int], ...]
    """On a leader: entries that each member has not acknowledged, by node, where that is known."""
    other_clusters: tuple[tuple[int, str], ...]
    """Members at whose address this node finds another cluster, with its id."""

    @property
    def ready(self) -> bool:
        """Whether every check passes."""
        return all(check.passed for check in self.checks)

    def passes(self, name: str) -> bool:
        """Whether the check of this name passes; one that the node does not make does."""
        return all(check.passed for check in self.checks if check.name == name)


class SummaryAnswer(NamedTuple):
    """What a node answers: its summary, and the events that the asker does not have."""

    summary: NodeSummary
    incarnation: str
    """Names the run of the node that its events are numbered by."""
    events: tuple[Event, ...]


class SummaryQuestion(NamedTuple):
    """What the asker has already."""

    incarnation: str
    number: int


def encode_answer(answer: SummaryAnswer) -> bytes:
    """The bytes of an answer, with their version."""
    return pack((SUMMARY_VERSION, *map(_plain, answer)))


def decode_answer(data: bytes) -> SummaryAnswer:
    """The answer in these bytes. Raises CodecError for another version or form."""
    try:
        version, summary, incarnation, events = unpack(data)
        if version != SUMMARY_VERSION:
            raise CodecError(f"a summary has version {version!r:.40}, this node knows version {SUMMARY_VERSION}")
        if len(events) > SUMMARY_EVENTS_MAX:
            raise CodecError(f"a summary has {len(events)} events, the limit is {SUMMARY_EVENTS_MAX}")
        return SummaryAnswer(_summary_in(summary), string(incarnation), tuple(map(_event_in, events)))
    except (TypeError, ValueError) as error:
        raise CodecError(f"a summary is malformed: {error}") from error


def _plain(value: Any) -> Any:
    return tuple(map(_plain, value)) if isinstance(value, tuple) else value


def _summary_in(tree: Any) -> NodeSummary:
    given = NodeSummary(*tree)
    offset = given.clock_offset_ms
    return NodeSummary(
        node_id=unsigned(given.node_id),
        role=string(given.role),
        term=unsigned(given.term),
        leader_id=unsigned_or_none(given.leader_id),
        version=string(given.version),
        admin_address=string(given.admin_address),
        admin_tls=_boolean(given.admin_tls),
        uptime_ms=unsigned(given.uptime_ms),
        clock_offset_ms=None if offset is None else integer(offset),
        last_log_index=unsigned(given.last_log_index),
        applied_index=unsigned(given.applied_index),
        database_bytes=unsigned(given.database_bytes),
        log_bytes=unsigned(given.log_bytes),
        sync_microseconds=unsigned_or_none(given.sync_microseconds),
        checks=tuple(
            CheckResult(string(name), _boolean(passed), _boolean(warns), string(reason))
            for name, passed, warns, reason in given.checks
        ),
        lags=tuple((unsigned(node_id), unsigned(lag)) for node_id, lag in given.lags),
        other_clusters=tuple((unsigned(node_id), string(other)) for node_id, other in given.other_clusters),
    )


def _event_in(tree: Any) -> Event:
    number, time_ms, kind, severity, text, term = tree
    return Event(
        unsigned(number), unsigned(time_ms), string(kind), string(severity), string(text), unsigned_or_none(term)
    )


def _boolean(value: Any) -> bool:
    if type(value) is not bool:
        raise TypeError("a boolean was expected")
    return value

"""What one node tells another about itself: a summary, its newest events, and their bytes.

The one question between members about how they are; the console, the members' routes and metactl show the answers. A
form of its own with a version of its own: it is not what nodes need to agree on. The asker names the newest version that
it knows, and is answered in that or an earlier one. Fields are only added at the end, with the version raised. Pure;
runs anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from metasrv.model.errors import CodecError
from metasrv.model.events import Event
from metasrv.model.limits import SUMMARY_EVENTS_MAX
from metasrv.model.types import RaftState
from metasrv.model.wire import integer, pack, string, unpack, unsigned, unsigned_or_none

SUMMARY_VERSION = 2
FIRST_SUMMARY_VERSION = 1
"""That of release 0.2.0, whose question names no version."""
_FIELDS_OF_VERSION = {1: 17, 2: 19}
"""How many fields of a summary each version has."""
TEXT_CHARACTERS_MAX = 1000
"""A sentence made of several checks is cut there: all members are asked at once."""
ALARM = "ALARM"
"""With this begins what a check says that passes and needs somebody at once."""


ROLES = {
    RaftState.LEADER: "leader",
    RaftState.FOLLOWER: "follower",
    RaftState.CANDIDATE: "candidate",
    RaftState.LEARNER: "learner",
    RaftState.SHUTDOWN: "unreachable",
}


class CheckResult(NamedTuple):
    """One check of readiness."""

    name: str
    passed: bool
    warns: bool
    reason: str

    @property
    def deserves_a_look(self) -> bool:
        """Whether somebody should look although it passes."""
        return self.passed and (self.warns or self.reason.startswith(ALARM))


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
    started_at_ms: int | None
    """Its wall clock when it started; a node of release 0.2.0 does not say it."""
    certificates: tuple[tuple[str, int], ...]
    """When the certificate of each port expires, in seconds since the epoch; empty from a node of release 0.2.0."""

    @property
    def ready(self) -> bool:
        """Whether every check passes."""
        return all(check.passed for check in self.checks)

    def passes(self, name: str) -> bool:
        """Whether the check of this name passes; one that the node does not make does."""
        return all(check.passed for check in self.checks if check.name == name)

    @property
    def state(self) -> str:
        """The `RaftState` that the role stands for; a node that was removed follows nobody, and leads nobody."""
        return next((state.value for state, role in ROLES.items() if role == self.role), RaftState.FOLLOWER.value)

    @property
    def not_ready(self) -> str:
        """Why it is not ready; empty when it is."""
        return "; ".join(check.reason for check in self.checks if not check.passed)[:TEXT_CHARACTERS_MAX]

    @property
    def warnings(self) -> str:
        """What somebody should look at although it is ready; mostly empty."""
        return "; ".join(check.reason for check in self.checks if check.deserves_a_look)[:TEXT_CHARACTERS_MAX]


class SummaryAnswer(NamedTuple):
    """What a node answers: its summary, and the events that the asker does not have."""

    summary: NodeSummary
    incarnation: str
    """Names the run of the node that its events are numbered by."""
    events: tuple[Event, ...]


class SummaryQuestion(NamedTuple):
    """What the asker has already, and how many events it wants."""

    incarnation: str = ""
    number: int = 0
    events_max: int = SUMMARY_EVENTS_MAX


WITHOUT_EVENTS = SummaryQuestion(events_max=0)


def question_fields(question: SummaryQuestion) -> tuple[Any, ...]:
    """The fields of a request; `first_question_fields` are those that release 0.2.0 knows."""
    return (question.incarnation, question.number, SUMMARY_VERSION, question.events_max)


def first_question_fields(question: SummaryQuestion) -> tuple[Any, ...]:
    return (question.incarnation, question.number)


def question_in(fields: Sequence[Any]) -> tuple[SummaryQuestion, int]:
    """The question in a request, and the version to answer in. Raises TypeError, ValueError."""
    if len(fields) == len(first_question_fields(SummaryQuestion())):
        incarnation, number = fields
        return SummaryQuestion(string(incarnation), unsigned(number)), FIRST_SUMMARY_VERSION
    incarnation, number, version, events_max, *_of_later_versions = fields
    question = SummaryQuestion(string(incarnation), unsigned(number), min(unsigned(events_max), SUMMARY_EVENTS_MAX))
    return question, max(FIRST_SUMMARY_VERSION, min(unsigned(version), SUMMARY_VERSION))


def encode_answer(answer: SummaryAnswer, version: int = SUMMARY_VERSION) -> bytes:
    """The bytes of an answer, with their version."""
    summary = tuple(answer.summary)[: _FIELDS_OF_VERSION[version]]
    return pack((version, _plain(summary), answer.incarnation, _plain(answer.events)))


def decode_answer(data: bytes) -> SummaryAnswer:
    """The answer in these bytes. Raises CodecError for another version or form."""
    try:
        version, summary, incarnation, events = unpack(data)
        count = _FIELDS_OF_VERSION.get(version) if type(version) is int else None
        if count is None:
            raise CodecError(f"a summary has version {version!r:.40}, this node knows version {SUMMARY_VERSION}")
        if len(events) > SUMMARY_EVENTS_MAX:
            raise CodecError(f"a summary has {len(events)} events, the limit is {SUMMARY_EVENTS_MAX}")
        if len(summary) != count:
            raise CodecError(f"a summary of version {version} has {len(summary)} fields instead of {count}")
        if version == FIRST_SUMMARY_VERSION:
            summary = (*summary, None, ())
        return SummaryAnswer(_summary_in(summary), string(incarnation), tuple(map(_event_in, events)))
    except (TypeError, ValueError, KeyError) as error:
        raise CodecError(f"a summary is malformed: {error}") from error


def first_report(summary: NodeSummary) -> tuple[Any, ...]:
    """The answer to `report`, the other question of release 0.2.0 between members, from the same data."""
    return (
        summary.version,
        summary.state,
        summary.term,
        summary.leader_id,
        summary.last_log_index,
        summary.applied_index,
        summary.started_at_ms or 0,
        summary.clock_offset_ms,
        summary.not_ready,
        summary.warnings,
        summary.certificates,
        summary.admin_address,
    )


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
        started_at_ms=unsigned_or_none(given.started_at_ms),
        certificates=tuple((string(port), unsigned(expires_at)) for port, expires_at in given.certificates),
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

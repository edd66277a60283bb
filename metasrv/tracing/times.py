"""When the stages of one client request began, so that a slow one can say where its time went.

Stamps are seconds of the node's monotonic clock, and most of them are read for another purpose anyway. Who handles a
request puts its stamps into `CURRENT`, and consensus finds them there; without any, nothing is kept. Pure; runs on the
event loop.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol


class Stage(StrEnum):
    """What a request waits for, in the order in which it happens."""

    QUEUE = "queue"
    """Admission on the node that the client asked: token, rights, decoding, the turn of the loop."""
    LEADER = "leader"
    """No leader was known, or what was sent was refused and sent again."""
    FORWARD = "forward"
    """The leader, another node, was asked and had not answered."""
    BATCH = "batch"
    """Waiting in the leader until a batch left."""
    SYNC = "sync"
    """The leader's disk wrote the batch; the other nodes have had it meanwhile."""
    PEERS = "peers"
    """A majority had not yet answered after that; for a read, confirmed that this leader leads."""
    APPLY = "apply"
    """The state took the batch; a read waited until it had."""
    ANSWER = "answer"
    """The answer was made and handed to the connection; all of a request that consensus was not asked about."""


class StageTime(NamedTuple):
    """One stage of one request."""

    stage: Stage
    began_at: float
    ended_at: float


@dataclass(frozen=True, slots=True)
class RequestEnd:
    """What is known of a request at its end. `key` and `client` are asked for only when they are needed."""

    method: str
    outcome: str
    client: Callable[[], str] = lambda: ""
    from_node: int | None = None
    key: Callable[[], str] = lambda: ""
    user: str = ""


class RequestTrace(Protocol):
    """A sampled request's spans (`spans.py`)."""

    trace_id: str

    def forwarded(self, node_id: int) -> tuple[str, str]:
        """Begin the span of a question to another node; what that node needs to go on: `traceparent`, `tracestate`."""

    def end(self, end: RequestEnd, times: RequestTimes, ended_at: float) -> None:
        """The request has ended: make the spans of its stages."""


class BatchTimes:
    """The stamps that all writes of one batch share."""

    __slots__ = ("applied_at", "committed_at", "index", "synced_at", "taken_at", "term")

    def __init__(self, index: int, term: int, taken_at: float) -> None:
        self.index = index
        self.term = term
        self.taken_at = taken_at
        self.synced_at = 0.0
        self.committed_at = 0.0
        self.applied_at = 0.0


class RequestTimes:
    """The stamps of one request; 0.0 is a stage that it has not reached."""

    # These are the class's until they are reached: every request makes one of these, and most reach few stages.
    asked_at = 0.0
    """Consensus was asked."""
    forwarded_at = 0.0
    forwarded_to: int | None = None
    answered_at = 0.0
    """The node that was asked has answered, or consensus has."""
    submitted_at = 0.0
    batch: BatchTimes | None = None
    read_at = 0.0
    """This node, the leader, was asked for a read index."""
    confirmed_at = 0.0
    """The read index is known."""
    trace: RequestTrace | None = None

    def __init__(self, started_at: float) -> None:
        self.started_at = started_at

    def forward(self, now: float, node_id: int) -> None:
        """Another node is asked from now on."""
        self.forwarded_at, self.forwarded_to = now, node_id
        self.answered_at = self.submitted_at = self.read_at = self.confirmed_at = 0.0

    def submit(self, now: float) -> None:
        """This node leads, and its proposals have the write from now on."""
        self.asked_at = self.asked_at or now
        self.submitted_at, self.forwarded_at, self.forwarded_to = now, 0.0, None

    def read(self, now: float) -> None:
        """This node leads, and a majority is asked whether it does."""
        self.read_at, self.forwarded_at, self.forwarded_to = now, 0.0, None
        self.confirmed_at = self.answered_at = 0.0

    def stages(self, ended_at: float) -> list[StageTime]:
        """What the request waited for until `ended_at`, without gaps; the last stage is the one that did not end."""
        marks = self._marks()
        ends = [began_at for _, began_at in marks[1:]] + [ended_at]
        return [StageTime(stage, began, max(began, end)) for (stage, began), end in zip(marks, ends, strict=True)]

    def _marks(self) -> list[tuple[Stage, float]]:
        if not self.asked_at:
            return [(Stage.ANSWER, self.started_at)]
        marks = [(Stage.QUEUE, self.started_at), (Stage.LEADER, self.asked_at)]
        if self.forwarded_at:
            marks.append((Stage.FORWARD, self.forwarded_at))
        elif self.submitted_at:
            marks.append((Stage.BATCH, self.submitted_at))
            marks += self._marks_of_batch()
        elif self.read_at:
            marks.append((Stage.PEERS, self.read_at))
        if self.confirmed_at:
            marks.append((Stage.APPLY, self.confirmed_at))
        if self.answered_at:
            marks.append((Stage.ANSWER, self.answered_at))
        return marks

    def _marks_of_batch(self) -> list[tuple[Stage, float]]:
        batch = self.batch
        if batch is None:
            return []
        marks = [
            (Stage.SYNC, batch.taken_at),
            (Stage.PEERS, batch.synced_at),
            (Stage.APPLY, batch.committed_at),
            (Stage.ANSWER, batch.applied_at),
        ]
        return [(stage, began_at) for stage, began_at in marks if began_at]


CURRENT: ContextVar[RequestTimes | None] = ContextVar("request_times", default=None)
"""The stamps of the request that this task works on."""
ASKED_BY: ContextVar[int | None] = ContextVar("asked_by", default=None)
"""The node whose request this task answers."""

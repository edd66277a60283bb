"""What becomes of proposals and reads, gathered for whoever answers: a record a batch, not a call for each caller.

The core ends them here and knows of a caller only whether it still waits; `settling.py` gives each its answer where a
coroutine waits for a future. Pure; runs on the event loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from metasrv.model.commands import Reply


class Waiter(Protocol):
    """Who waits for the outcome of one proposal or read. The core asks only whether it still does."""

    def done(self) -> bool:
        """Whether it was answered already, or has given up."""
        ...


class Applied(NamedTuple):
    """A batch of this node's proposals took effect: `replies[i]` is for `waiters[i]`."""

    waiters: Sequence[Any]
    replies: tuple[Reply, ...]


class ReadsConfirmed(NamedTuple):
    """A majority has confirmed this leader after these reads came: `read_indexes[i]` is for `waiters[i]`.

    A read index is the log index that must have been applied where the read is answered.
    """

    waiters: Sequence[Any]
    read_indexes: Sequence[int]


class Rejected(NamedTuple):
    """This node will not do these proposals or reads; the error tells not done from unknown."""

    waiters: Sequence[Any]
    error: Exception


class Answers(NamedTuple):
    """The outcomes of some time, oldest first within each kind."""

    applied: Sequence[Applied] = ()
    rejected: Sequence[Rejected] = ()
    reads_confirmed: Sequence[ReadsConfirmed] = ()


class Outcomes:
    """Where proposals and reads put their outcomes until they are taken."""

    __slots__ = ("_applied", "_confirmed", "_rejected", "waiting")

    def __init__(self) -> None:
        self.waiting = False
        """Whether there are any."""
        self._applied: list[Applied] = []
        self._rejected: list[Rejected] = []
        self._confirmed: list[ReadsConfirmed] = []

    def applied(self, waiters: Sequence[Waiter], replies: tuple[Reply, ...]) -> None:
        self.waiting = True
        self._applied.append(Applied(waiters, replies))

    def rejected(self, waiters: Sequence[Waiter], error: Exception) -> None:
        self.waiting = True
        self._rejected.append(Rejected(waiters, error))

    def confirmed(self, waiters: Sequence[Waiter], read_indexes: Sequence[int]) -> None:
        self.waiting = True
        self._confirmed.append(ReadsConfirmed(waiters, read_indexes))

    def take(self) -> Answers:
        """What has gathered since the last call."""
        answers = Answers(self._applied, self._rejected, self._confirmed)
        self._applied, self._rejected, self._confirmed, self.waiting = [], [], [], False
        return answers

"""Read index: linearizable reads without a log entry (Raft thesis 6.4, invariant 5).

A read that arrives on the leader waits for one round of leadership confirmation that *starts after it*; every message
of the leader carries the number of the newest round and every answer returns it. One round serves all reads that wait.
Outcomes go to `answers.py`. No clock, no future, no input or output; runs on the event loop, in a step.
"""

from __future__ import annotations

from typing import NamedTuple

from metasrv.model.errors import NotLeaderError, OverloadedError
from metasrv.model.limits import READ_WAITERS_MAX
from metasrv.model.types import Membership
from metasrv.raft.core.answers import Outcomes, Waiter


class _Read(NamedTuple):
    round: int
    read_index: int
    waiter: Waiter


class ReadIndex:
    """The rounds of one leader and the reads that wait for them."""

    def __init__(self, node_id: int, outcomes: Outcomes) -> None:
        self._own_id = node_id
        self._outcomes = outcomes
        self._acknowledged: dict[int, int] = {}
        self._waiters: list[_Read] = []
        self._confirmed = 0
        self.round = 0
        """The newest round that has started; never goes back while the process lives."""

    def waiting(self) -> int:
        return len(self._waiters)

    def wants_round(self) -> bool:
        """Whether a read waits for a round that has not started, while no round is under way."""
        return bool(self._waiters) and self._waiters[-1].round > self.round and self._confirmed >= self.round

    def register(self, read_index: int, waiter: Waiter) -> None:
        """Have `waiter` told of `read_index` once a round that starts from now on is confirmed.

        Raises OverloadedError at the limit.
        """
        if len(self._waiters) >= READ_WAITERS_MAX:
            raise OverloadedError(f"{READ_WAITERS_MAX} reads already wait for the leader to be confirmed")
        self._waiters.append(_Read(self.round + 1, read_index, waiter))

    def start_round(self) -> None:
        self.round += 1

    def acknowledged(self, node_id: int, round_: int) -> None:
        """A member answered in this leader's term, having seen `round_`."""
        if round_ > self._acknowledged.get(node_id, 0):
            self._acknowledged[node_id] = min(round_, self.round)

    def resolve(self, membership: Membership) -> None:
        """Answer every read whose round a majority has confirmed."""
        if not self._waiters:
            return
        rounds = sorted(
            (self.round if i == self._own_id else self._acknowledged.get(i, 0) for i in membership.voters),
            reverse=True,
        )
        if not rounds:
            return
        self._confirmed = max(self._confirmed, rounds[membership.majority - 1])
        if self._waiters[0].round > self._confirmed:
            return
        ready = [read for read in self._waiters if read.round <= self._confirmed]
        self._waiters = self._waiters[len(ready) :]
        self._outcomes.confirmed([read.waiter for read in ready], [read.read_index for read in ready])

    def lead(self) -> None:
        """A term of leadership begins: acknowledgements of earlier terms do not count."""
        self._acknowledged.clear()
        self.round += 1
        self._confirmed = 0

    def fail(self, leader_id: int | None) -> None:
        """This node no longer leads: end every waiting read with NotLeaderError."""
        if self._waiters:
            self._outcomes.rejected([read.waiter for read in self._waiters], NotLeaderError(leader_id))
            self._waiters = []

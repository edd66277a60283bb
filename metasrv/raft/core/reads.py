"""Read index: linearizable reads without a log entry (Raft thesis 6.4, invariant 5).

A read that arrives on the leader waits for one round of leadership confirmation that *starts after it*; every message
of the leader carries the number of the newest round and every answer returns it. One round serves all reads that wait.
No clock, no input or output; runs on the event loop, in a step.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from metasrv.model.errors import NotDoneError, NotLeaderError, OverloadedError
from metasrv.model.limits import READ_WAITERS_MAX
from metasrv.model.types import Membership


class _Waiter(NamedTuple):
    round: int
    read_index: int
    future: asyncio.Future[int]


class ReadIndex:
    """The rounds of one leader and the reads that wait for them."""

    def __init__(self, node_id: int) -> None:
        self._own_id = node_id
        self._acknowledged: dict[int, int] = {}
        self._waiters: list[_Waiter] = []
        self._confirmed = 0
        self.round = 0
        """The newest round that has started; never goes back while the process lives."""

    def waiting(self) -> int:
        return len(self._waiters)

    def wants_round(self) -> bool:
        """Whether a read waits for a round that has not started, while no round is under way."""
        return bool(self._waiters) and self._waiters[-1].round > self.round and self._confirmed >= self.round

    def register(self, read_index: int, loop: asyncio.AbstractEventLoop) -> asyncio.Future[int]:
        """A future of `loop` that resolves to `read_index` once a round that starts from now on is confirmed.

        Raises OverloadedError at the limit.
        """
        if len(self._waiters) >= READ_WAITERS_MAX:
            raise OverloadedError(f"{READ_WAITERS_MAX} reads already wait for the leader to be confirmed")
        future: asyncio.Future[int] = loop.create_future()
        self._waiters.append(_Waiter(self.round + 1, read_index, future))
        return future

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
        ready = [waiter for waiter in self._waiters if waiter.round <= self._confirmed]
        self._waiters = self._waiters[len(ready) :]
        for waiter in ready:
            if not waiter.future.done():
                waiter.future.set_result(waiter.read_index)

    def lead(self) -> None:
        """A term of leadership begins: acknowledgements of earlier terms do not count."""
        self._acknowledged.clear()
        self.round += 1
        self._confirmed = 0

    def fail(self, leader_id: int | None) -> None:
        """This node no longer leads: end every waiting read with NotLeaderError."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.future.done():
                waiter.future.set_exception(NotLeaderError(leader_id))


class AppliedWaiters:
    """Requests that wait until the local state has applied an index."""

    def __init__(self, applied_index: Callable[[], int]) -> None:
        self._applied_index = applied_index
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []

    async def wait(self, index: int) -> None:
        """Return when `index` is applied; the caller sets the deadline."""
        if self._applied_index() >= index:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((index, future))
        await future

    def resolve(self) -> None:
        if not self._waiters:
            return
        applied = self._applied_index()
        left: list[tuple[int, asyncio.Future[None]]] = []
        for index, future in self._waiters:
            if future.done():
                continue
            if index <= applied:
                future.set_result(None)
            else:
                left.append((index, future))
        self._waiters = left

    def fail(self, error: Exception) -> None:
        waiters, self._waiters = self._waiters, []
        for _, future in waiters:
            if not future.done():
                future.set_exception(error)


def give_up(future: asyncio.Future[int], timeout_ms: int) -> None:
    """The time of one read is over: end it, unless it was answered."""
    if not future.done():
        future.set_exception(not_confirmed(timeout_ms))


def not_confirmed(timeout_ms: int) -> NotDoneError:
    return NotDoneError(f"no majority confirmed this leader within {timeout_ms} ms")

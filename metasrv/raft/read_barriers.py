"""Read barriers: local state includes every write acknowledged before the call (invariant 5).

`core/reads.py` has the rounds by which a leader is confirmed; this waits for them, here or on the node that leads, and
then for local state. Puts the stamps of what it does into the request's (`tracing/times.py`). Runs on the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from metasrv.model.errors import NotDoneError, NotLeaderError, OverloadedError, UnknownOutcomeError
from metasrv.raft.asking_leader import AskingLeader
from metasrv.raft.core.patience import LeaderLostError
from metasrv.raft.replica import Replica
from metasrv.tracing.times import CURRENT


class ReadBarriers:
    """One node's barriers. The two callables raise NotDoneError when this node must not answer."""

    def __init__(
        self,
        replica: Replica,
        leaders: AskingLeader,
        refuse_if_stopping: Callable[[], None],
        refuse_if_damaged: Callable[[], None],
    ) -> None:
        self._replica = replica
        self._clock = replica.clock
        self._leaders = leaders
        self._refuse_if_stopping = refuse_if_stopping
        self._refuse_if_damaged = refuse_if_damaged

    async def barrier(self, timeout_ms: int) -> None:
        """As `Consensus.read_barrier`."""
        now = self._clock.monotonic()
        deadline = now + timeout_ms / 1000
        if (times := CURRENT.get()) is not None:
            times.asked_at = now
        while True:
            leader_id = self._replica.leader_id()
            if leader_id is None:
                leader_id = await self._leaders.known(deadline)
            now = self._clock.monotonic()
            left_ms = max(1, int((deadline - now) * 1000))
            try:
                if leader_id == self._replica.node_id:
                    if times is not None:
                        times.read(now)
                    index = await self.read_index(left_ms)
                else:
                    self._refuse_if_stopping()
                    index = await self._leaders.read_index(leader_id, left_ms)
                break
            except OverloadedError:
                raise
            except (LeaderLostError, TimeoutError):
                error = NotDoneError(f"node {leader_id}, the leader, did not answer in time")
                await self._leaders.pause(deadline, error)
            except (NotDoneError, UnknownOutcomeError) as error:  # a read may always be asked again
                await self._leaders.pause(deadline, NotDoneError(str(error)))
        await self._applied(index, deadline)

    async def local_barrier(self, timeout_ms: int) -> None:
        """As `Consensus.read_barrier_local`."""
        now = self._clock.monotonic()
        if (times := CURRENT.get()) is not None:
            times.asked_at = now
            times.read(now)
        index = await self.read_index(timeout_ms)
        await self._applied(index, now + timeout_ms / 1000)

    async def read_index(self, timeout_ms: int) -> int:
        """The index that a read must have applied, once a majority has confirmed this leader after the call.

        It covers the deletion of everything that has expired by the log time of the call, so that no clock of the node
        that answers has a say in it.
        """
        self._refuse_if_stopping()
        self._refuse_if_damaged()
        if not self._replica.leads():
            raise NotLeaderError(self._replica.leader_id())
        time_ms = self._replica.log_time.now_ms()
        replica = self._replica
        loop = replica.driver.loop
        give_up_at = (asked_at := loop.time()) + timeout_ms / 1000
        future: asyncio.Future[int] = loop.create_future()
        replica.reads.register(max(replica.engine.commit_index(), replica.engine.noop_index()), future)
        replica.driver.wake()
        # A timer of its own costs a tenth of `asyncio.timeout`, and nearly every read ends here.
        timer = loop.call_at(give_up_at, _give_up, future, timeout_ms)
        try:
            index = await future
        finally:
            timer.cancel()
        replica.resources.observer.read_confirmed(loop.time() - asked_at)
        if replica.applied_index() < index or replica.machine.expires_before(time_ms):
            try:
                async with asyncio.timeout_at(give_up_at):
                    await replica.applied.wait(index)
                    await replica.ticks.until_swept(time_ms)
            except TimeoutError:
                raise _not_confirmed(timeout_ms) from None
        return max(index, replica.applied_index())

    async def _applied(self, index: int, deadline: float) -> None:
        """Return when this node has applied the entry. Raises NotDoneError."""
        times = CURRENT.get()
        if self._replica.applied_index() < index:
            now = self._clock.monotonic()
            if times is not None:
                times.confirmed_at = now
            timeout_ms = max(1, int((deadline - now) * 1000))
            try:
                async with asyncio.timeout(timeout_ms / 1000):
                    await self._replica.applied.wait(index)
            except TimeoutError:
                raise NotDoneError(f"this node has not applied entry {index} within {timeout_ms} ms") from None
        if times is not None:
            times.answered_at = self._clock.monotonic()


def _give_up(future: asyncio.Future[int], timeout_ms: int) -> None:
    """The time of one read is over: end it, unless it was answered."""
    if not future.done():
        future.set_exception(_not_confirmed(timeout_ms))


def _not_confirmed(timeout_ms: int) -> NotDoneError:
    return NotDoneError(f"no majority confirmed this leader within {timeout_ms} ms")

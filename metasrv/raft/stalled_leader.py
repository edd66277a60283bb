"""Takes leadership from a node whose disk stalls, within a second or two, and keeps it from getting it back meanwhile.

A leader whose *log* stalls takes no step, so it sends no heartbeats: it answers what waits and is not in its log, and
asks the voter that is most up to date to campaign, so that the others need not wait for their election timeout. A leader
whose *state* stalls beats on, and nobody would ever replace it: it hands over, and when nobody takes over although
somebody could, it steps down. What is in its log already ends as unknown (`core/proposals.py`), unless the disk answers
in time.

On any node, reads that wait for its own state end: another node answers them. A node whose state stalls does not stand
for election; it votes, because its log is well. The only voter goes on leading: nobody could replace it. Runs on the
event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from metasrv.model.errors import NotDoneError
from metasrv.raft.applied_waiters import AppliedWaiters
from metasrv.raft.core.driver import Driver
from metasrv.raft.core.engine import LEADER, Engine
from metasrv.raft.core.messages import TimeoutNow
from metasrv.raft.core.proposals import Proposals
from metasrv.raft.core.reads import ReadIndex
from metasrv.raft.disk_stall import DiskStall, StalledPart
from metasrv.raft.log.store import LogStore
from metasrv.raft.transfer import LeadershipTransfer

logger = logging.getLogger(__name__)


class StalledLeader:
    """See the module. `look` is called at each tick of the driver's timer, also while a log write is in flight."""

    def __init__(
        self,
        *,
        disk: DiskStall,
        engine: Engine,
        store: LogStore,
        driver: Driver,
        proposals: Proposals,
        reads: ReadIndex,
        applied: AppliedWaiters,
        transfer: LeadershipTransfer,
        reachable: Callable[[int], bool],
        free: Callable[[], Awaitable[None]],
        hand_over_ms: int,
    ) -> None:
        self._disk = disk
        self._engine = engine
        self._store = store
        self._driver = driver
        self._proposals = proposals
        self._reads = reads
        self._applied = applied
        self._transfer = transfer
        self._reachable = reachable
        self._free = free
        self._hand_over_ms = hand_over_ms
        self._nominated_in: int | None = None
        """The term in which this leader asked another voter to campaign, during the present stall."""
        self._task: asyncio.Task[None] | None = None

    def look(self, now: float) -> None:
        """Notice a stall; end what waits for the disk, and as a leader hand over."""
        self._disk.look(now)
        sentence = self._disk.sentence()
        if sentence is None:
            self._nominated_in = None
            return
        if not self._others():
            return
        self._applied.fail(NotDoneError(sentence))  # another node answers these reads
        if self._engine.role() != LEADER:
            return
        self._reads.fail(None)
        self._proposals.not_leader(None)
        self._driver.answer()
        if self._disk.part is StalledPart.LOG:
            self._nominate()
        elif self._task is None or self._task.done():
            self._task = asyncio.create_task(self._hand_over(), name="hand-over-of-stalled-leader")

    def close(self) -> None:
        """Hand nothing over any more."""
        if self._task is not None:
            self._task.cancel()

    def _others(self) -> list[int]:
        return [i for i in self._engine.membership().voters if i != self._engine.own_id()]

    def _nominate(self) -> None:
        """Ask one voter to campaign, without the engine: it must not be touched while a log write is in flight.

        Safe as any campaign is: who lacks an entry that a majority has is not elected.
        """
        term, reachable = self._engine.term(), [i for i in self._others() if self._reachable(i)]
        if self._nominated_in == term or not reachable:
            return
        self._nominated_in = term
        target = max(reachable, key=self._engine.match_index)
        logger.warning("node %d is asked to lead, because this node's disk stalls", target)
        self._driver.say_at_once(target, TimeoutNow(term))

    async def _hand_over(self) -> None:
        """Transfer leadership; without success step down, provided that somebody has what it takes to be elected."""
        term = self._engine.term()
        if await self._transfer.hand_over(self._hand_over_ms):
            return
        await self._free()
        if self._engine.role() != LEADER or self._engine.term() != term or self._disk.part is None:
            return
        if any(self._engine.match_index(node_id) == self._store.last_index for node_id in self._others()):
            logger.warning("nobody took over leadership: this node steps down, because its disk stalls")
            self._engine.step_down()
            self._driver.wake()

"""Leadership transfer: pause writes, wait until the target has everything, tell it to campaign (Raft thesis 3.10).

pysyncobj refuses a target that lacks an entry, and its success only means that the request was sent; so writes pause
meanwhile, and callers that need certainty wait for the new leader. Runs on the leader's event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from metasrv.process.clock import Clock
from metasrv.raft.core.driver import Driver
from metasrv.raft.core.engine import LEADER, Engine
from metasrv.raft.log.store import LogStore

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.005


class LeadershipTransfer:
    """At most one transfer at a time."""

    def __init__(
        self,
        *,
        clock: Clock,
        engine: Engine,
        store: LogStore,
        driver: Driver,
        free: Callable[[], Awaitable[None]],
        timeout_seconds: float,
    ) -> None:
        self._clock = clock
        self._engine = engine
        self._store = store
        self._driver = driver
        self._free = free
        self._timeout = timeout_seconds
        self._task: asyncio.Task[bool] | None = None
        self.target: int | None = None
        """The node to which this one is handing leadership."""

    async def start(self, to_id: int) -> None:
        """Begin in the background; no effect while a transfer runs."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(to_id), name=f"transfer-to-{to_id}")

    async def hand_over(self, timeout_ms: int) -> bool:
        """Move leadership to the voter that is most up to date; True when this node no longer leads."""
        deadline = self._clock.monotonic() + timeout_ms / 1000
        while self._engine.role() == LEADER:
            voters = [i for i in self._engine.membership().voters if i != self._engine.own_id()]
            ready = [i for i in voters if self._engine.last_response(i) > self._clock.monotonic() - self._timeout]
            if not ready or self._clock.monotonic() >= deadline:
                return False
            await self._run(max(ready, key=self._engine.match_index))
        return True

    async def _run(self, to_id: int) -> bool:
        """True when leadership has left this node."""
        term = self._engine.term()
        deadline = self._clock.monotonic() + self._timeout
        self._driver.hold_proposals(True)
        self.target = to_id
        logger.info("leadership goes to node %d: new writes wait until it has everything", to_id)
        asked = False
        try:
            while self._clock.monotonic() < deadline:
                await self._free()
                if self._engine.role() != LEADER or self._engine.term() != term:
                    return True
                if not asked and self._engine.match_index(to_id) == self._store.last_index:
                    self._engine.ask_to_campaign(to_id)
                    asked = True
                self._driver.wake()
                await asyncio.sleep(_POLL_SECONDS)
            logger.warning("node %d did not take over leadership in %.1f s; this node goes on", to_id, self._timeout)
            return False
        finally:
            self.target = None
            self._driver.hold_proposals(False)

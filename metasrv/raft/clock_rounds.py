"""Rounds of questions: every two heartbeats a node asks each peer for its wall clock, one request at a time.

The questions are requests of their own and not part of raft messages, because an acknowledgement waits for a disk and
would measure that. A peer of a release that does not know the question refuses it, and stays unmeasured. Knows nothing
of what offsets are good for. Runs on the event loop, beside the driver.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable

from metasrv.model.errors import RequestError
from metasrv.process.clock import Clock
from metasrv.raft.core.clock_offsets import ClockOffsets

logger = logging.getLogger(__name__)


def round_seconds(heartbeat_ms: int) -> float:
    """Time between two questions to a peer."""
    return 2 * heartbeat_ms / 1000


class ClockRounds:
    """`ask(node_id, timeout_ms)` is the peer's wall clock; `after_round` is called when all have answered or not."""

    def __init__(
        self,
        *,
        clock: Clock,
        offsets: ClockOffsets,
        pause_seconds: float,
        peers: Callable[[], Iterable[int]],
        ask: Callable[[int, int], Awaitable[int]],
        after_round: Callable[[], Awaitable[None]],
    ) -> None:
        self._clock = clock
        self._offsets = offsets
        self._pause_seconds = pause_seconds
        self._peers = peers
        self._ask = ask
        self._after_round = after_round
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="clock-rounds")

    async def stop(self) -> None:
        """End the round that is under way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._pause_seconds)
            await self.round()

    async def round(self) -> None:
        """Ask every connected peer once."""
        await asyncio.gather(*(self._measure(node_id) for node_id in sorted(self._peers())))
        await self._after_round()

    async def _measure(self, node_id: int) -> None:
        asked_at = self._clock.monotonic()
        try:
            wall_ms = await self._ask(node_id, max(1, int(self._pause_seconds * 1000)))
        except RequestError as error:
            logger.debug("the clock of node %d is not measured: %s", node_id, error)
            return
        self._offsets.sampled(node_id, wall_ms, asked_at, self._clock.monotonic())

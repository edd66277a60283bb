"""Compaction that an operator asks for: a snapshot, a purge of the log up to it, free space of both files given back.

The parts do by themselves what the policy says and in small slices; this has them go further, once, one after the other,
and says how far it is. What other members still lack stays in a leader's log. Runs on the event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Literal

from metasrv.model.errors import StoppingError
from metasrv.model.types import CompactionStatus
from metasrv.raft.core.engine import LEADER
from metasrv.raft.log.store import LogWriter
from metasrv.raft.outside_calls import fatal_here
from metasrv.raft.replica import Replica

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.05
SECONDS_MAX = 3_600.0
"""A file that is written to without an end may never be done."""
STALLED_SECONDS_MAX = 120.0
"""For the snapshot, and for the purge to reach the disk."""


class CompactionFailedError(Exception):
    """It ends early; the text is for the status."""


class Tidying:
    """At most one compaction at a time. `sizes`: bytes of each kind of file now."""

    def __init__(self, replica: Replica, writer: LogWriter, sizes: Callable[[], Mapping[str, int]]) -> None:
        self._replica = replica
        self._writer = writer
        self._sizes = sizes
        self._task: asyncio.Task[None] | None = None
        self._last: CompactionStatus | None = None
        self._first_before = 0

    def status(self) -> CompactionStatus | None:
        """How far the last one is, or what it did; None when there was none."""
        last = self._last
        if last is None or last.step == "done":
            return last
        purged = self._replica.store.first_index - self._first_before
        return last._replace(entries_purged=purged)

    def start(self) -> None:
        """Begin one in the background; no effect while one runs."""
        if self._task is not None and not self._task.done():
            return
        before = self._sizes()
        self._first_before = self._replica.store.first_index
        self._last = CompactionStatus("snapshot", 0, before, before)
        self._task = asyncio.create_task(self._run(), name="compaction")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        error: str | None = None
        try:
            await self._write_snapshot()
            await self._purge()
            await self._give_back()
        except (CompactionFailedError, StoppingError) as failure:
            error = str(failure)
            logger.warning("compaction ends early: %s", error)
        status = self.status()
        if status is not None:
            self._last = status = status._replace(step="done", error=error, sizes_after=self._sizes())
            freed = sum(status.sizes_before.values()) - sum(status.sizes_after.values())
            logger.info("compaction is done: %d log entries are purged, %d bytes freed", status.entries_purged, freed)

    async def _write_snapshot(self) -> None:
        snapshots, index = self._replica.snapshots, self._replica.machine.last_applied.index
        if index < 2:
            raise CompactionFailedError("nothing has been applied yet")
        failures = snapshots.failures

        def written() -> bool:
            if snapshots.failures != failures:
                raise CompactionFailedError("the snapshot could not be written; the node's log says why")
            if snapshots.newest is not None and snapshots.newest.log_id.index >= index:
                return True
            with fatal_here(self._replica.driver.fail):
                snapshots.request(self._replica.machine.last_applied.index)  # another one may have been under way
            return False

        await self._until(written, SECONDS_MAX, "the snapshot is not written")

    async def _purge(self) -> None:
        self._say("log")
        replica, newest = self._replica, self._replica.snapshots.newest
        until = replica.machine.last_applied.index if newest is None else newest.log_id.index
        compaction = replica.compaction
        compaction.ask(min([until, *self._matched()]))
        replica.driver.wake()
        await self._until(compaction.is_over, STALLED_SECONDS_MAX, "the state is not synced")
        await self._until(lambda: not replica.store.purges_wait, STALLED_SECONDS_MAX, "the purge is not on the disk")

    def _matched(self) -> list[int]:
        """How far each member is that this leader reaches: it is not to need a snapshot for this."""
        engine = self._replica.engine
        if engine.role() != LEADER:
            return []
        return [engine.match_index(node_id) for node_id in self._replica.connected_members()]

    async def _give_back(self) -> None:
        self._say("space")
        replica, writer = self._replica, self._writer
        asked = asyncio.get_running_loop().create_future()

        def done(_result: None, error: BaseException | None) -> None:
            if not asked.done():
                asked.set_result(error)

        replica.resources.log_thread.submit(writer.give_back_all, on_done=done)
        await asked
        replica.state_space.ask()
        await self._until(lambda: not writer.gives_back, SECONDS_MAX, "the log's file is still given back")
        await self._until(replica.state_space.is_over, SECONDS_MAX, "the state's file is still given back")
        await self._until(lambda: not replica.state_log.is_moving, STALLED_SECONDS_MAX, "the state's log is not moved")

    def _say(self, step: Literal["log", "space"]) -> None:
        if self._last is not None:
            self._last = self._last._replace(step=step)

    async def _until(self, condition: Callable[[], bool], seconds_max: float, text: str) -> None:
        deadline = self._replica.clock.monotonic() + seconds_max
        while not condition():
            if self._replica.clock.monotonic() > deadline:
                raise CompactionFailedError(f"{text} after {seconds_max:.0f} s")
            self._replica.driver.wake()
            await asyncio.sleep(_POLL_SECONDS)

"""Looks through this node's own state file all the time, slowly, for what a disk has changed.

A round compares every record with its checksum, in slices of some milliseconds in a helper thread, and then the rows as a
whole with the digest that entries kept. It uses a tenth of one processor at most: a round of a million small records
takes some twenty seconds. What is found is looked at again before it counts. Runs on the node's event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

from metasrv.model.errors import DataDamagedError, StorageError
from metasrv.model.limits import STATE_LOG_SIZE_BYTES_KEPT
from metasrv.node.damage import CopyHealth
from metasrv.process.clock import Clock
from metasrv.state.scrubbing import check_slice, check_sums
from metasrv.state.state_file import file_sizes

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")

ROUND_PAUSE_SECONDS = 15.0
"""From the end of a round to the next one."""
SLICE_SECONDS = 0.01
REST_FACTOR = 9
"""How many times as long as a slice took nothing is done after it."""
_AGAIN_SECONDS = 0.2
_REST_SECONDS_MAX = 5.0
_LOOKS_AT_LOG_MAX = 25
"""A slice waits no longer than five seconds for the write-ahead log."""


class Scrubber:
    """See the module. `path` is the state file."""

    def __init__(
        self, path: str, health: CopyHealth, clock: Clock, round_pause_seconds: float = ROUND_PAUSE_SECONDS
    ) -> None:
        self._path = path
        self._health = health
        self._clock = clock
        self._round_pause_seconds = round_pause_seconds

    async def run(self) -> None:
        """Round after round, until cancelled."""
        while True:
            await asyncio.sleep(self._round_pause_seconds)
            await self.look_through()

    async def look_through(self) -> None:
        """One round, and what follows from it."""
        try:
            await self.round()
        except DataDamagedError as error:
            self._health.damaged(str(error))
        except StorageError as error:
            logger.warning("the state file could not be looked through: %s", error)

    async def round(self) -> None:
        """One look at everything. Raises DataDamagedError for damage that was found twice, or StorageError."""
        after: str | None = None
        while True:
            await self._until_log_is_short()
            done = await self._twice(check_slice, self._path, after, SLICE_SECONDS, self._clock)
            if done.last_key is None:
                break
            after = done.last_key
            await asyncio.sleep(min(_REST_SECONDS_MAX, REST_FACTOR * done.seconds))
        if await self._twice(check_sums, self._path) is None:
            logger.info("the rows of the state were not added up: the write-ahead log grew too long meanwhile")
        self._health.scrubbed(self._clock.monotonic())

    async def _until_log_is_short(self) -> None:
        """Wait while the state's write-ahead log has to begin anew: each slice is a reader that is in its way."""
        for _ in range(_LOOKS_AT_LOG_MAX):
            if file_sizes(self._path).log_bytes <= STATE_LOG_SIZE_BYTES_KEPT:
                return
            await asyncio.sleep(_AGAIN_SECONDS)

    async def _twice(self, look: Callable[[*Arguments], Result], *args: *Arguments) -> Result:
        """A second look at what the first one found damaged; by then a snapshot may have replaced it."""
        try:
            return await asyncio.to_thread(look, *args)
        except DataDamagedError as error:
            logger.warning("the state file seems to be damaged and is looked at again: %s", error)
        await asyncio.sleep(_AGAIN_SECONDS)
        return await asyncio.to_thread(look, *args)

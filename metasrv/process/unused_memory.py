"""Gives memory that large requests left unused back to the system, once it is quiet.

glibc keeps freed blocks for the next ones, in a heap where one small block in use keeps all that is below it. That is
right while large values are read (blocks that come anew from the system each time made such reads three times as long),
and a waste of hundreds of MiB afterwards. Giving it back walks the whole heap, so it is done only when much has come and
nothing comes any more, and in a helper thread. Knows nothing of what used the memory. Runs on the event loop.
"""

from __future__ import annotations

import asyncio
import logging
from time import perf_counter

from metasrv.process.operating_system import resident_size_bytes, return_unused_memory

logger = logging.getLogger(__name__)

_MIB = 1024 * 1024
LOOK_SECONDS = 2.0
GROWN_SIZE_BYTES = 64 * _MIB
"""Give back when the process is larger by this than at its smallest, and has changed by as many bytes since then."""
QUIET_SIZE_BYTES = 1 * _MIB
"""It is quiet when the size has changed by less since the last look."""
QUIET_LOOKS = 3
QUIET_LOOKS_MAX = 1_536
"""After an attempt twice as many looks have to be quiet, up to some fifty minutes."""


class UnusedMemory:
    """Decides from the resident size, in bytes, at regular looks whether to give back now."""

    def __init__(self) -> None:
        self._smallest_bytes: int | None = None
        self._seen_bytes = 0
        self._changed_bytes = 0
        """Growth and decline since memory was last given back, leaving out what is small."""
        self._quiet_looks = 0
        self._looks_needed = QUIET_LOOKS

    def is_due(self, resident_bytes: int) -> bool:
        """One look; True when memory should be given back, after which `given_back` is called."""
        smallest = self._smallest_bytes
        if smallest is None:
            self._smallest_bytes = self._seen_bytes = resident_bytes
            return False
        change = abs(resident_bytes - self._seen_bytes)
        self._seen_bytes = resident_bytes
        self._smallest_bytes = min(smallest, resident_bytes)
        if change >= QUIET_SIZE_BYTES:
            self._changed_bytes += change
            self._quiet_looks = 0
            if self._changed_bytes >= GROWN_SIZE_BYTES:
                self._looks_needed = QUIET_LOOKS
            return False
        self._quiet_looks += 1
        return (
            self._quiet_looks >= self._looks_needed
            and (self._changed_bytes >= GROWN_SIZE_BYTES or self._looks_needed > QUIET_LOOKS)
            and resident_bytes >= self._smallest_bytes + GROWN_SIZE_BYTES
        )

    def given_back(self, resident_bytes: int) -> None:
        """What is left is in use, or freed later, which the size does not show: look again, ever more seldom."""
        self._seen_bytes = resident_bytes
        self._changed_bytes = self._quiet_looks = 0
        self._looks_needed = min(2 * self._looks_needed, QUIET_LOOKS_MAX)


async def give_back_unused_memory() -> None:
    """Look for ever, until cancelled; returns at once where the system does not tell its size."""
    memory = UnusedMemory()
    while (before := resident_size_bytes()) is not None:
        if memory.is_due(before):
            started = perf_counter()
            given = await asyncio.to_thread(return_unused_memory)
            after = resident_size_bytes()
            if not given or after is None:
                return
            memory.given_back(after)
            logger.info(
                "%d MiB of unused memory are given back in %.0f ms; %d MiB are in use",
                max(0, before - after) // _MIB,
                (perf_counter() - started) * 1000,
                after // _MIB,
            )
        await asyncio.sleep(LOOK_SECONDS)

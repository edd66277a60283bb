"""Whether the data directory takes a write, and how much space it has left.

Looks in a helper thread, so that a disk that hangs holds nobody up for long. Must not know who asks. Runs on the node's
event loop.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable
from typing import NamedTuple

from metasrv.model.sizes import size_text

DISK_FREE_BYTES_MIN = 64 * 1024 * 1024
PROBE_SIZE_BYTES = 4096
PROBE_AGE_SECONDS_MAX = 5.0
PROBE_TIMEOUT_SECONDS = 2.0


class DirectoryReport(NamedTuple):
    """What the last look at the data directory found."""

    passed: bool
    reason: str
    free_bytes: int | None
    at: float
    """Monotonic seconds."""


class DirectoryProbe:
    """Writes a few bytes to the data directory and remembers the outcome for `age_seconds_max`.

    The file has no name, so nothing stays behind. A disk that hangs delays one answer by `PROBE_TIMEOUT_SECONDS`;
    later answers come at once until the disk responds.
    """

    def __init__(
        self, directory: str, monotonic: Callable[[], float], age_seconds_max: float = PROBE_AGE_SECONDS_MAX
    ) -> None:
        self._directory = directory
        self._age_seconds_max = age_seconds_max
        self._monotonic = monotonic
        self._report: DirectoryReport | None = None
        self._running: asyncio.Task[DirectoryReport] | None = None

    async def report(self) -> DirectoryReport:
        """The last report, renewed when it is older than `age_seconds_max`."""
        known = self._report
        if known is not None and self._monotonic() - known.at <= self._age_seconds_max:
            return known
        running = self._running
        if running is None or running.done():
            running = self._running = asyncio.create_task(self._look(), name="data-directory-probe")
        elif known is not None and not known.passed:
            return known
        try:
            self._report = await asyncio.wait_for(asyncio.shield(running), PROBE_TIMEOUT_SECONDS)
        except TimeoutError:
            reason = f"a write to {self._directory} has not finished within {PROBE_TIMEOUT_SECONDS:.0f} s"
            self._report = DirectoryReport(False, reason, None, self._monotonic())
        return self._report

    async def _look(self) -> DirectoryReport:
        passed, reason, free_bytes = await asyncio.to_thread(probe_directory, self._directory)
        return DirectoryReport(passed, reason, free_bytes, self._monotonic())


def probe_directory(directory: str) -> tuple[bool, str, int | None]:
    """Whether `directory` takes a write, why, and its free bytes. Blocks."""
    free_bytes = None
    try:
        space = os.statvfs(directory)
        free_bytes = space.f_bavail * space.f_frsize  # known of a full disk as well
        with tempfile.TemporaryFile(dir=directory) as file:
            file.write(b"\0" * PROBE_SIZE_BYTES)
            file.flush()
    except OSError as error:
        return False, f"the data directory {directory} cannot be written: {error.strerror or error}", free_bytes
    if free_bytes < DISK_FREE_BYTES_MIN:
        least = size_text(DISK_FREE_BYTES_MIN)
        return False, f"the data directory {directory} has {size_text(free_bytes)} left, the limit is {least}", free_bytes
    return True, f"the data directory can be written and has {size_text(free_bytes)} left", free_bytes

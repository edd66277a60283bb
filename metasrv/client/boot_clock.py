"""The clock that a session measures its life with. Pure; runs anywhere."""

from __future__ import annotations

import time


def boot_seconds() -> float:
    """Seconds that nobody sets, which go on while the machine sleeps: a server's clock goes on as well.

    `time.monotonic` stands still during a suspension on Linux. Where the system offers no such clock, it has to do.
    """
    return time.clock_gettime(_CLOCK)


_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""Linux has CLOCK_BOOTTIME; on macOS CLOCK_MONOTONIC goes on during sleep."""

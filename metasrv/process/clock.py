"""Time as a parameter: the two clocks a node reads, behind one protocol.

Code under simulation reads a clock it was given, or the event loop's, and never `time` itself: the simulator replaces
both with virtual ones. `apply` reads no clock at all (invariant 2). Callable from every thread.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """What a node knows of time."""

    def monotonic(self) -> float:
        """Seconds since some fixed point; never goes back. For timers and deadlines."""
        ...

    def wall_ms(self) -> int:
        """Milliseconds since the Unix epoch; may jump. For stamps on commands and for logs."""
        ...


class SystemClock:
    """The machine's clocks."""

    # The function itself: a request asks some ten times, and a frame of Python costs more than the answer.
    monotonic = staticmethod(time.monotonic)

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000

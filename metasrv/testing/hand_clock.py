"""Time that stands still until a test moves it, for everything that takes a `Clock`. Runs on any thread."""

from __future__ import annotations


class HandClock:
    """Implements `Clock`. `now` is the monotonic time in seconds and may be set; the wall clock goes with it.

    `epoch_ms` is the wall clock when `now` is zero. Each look at the monotonic clock moves it by `step_seconds`, for
    loops that end when their time is over.
    """

    def __init__(self, now: float = 1000.0, *, epoch_ms: int = 0, step_seconds: float = 0.0) -> None:
        self.now = now
        self._epoch_ms = epoch_ms
        self._step_seconds = step_seconds

    def advance(self, seconds: float) -> None:
        self.now += seconds

    def monotonic(self) -> float:
        self.now += self._step_seconds
        return self.now

    def wall_ms(self) -> int:
        return self._epoch_ms + round(self.now * 1000)

"""The last fifteen minutes of this node as series of numbers, one point every two seconds, in bounded memory.

A number that is not known is None, never 0. What was not sampled, as while the process was paused, is None as well, so
that each point keeps its place in time. Pure; knows nothing of what the series mean.
"""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

STEP_MS = 2_000
POINTS_MAX = 15 * 60 * 1000 // STEP_MS

SERIES = (
    "writes_per_second",
    "reads_per_second",
    "write_p50_ms",
    "write_p99_ms",
    "read_p99_ms",
    "sync_ms",
    "batch_commands",
    "loop_lag_ms",
    "memory_bytes",
    "database_bytes",
    "log_bytes",
    "watchers",
    "connections",
)

Number = float | int | None


class Point(NamedTuple):
    """One value of each series."""

    time_ms: int
    """Wall clock."""
    values: dict[str, Number]


class History:
    """A ring for each series; all have the same length."""

    def __init__(self) -> None:
        self._series: dict[str, deque[Number]] = {name: deque(maxlen=POINTS_MAX) for name in SERIES}
        self._newest_ms: int | None = None
        self._added_at: float | None = None

    def add(self, point: Point, now: float) -> None:
        """Append a point that was taken at `now`, in monotonic seconds; steps without one become unknown."""
        if self._added_at is not None:
            steps = round((now - self._added_at) * 1000 / STEP_MS)
            for _ in range(min(steps - 1, POINTS_MAX)):
                for series in self._series.values():
                    series.append(None)
        for name, series in self._series.items():
            series.append(point.values.get(name))
        self._newest_ms, self._added_at = point.time_ms, now

    def newest(self, name: str) -> Number:
        """The last value of a series."""
        series = self._series[name]
        return series[-1] if series else None

    def view(self, now_ms: int) -> dict[str, Any]:
        """The shape of `GET /v1/console/history`; without points it begins at `now_ms`."""
        count = len(self._series[SERIES[0]])
        start_ms = now_ms if self._newest_ms is None else self._newest_ms - (count - 1) * STEP_MS
        return {
            "step_ms": STEP_MS,
            "start_ms": start_ms,
            "series": {name: list(series) for name, series in self._series.items()},
        }

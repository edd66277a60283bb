"""Quantiles of the most recent observations, in bounded memory.

A ring of the last N values; sorting happens when somebody asks, never while counting. Deterministic, so the
quantiles are always in order (p50 <= p90 <= p99). Knows nothing of metric names or of Prometheus. Runs on the
node's event loop, or on any single thread.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from metasrv.model.limits import METRICS_WINDOW_OBSERVATIONS_MAX


class SlidingWindow:
    """The last `capacity` observations."""

    __slots__ = ("_capacity", "_next", "_values")

    def __init__(self, capacity: int = METRICS_WINDOW_OBSERVATIONS_MAX) -> None:
        if capacity < 1:
            raise ValueError(f"a window needs room for one observation, not {capacity}")
        self._capacity = capacity
        self._values: list[float] = []
        self._next = 0

    def __len__(self) -> int:
        return len(self._values)

    def observe(self, value: float) -> None:
        """Add a value; the oldest one makes room for it."""
        values = self._values
        if len(values) < self._capacity:
            values.append(value)
            return
        position = self._next
        values[position] = value
        position += 1
        self._next = 0 if position == self._capacity else position

    def quantiles(self, wanted: Sequence[float]) -> list[float]:
        """The nearest-rank quantiles, one for each of `wanted` (0 to 1); NaN each while nothing was observed."""
        ordered = sorted(self._values)
        if not ordered:
            return [math.nan] * len(wanted)
        last = len(ordered) - 1
        return [ordered[min(last, max(0, math.ceil(quantile * len(ordered)) - 1))] for quantile in wanted]

"""Percentiles of what writes or syncs took. Pure functions."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple


class Latencies(NamedTuple):
    """What the writes or syncs of one phase took, in milliseconds."""

    measured: int
    p50: float
    p99: float
    p999: float
    longest: float

    def __str__(self) -> str:
        return (
            f"p50 {self.p50:6.2f}  p99 {self.p99:6.2f}  p99.9 {self.p999:6.2f}  max {self.longest:6.1f} ms"
            f" of {self.measured}"
        )


def latencies(took_seconds: Sequence[float]) -> Latencies:
    """At least two durations."""
    cuts = [seconds * 1000 for seconds in statistics.quantiles(took_seconds, n=1000, method="inclusive")]
    return Latencies(len(took_seconds), cuts[499], cuts[989], cuts[998], max(took_seconds) * 1000)

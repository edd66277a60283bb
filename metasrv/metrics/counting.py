"""Cheap counters for the hot path: a histogram, and a counter with a bounded number of labels.

Plain integers and one bisection per observation, because a Prometheus client object costs several microseconds and
takes a lock. Knows nothing of metric names or of the text format. Runs on the node's event loop.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Hashable, Sequence
from itertools import accumulate
from typing import Generic, TypeVar

from metasrv.model.limits import METRICS_LABELS_MAX

Label = TypeVar("Label", bound=Hashable)


class Histogram:
    """Counts by upper bound; `bounds` ascend and +Inf is implied. Units are the caller's."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        if list(bounds) != sorted(set(bounds)):
            raise ValueError("the bounds of a histogram must ascend")
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    @property
    def count(self) -> int:
        return sum(self.counts)

    def cumulative(self) -> list[int]:
        """How many observations were at most each bound; the last one, +Inf, is all of them."""
        return list(accumulate(self.counts))

    def plus(self, *others: Histogram) -> Histogram:
        """A new histogram over the same bounds that counts this one and `others` together."""
        total = Histogram(self.bounds)
        for part in (self, *others):
            if part.bounds != self.bounds:
                raise ValueError("histograms of different bounds cannot be added")
            total.counts = [mine + theirs for mine, theirs in zip(total.counts, part.counts, strict=True)]
            total.sum += part.sum
        return total


class BoundedCounter(Generic[Label]):
    """A number for each label; past the limit the label added first is folded into `other`."""

    __slots__ = ("_limit", "_other", "values")

    def __init__(self, other: Label, limit: int = METRICS_LABELS_MAX) -> None:
        self._other = other
        self._limit = limit
        self.values: dict[Label, int] = {}

    def add(self, label: Label, change: int) -> None:
        values = self.values
        current = values.get(label)
        if current is None:
            self._make_room()
            current = values.get(label, 0)
        values[label] = current + change

    def _make_room(self) -> None:
        values = self.values
        if len(values) < self._limit:
            return
        oldest = next(label for label in values if label != self._other)
        folded = values.pop(oldest)
        values[self._other] = values.get(self._other, 0) + folded


class HistogramByLabel(Generic[Label]):
    """A histogram for each label; past the limit observations go to `other`."""

    __slots__ = ("_bounds", "_limit", "_other", "histograms")

    def __init__(self, bounds: Sequence[float], other: Label, limit: int = METRICS_LABELS_MAX) -> None:
        self._bounds = tuple(bounds)
        self._other = other
        self._limit = limit
        self.histograms: dict[Label, Histogram] = {}

    def observe(self, label: Label, value: float) -> None:
        histograms = self.histograms
        if label not in histograms and len(histograms) >= self._limit:
            label = self._other
        histogram = histograms.get(label)
        if histogram is None:
            histogram = histograms[label] = Histogram(self._bounds)
        histogram.observe(value)

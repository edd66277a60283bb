"""What gateways count, added to the node's own counters, so that its metrics page shows the node as one.

A gateway sends what has changed since the last time. What goes up and down (connections, calls in flight) is taken back
when the gateway ends. Runs on the event loops of both ends; must not know the link.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, MutableMapping
from typing import Any, TypeVar

from metasrv.gateway.messages import checked
from metasrv.metrics.counting import BoundedCounter, Histogram
from metasrv.metrics.quantiles import SlidingWindow
from metasrv.metrics.registry import MetricsRegistry
from metasrv.model.limits import METRICS_WINDOW_OBSERVATIONS_MAX
from metasrv.model.wire import integer, string

K = TypeVar("K")

_COUNTERS = (
    "sent_bytes",
    "received_bytes",
    "succeeded",
    "failed",
    "reads_failed",
    "connections_refused",
    "watch_initialization",
    "watch_change",
    "in_flight",
    "connections",
    "delay_seconds_sum",
)
_GAUGES = ("in_flight", "connections")


class RecentDelays(SlidingWindow):
    """A gateway's window: it keeps what the node has not been told of."""

    __slots__ = ("_recent",)

    def __init__(self) -> None:
        super().__init__()
        self._recent: deque[float] = deque(maxlen=METRICS_WINDOW_OBSERVATIONS_MAX)

    def observe(self, value: float) -> None:
        self._recent.append(value)

    def taken(self) -> tuple[float, ...]:
        """What was observed since the last call, the newest of it."""
        recent = tuple(self._recent)
        self._recent.clear()
        return recent


class Counted:
    """A gateway's end."""

    def __init__(self, metrics: MetricsRegistry) -> None:
        self._metrics = metrics
        self._delays = metrics.client.delay_window = RecentDelays()
        self._told = _numbers_of(metrics)
        self._labelled_told: dict[tuple[str, ...], int] = {}

    def changes(self) -> tuple[Any, ...] | None:
        """What has changed since the last call; None when nothing has."""
        now = _numbers_of(self._metrics)
        numbers = [
            (place, value - told)
            for place, (value, told) in enumerate(zip(now, self._told, strict=True))
            if value != told
        ]
        labelled = dict(_labelled_of(self._metrics))
        told = self._labelled_told
        labels = [
            # A label that is gone was folded into another one, which has its number now.
            (*label, labelled.get(label, 0) - told.get(label, 0))
            for label in {**told, **labelled}
            if labelled.get(label, 0) != told.get(label, 0)
        ]
        delays = self._delays.taken()
        if not numbers and not labels and not delays:
            return None
        self._told, self._labelled_told = now, labelled
        return numbers, labels, delays


class Counts:
    """The node's end, for one gateway."""

    def __init__(self, metrics: MetricsRegistry) -> None:
        self._metrics = metrics
        self._gauges = dict.fromkeys(_GAUGES, 0)
        self._handshakes = 0

    def add(self, tree: Any) -> None:
        """Add what a gateway has counted; raises CodecError."""
        checked(lambda: self._add(*tree))

    def end(self) -> None:
        """The gateway is gone, and what it had open with it."""
        client = self._metrics.client
        for name in _GAUGES:
            setattr(client, name, getattr(client, name) - self._gauges[name])
        self._metrics.tls_handshakes("grpc", -self._handshakes)
        self._gauges, self._handshakes = dict.fromkeys(_GAUGES, 0), 0

    def _add(self, numbers: Any, labels: Any, delays: Any) -> None:
        now = _numbers_of(self._metrics)
        for place, change in numbers:
            now[integer(place)] += change
            if place < len(_COUNTERS) and _COUNTERS[place] in _GAUGES:
                self._gauges[_COUNTERS[place]] += integer(change)
        _put_numbers(self._metrics, now)
        security = self._metrics.security
        for kind, first, second, change in labels:
            if kind == "handshakes":
                self._handshakes += integer(change)
                self._metrics.tls_handshakes("grpc", change)
            elif kind == "handshakes_failed":
                security.handshakes_failed.add((string(first), string(second)), integer(change))
            elif kind == "method_failures":
                self._metrics.client.method_failures.add((string(first), string(second)), integer(change))
            elif kind == "descriptors_short":
                security.descriptors_short.add(string(first), integer(change))
        for delay in delays:
            self._metrics.client.delay_window.observe(float(delay))


def _maps_of(metrics: MetricsRegistry) -> Iterator[MutableMapping[Any, Any]]:
    yield metrics.client.failures
    yield metrics.client.stream_items
    yield metrics.work.slow_steps
    yield metrics.work.slow_step_seconds


def _histograms_of(metrics: MetricsRegistry) -> Iterator[Histogram]:
    yield from metrics.client.delays_ms.values()
    yield from metrics.work.step_seconds.values()


def _numbers_of(metrics: MetricsRegistry) -> list[Any]:
    """Every number that both ends have at the same place."""
    client = metrics.client
    numbers: list[Any] = [getattr(client, name) for name in _COUNTERS]
    for histogram in _histograms_of(metrics):
        numbers.append(histogram.sum)
        numbers.extend(histogram.counts)
    for found in _maps_of(metrics):
        numbers.extend(found.values())
    return numbers


def _put_numbers(metrics: MetricsRegistry, numbers: list[Any]) -> None:
    values = iter(numbers)
    client = metrics.client
    for name in _COUNTERS:
        setattr(client, name, next(values))
    for histogram in _histograms_of(metrics):
        histogram.sum = next(values)
        histogram.counts = [next(values) for _ in histogram.counts]
    for found in _maps_of(metrics):
        for key in found:
            found[key] = next(values)


def _labelled_of(metrics: MetricsRegistry) -> Iterator[tuple[tuple[str, ...], int]]:
    security = metrics.security
    yield ("handshakes", "grpc", ""), security.handshakes.get("grpc", 0)
    pairs: tuple[tuple[str, BoundedCounter[tuple[str, str]]], ...] = (
        ("handshakes_failed", security.handshakes_failed),
        ("method_failures", metrics.client.method_failures),
    )
    for kind, counter in pairs:
        for (first, second), count in counter.values.items():
            yield (kind, first, second), count
    for port, count in security.descriptors_short.values.items():
        yield ("descriptors_short", port, ""), count

"""Takes one point of the history from what this node counts anyway: differences of counters between two looks.

Counting costs nothing more than before; a look costs some tens of microseconds, every two seconds. Must not know who
shows the numbers. Runs on the event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate

from metasrv.console.history import Number, Point
from metasrv.metrics.counting import Histogram
from metasrv.model.types import RaftStatus
from metasrv.node.context import NodeContext
from metasrv.process.operating_system import resident_size_bytes


class HistogramDelta:
    """What a histogram has gained since the last look."""

    def __init__(self, read: Callable[[], Histogram]) -> None:
        """`read` tells what has been counted by now."""
        self._read = read
        histogram = read()
        self._bounds = histogram.bounds
        self._counts = list(histogram.counts)
        self._sum = histogram.sum
        self.counts = [0] * len(self._counts)
        self.count = 0
        self.sum = 0.0

    def look(self) -> None:
        """Renew the three fields."""
        histogram = self._read()
        self.counts = [new - old for new, old in zip(histogram.counts, self._counts, strict=True)]
        self.count = sum(self.counts)
        self.sum = histogram.sum - self._sum
        self._counts, self._sum = list(histogram.counts), histogram.sum

    def mean(self) -> float | None:
        """None while nothing was observed."""
        return self.sum / self.count if self.count else None

    def quantile(self, fraction: float) -> float | None:
        """Interpolated within a bucket; None while nothing was observed."""
        return quantile(self._bounds, self.counts, fraction)


def quantile(bounds: Sequence[float], counts: Sequence[int], fraction: float) -> float | None:
    """The value below which this fraction of the observations is; the last bound when it is larger than that."""
    total = sum(counts)
    if not total:
        return None
    wanted = fraction * total
    for number, reached in enumerate(accumulate(counts)):
        if reached >= wanted:
            if number == len(bounds):
                return bounds[-1]
            lower = bounds[number - 1] if number else 0.0
            within = (wanted - (reached - counts[number])) / counts[number]
            return lower + (bounds[number] - lower) * within
    return bounds[-1]


class PeerRates:
    """Bytes a second to and from each peer, between two looks."""

    def __init__(self, context: NodeContext) -> None:
        self._peers = context.metrics.peers
        self._sent: dict[str, int] = {}
        self._received: dict[str, int] = {}
        self._seconds = 0.0
        self._before: tuple[dict[str, int], dict[str, int]] = ({}, {})

    def look(self, seconds: float) -> None:
        """`seconds` have passed since the last look."""
        self._before = (self._sent, self._received)
        self._sent, self._received = dict(self._peers.sent_bytes.values), dict(self._peers.received_bytes.values)
        self._seconds = seconds

    def sent(self, node_id: int) -> float | None:
        """None before there were two looks, and for a peer that was never sent anything."""
        return self._rate(self._sent, self._before[0], str(node_id))

    def received(self, address: str) -> float | None:
        return self._rate(self._received, self._before[1], address)

    def _rate(self, now: dict[str, int], before: dict[str, int], label: str) -> float | None:
        if label not in now or label not in before or self._seconds <= 0:
            return None
        return round(max(0, now[label] - before[label]) / self._seconds, 1)


class Sampler:
    """Remembers the counters of the last look."""

    def __init__(self, context: NodeContext) -> None:
        self._context = context
        client, work = context.metrics.client, context.metrics.work
        self._writes = HistogramDelta(lambda: client.delay_ms("write"))
        self._reads = HistogramDelta(lambda: client.delay_ms("read"))
        self._syncs = HistogramDelta(lambda: work.log_sync_seconds)
        self._applies = HistogramDelta(lambda: work.apply_seconds)
        self._commands = work.applied_commands
        self._looked_at: float | None = None
        self.rates = PeerRates(context)

    def take(self, status: RaftStatus) -> Point:
        """The point of this moment; the first one has no rates."""
        context, now = self._context, self._context.clock.monotonic()
        seconds = None if self._looked_at is None else max(now - self._looked_at, 0.001)
        self._looked_at = now
        for delta in (self._writes, self._reads, self._syncs, self._applies):
            delta.look()
        self.rates.look(seconds or 0.0)
        sync_seconds = context.log_sync_seconds = self._syncs.mean()
        applied = context.metrics.work.applied_commands
        commands, self._commands = applied - self._commands, applied
        lag_ms, context.loop_lag_peak_ms = context.loop_lag_peak_ms, 0.0
        values: dict[str, Number] = {
            "writes_per_second": None if seconds is None else self._writes.count / seconds,
            "reads_per_second": None if seconds is None else self._reads.count / seconds,
            "write_p50_ms": self._writes.quantile(0.5),
            "write_p99_ms": self._writes.quantile(0.99),
            "read_p99_ms": self._reads.quantile(0.99),
            "sync_ms": None if sync_seconds is None else sync_seconds * 1000,
            "batch_commands": commands / self._applies.count if self._applies.count else None,
            "loop_lag_ms": lag_ms,
            "memory_bytes": resident_size_bytes(),
            "database_bytes": status.state_size_bytes,
            "log_bytes": status.raft_log.wal_total_size,
            "watchers": context.watchers,
            "connections": context.metrics.client.connections,
        }
        rounded = {name: round(value, 3) if isinstance(value, float) else value for name, value in values.items()}
        return Point(context.clock.wall_ms(), rounded)

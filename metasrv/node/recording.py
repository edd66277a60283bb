"""The node's metrics, with events for what happens seldom and is worth telling: snapshots, reloads, copies that differ.

Counts exactly as `MetricsRegistry`. What happens for each request or entry only counts; `console/folding.py` looks at
the counters. Runs on the event loop.
"""

from __future__ import annotations

from metasrv.metrics.registry import MetricsRegistry
from metasrv.model.events import EventKind, Severity
from metasrv.process.event_ring import EventRing


class RecordingMetrics(MetricsRegistry):
    """Set `events` before the node starts; until then nothing is told."""

    events: EventRing | None = None

    def _tell(self, kind: EventKind, severity: Severity, text: str) -> None:
        if self.events is not None:
            self.events.record(kind, severity, text)

    def snapshot_written(self, entries: int) -> None:
        super().snapshot_written(entries)
        self._tell(EventKind.SNAPSHOT, Severity.INFO, f"a snapshot file with {entries:,} entries was written")

    def snapshot_sent(self, to_id: int, seconds: float, success: bool) -> None:
        super().snapshot_sent(to_id, seconds, success)
        if success:
            text, severity = f"a snapshot was sent to node {to_id} in {seconds:.1f} s", Severity.INFO
        else:
            text, severity = f"sending a snapshot to node {to_id} failed after {seconds:.1f} s", Severity.WARNING
        self._tell(EventKind.SNAPSHOT, severity, text)

    def snapshot_received(self, from_id: int, seconds: float, success: bool) -> None:
        super().snapshot_received(from_id, seconds, success)
        if success:
            text, severity = f"a snapshot from node {from_id} arrived in {seconds:.1f} s", Severity.INFO
        else:
            text = f"the snapshot from node {from_id} was given up after {seconds:.1f} s"
            severity = Severity.WARNING
        self._tell(EventKind.SNAPSHOT, severity, text)

    def reloaded(self, name: str, succeeded: bool) -> None:
        before = self.security.reload_failed.get(name)
        super().reloaded(name, succeeded)
        if succeeded:
            self._tell(EventKind.CONFIGURATION, Severity.INFO, f"{name}: loaded anew")
        elif not before:
            text = f"{name}: what the files hold now cannot be used; what they held before stays in force"
            self._tell(EventKind.CONFIGURATION, Severity.WARNING, text)

    def copies(self, damaged: bool, differing: frozenset[int], scrubs: int) -> None:
        known, damaged_before = self.work.copies_differing, self.work.copy_damaged
        super().copies(damaged, differing, scrubs)
        if damaged != damaged_before:
            text = (
                "this node's copy of the state is damaged" if damaged else "this node's copy of the state is good again"
            )
            self._tell(EventKind.COPY, Severity.CRITICAL if damaged else Severity.INFO, text)
        for node_id in sorted(differing - known):
            text = f"the copy of node {node_id} is damaged, or not the same as this node's"
            self._tell(EventKind.COPY, Severity.CRITICAL, text)
        for node_id in sorted(known - differing):
            self._tell(EventKind.COPY, Severity.INFO, f"the copy of node {node_id} is the same as this node's again")

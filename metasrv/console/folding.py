"""Turns counters that grow with many small things into single events with a count: slow steps, refused callers.

Also tells when the clock goes wrong and when the disk fills. Looks at the counters every two seconds, so nothing is
called where these things happen. Runs on the event loop.
"""

from __future__ import annotations

from metasrv.model.events import EventKind, Severity
from metasrv.model.loop_work import LoopWork
from metasrv.model.types import RaftStatus
from metasrv.node.context import NodeContext
from metasrv.node.directory_probe import DirectoryReport
from metasrv.node.loop_stalls import STALL_SECONDS_MIN

FOLD_SECONDS = 10.0
"""Refusals within this time are one event."""
SLOW_FOLD_SECONDS = 60.0
"""Slow steps within this time are one event, so that a busy machine does not push everything else out of the ring."""
SLOW_SECONDS_MIN = 2.0
"""Slow steps that together took less within that time are not worth an event."""
LONG_STEP_SECONDS = 0.25
"""Steps that took so long, in the mean of those between two looks, are told at once."""
STANDSTILL_MS = 1_000.0
"""A loop that was late by more stood still."""


class Folding:
    """Remembers the counters of the last look."""

    def __init__(self, context: NodeContext) -> None:
        self._context = context
        work = context.metrics.work
        self._steps, self._step_seconds = dict(work.slow_steps), dict(work.slow_step_seconds)
        self._slow: dict[LoopWork, tuple[int, float]] = {}
        """Slow steps since they were told last: how many, and their seconds together."""
        self._slow_told_at = context.clock.monotonic()
        self._refusals = self._count_refusals()
        self._told_at = context.clock.monotonic()
        self._clock_is_off = False
        self._directory_passes = True

    def look(self, status: RaftStatus, loop_lag_ms: float, directory: DirectoryReport | None) -> None:
        """Tell what is new; `loop_lag_ms` is the largest since the last look."""
        self._look_at_steps(loop_lag_ms)
        self._look_at_refusals()
        self._look_at_clock(status)
        if directory is not None and directory.passed != self._directory_passes:
            self._directory_passes = directory.passed
            severity = Severity.INFO if directory.passed else Severity.CRITICAL
            self._context.events.tell(EventKind.DISK, severity, directory.reason, status.term)

    def _look_at_steps(self, loop_lag_ms: float) -> None:
        work, events = self._context.metrics.work, self._context.events
        if loop_lag_ms >= STANDSTILL_MS:
            text = f"this process stood still for {loop_lag_ms:,.0f} ms"
            events.record(EventKind.SLOW_STEP, Severity.WARNING, text)
        for kind, count in work.slow_steps.items():
            new, seconds = count - self._steps[kind], work.slow_step_seconds[kind] - self._step_seconds[kind]
            if new and seconds / new >= LONG_STEP_SECONDS:
                text = f"{kind} held the event loop {_times(new)}, {seconds * 1000:,.0f} ms together"
                # A loop that stood still is logged with its work as it happens (`node/loop_stalls.py`).
                tell = events.record if loop_lag_ms >= STALL_SECONDS_MIN * 1000 else events.tell
                tell(EventKind.SLOW_STEP, Severity.WARNING, text)
            elif new:
                known, known_seconds = self._slow.get(kind, (0, 0.0))
                self._slow[kind] = (known + new, known_seconds + seconds)
        self._steps, self._step_seconds = dict(work.slow_steps), dict(work.slow_step_seconds)
        self._tell_slow_steps()

    def _tell_slow_steps(self) -> None:
        now = self._context.clock.monotonic()
        passed = now - self._slow_told_at
        if passed < SLOW_FOLD_SECONDS:
            return
        slow, self._slow, self._slow_told_at = self._slow, {}, now
        together = sum(seconds for _, seconds in slow.values())
        if together >= SLOW_SECONDS_MIN:
            count, most = sum(count for count, _ in slow.values()), max(slow, key=lambda kind: slow[kind][1])
            text = f"the event loop was held {_times(count)} within {passed:.0f} s, {together:.1f} s together"
            text += f", mostly by {most}"
            self._context.events.tell(EventKind.SLOW_STEP, Severity.WARNING, text)

    def _look_at_refusals(self) -> None:
        now = self._context.clock.monotonic()
        if now - self._told_at < FOLD_SECONDS:
            return
        counts = self._count_refusals()
        for what, count in counts.items():
            new = count - self._refusals.get(what, 0)
            if new > 0:
                text = f"{what}, {_times(new)} within {now - self._told_at:.0f} s"
                self._context.events.tell(EventKind.REFUSED_CLIENT, Severity.WARNING, text)
        self._refusals, self._told_at = counts, now

    def _count_refusals(self) -> dict[str, int]:
        metrics = self._context.metrics
        counts = {"a client was refused, because there are too many connections": metrics.client.connections_refused}
        for (port, reason), count in metrics.security.handshakes_failed.values.items():
            counts[f"a TLS handshake at the {port} port failed ({reason})"] = count
        for port, count in metrics.security.descriptors_short.values.items():
            counts[f"the {port} port was short of descriptors"] = count
        for (_route, _method, code), count in metrics.work.admin_requests.values.items():
            if code in ("401", "403", "421"):
                text = f"the admin API refused a request with {code}"
                counts[text] = counts.get(text, 0) + count
        return counts

    def _look_at_clock(self, status: RaftStatus) -> None:
        offset, bound = status.clock_offset_ms, self._context.config.raft_config.clock_offset_max_ms
        is_off = offset is not None and abs(offset) > bound
        if is_off == self._clock_is_off or offset is None:
            return
        self._clock_is_off = is_off
        way = "ahead of" if offset > 0 else "behind"
        text = f"this node's clock is {abs(offset):,} ms {way} the majority's, the limit is {bound:,} ms"
        if not is_off:
            text = f"this node's clock agrees with the majority's again, within {bound:,} ms"
        self._context.events.tell(EventKind.CLOCK, Severity.WARNING if is_off else Severity.INFO, text, status.term)


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"

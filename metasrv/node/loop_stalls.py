"""Says in the log when this process's event loop stood still, for how long and with which work.

`meta_node.py` gives it each beat of the loop. A loop that stands still while the process uses no processor time was
stopped or got no processor. Lines are folded: a loop that stands still again and again has one line every ten seconds.
Runs on the event loop.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from time import process_time

from metasrv.model.loop_work import LoopWork

logger = logging.getLogger(__name__)

STALL_SECONDS_MIN = 0.5
FOLD_SECONDS = 10.0
IDLE_SHARE_MAX = 0.2
"""Who used less than this share of the time on a processor has not worked."""


class LoopStalls:
    """`slow_seconds` is what slow steps have taken so far, by the kind of their work."""

    def __init__(
        self, node_id: int, slow_seconds: Mapping[LoopWork, float], processor_seconds: Callable[[], float] = process_time
    ) -> None:
        self._node_id = node_id
        self._slow_seconds = slow_seconds
        self._processor_seconds = processor_seconds
        self._before = dict(slow_seconds)
        self._used_before = processor_seconds()
        self._told_at = float("-inf")
        self._left_out = 0
        self._left_out_seconds = 0.0

    def beat(self, now: float, late_seconds: float) -> None:
        """A beat came `late_seconds` after it was due; `now` in monotonic seconds."""
        used = self._processor_seconds()
        if late_seconds >= STALL_SECONDS_MIN:
            self._tell(now, late_seconds, used - self._used_before)
        self._used_before = used
        self._before.update(self._slow_seconds)

    def _tell(self, now: float, late_seconds: float, used_seconds: float) -> None:
        if now - self._told_at < FOLD_SECONDS:
            self._left_out += 1
            self._left_out_seconds += late_seconds
            return
        more = ""
        if self._left_out:
            times = "once" if self._left_out == 1 else f"{self._left_out} times"
            more = f" (and {times} more since the last line, {self._left_out_seconds * 1000:,.0f} ms together)"
        text = (
            f"the event loop stood still for {late_seconds * 1000:,.0f} ms: {self._why(late_seconds, used_seconds)}{more}"
        )
        logger.warning("%s", text, extra={"node": self._node_id})
        self._told_at, self._left_out, self._left_out_seconds = now, 0, 0.0

    def _why(self, late_seconds: float, used_seconds: float) -> str:
        work, seconds = max(
            ((work, seconds - self._before.get(work, 0.0)) for work, seconds in self._slow_seconds.items()),
            key=lambda pair: pair[1],
        )
        if seconds >= late_seconds / 2:
            idle = used_seconds < IDLE_SHARE_MAX * late_seconds
            return f"{work} took {seconds * 1000:,.0f} ms" + (
                ", mostly waiting for the disk or a processor" if idle else ""
            )
        if used_seconds < IDLE_SHARE_MAX * late_seconds:
            return "the process was stopped, or got no processor"
        return f"the process used the processor for {used_seconds * 1000:,.0f} ms, with work that is not timed"

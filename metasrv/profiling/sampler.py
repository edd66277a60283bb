"""The profiler that needs no permission: a thread of this process that looks at the other threads' stacks.

The second choice, used where py-spy may not attach. It sees a thread only when the interpreter switches to it, so
long calls into C are blurred and steps of less than a tenth of a millisecond are mostly missed. A thread counts as
running when its processor time has advanced by a tenth of the interval; where the system does not tell, every thread
counts. Runs in a helper thread, never on the event loop.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from types import FrameType

from metasrv.process.operating_system import thread_processor_time_ns
from metasrv.profiling.stacks import Frame, StackSample, is_waiting, relative_path

DEPTH_MAX = 256
RUNNING_SHARE_MIN = 0.1
SWITCH_INTERVAL_SECONDS = 1e-5
"""In force while sampling. With Python's usual 5 ms the sampler would mostly see the event loop waiting, because that is
where a loop of short steps gives up the interpreter."""
IN_PROCESS_SAMPLING = threading.Lock()
"""Held by the one that has set the interval. Nobody waits long for it: the continuous profile leaves a look out."""


def sample_threads(seconds: float, frequency_hertz: int, stop: threading.Event, idle: bool = False) -> list[StackSample]:
    """Take stacks `frequency_hertz` times a second until `seconds` are over or `stop` is set; values count samples.

    With `idle` threads count while they wait as well.
    """
    with IN_PROCESS_SAMPLING:
        counts = _sample(seconds, frequency_hertz, stop, idle)
    return [StackSample(frames, (count,)) for frames, count in counts.items() if idle or not is_waiting(frames)]


def _sample(seconds: float, frequency_hertz: int, stop: threading.Event, idle: bool) -> Counter[tuple[Frame, ...]]:
    interval = 1.0 / frequency_hertz
    counts: Counter[tuple[Frame, ...]] = Counter()
    clock = _ProcessorClock(int(interval * RUNNING_SHARE_MIN * 1e9))
    end = time.monotonic() + seconds
    own = threading.get_ident()
    due = time.monotonic()
    switch_interval = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    try:
        while (now := time.monotonic()) < end:
            due = max(due + interval, now)
            if stop.wait(max(0.0, min(due, end) - now)):
                break
            # Take the stacks before the processor times: asking for those gives up the interpreter, and afterwards a
            # loop of short steps waits again. Take them at the usual interval: a coroutine that runs meanwhile
            # loses its callers.
            sys.setswitchinterval(switch_interval)
            stacks = [(ident, _stack(frame)) for ident, frame in sys._current_frames().items() if ident != own]
            sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
            running = None if idle else clock.running_threads()
            counts.update(stack for ident, stack in stacks if running is None or ident in running)
    finally:
        sys.setswitchinterval(switch_interval)
    return counts


def _stack(frame: FrameType | None) -> tuple[Frame, ...]:
    frames: list[Frame] = []
    while frame is not None and len(frames) < DEPTH_MAX:
        code = frame.f_code
        frames.append(Frame(code.co_qualname, relative_path(code.co_filename), frame.f_lineno or code.co_firstlineno))
        frame = frame.f_back
    return tuple(reversed(frames))


class _ProcessorClock:
    """Tells which threads have used the processor since it was last asked."""

    def __init__(self, running_ns_min: int) -> None:
        self._running_ns_min = running_ns_min
        self._used_ns: dict[int, int] = {}
        self._known = thread_processor_time_ns(threading.get_native_id()) is not None

    def running_threads(self) -> set[int] | None:
        """Identifiers of the threads that ran; None where the system does not tell.

        A thread that is seen for the first time counts as idle.
        """
        if not self._known:
            return None
        running: set[int] = set()
        for thread in threading.enumerate():
            if thread.ident is None or thread.native_id is None:
                continue
            used = thread_processor_time_ns(thread.native_id)
            if used is None:
                continue  # the thread has ended
            before = self._used_ns.get(thread.ident, used)
            self._used_ns[thread.ident] = used
            if used - before >= self._running_ns_min:
                running.add(thread.ident)
        return running

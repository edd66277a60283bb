"""What this process was doing in the last ten minutes: a thread that looks at all stacks about once a second.

It needs no permission and stops nobody: a look is a copy of the stacks' functions and lines, some ten microseconds a
thread. The minutes are those of the wall clock, so that "what was it doing at 03:12" names one. Looks come at a random
moment of their interval, because the node's own work is regular. A look sees time that passes, not processor time: a
thread that waits for the disk counts, one that waits for work is told apart. The root of each stack is the thread's name.

The minutes are a tuple of finished values that is replaced with each look, so readers on other threads need no lock. Must
not know HTTP. Looking runs in a thread of its own, reading anywhere.
"""

from __future__ import annotations

import random
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import CodeType, FrameType
from typing import NamedTuple

from metasrv.model.limits import (
    CONTINUOUS_FRAMES_KNOWN_MAX,
    CONTINUOUS_MINUTES_MAX,
    CONTINUOUS_STACK_FRAMES_MAX,
    CONTINUOUS_STACKS_MAX,
)
from metasrv.process.operating_system import show_thread_name
from metasrv.profiling.sampler import IN_PROCESS_SAMPLING, SWITCH_INTERVAL_SECONDS
from metasrv.profiling.stacks import Frame, StackSample, is_waiting, merge, relative_path

MINUTE_MS = 60_000
THREAD_NAME = "profiler"
MEETING_SECONDS = 0.002
"""How long a look waits with a short switch interval, so that it meets a busy thread in the middle of its work instead
of where that gives up the interpreter by itself."""
LOOKS_WITH_SAME_NAMES = 60
"""The names of threads are kept for this number of looks, unless there is a new thread."""
OTHER_STACKS = (Frame("(other stacks)"),)
"""Stands for the stacks of a minute beyond the limit."""
_NUMBERED = re.compile(r"_\d+$")

Stacks = Mapping[tuple[Frame, ...], int]


class Minute(NamedTuple):
    """One minute of the wall clock; never changed once it is made."""

    start_ms: int
    looks: int
    busy_looks: int
    """Looks at which a thread, or the event loop, was at work."""
    stacks: Stacks
    """How often each was seen."""


class ContinuousProfile:
    """The newest minutes of this process; `frequency_hertz` 0 keeps none."""

    def __init__(self, frequency_hertz: int, wall_ms: Callable[[], int]) -> None:
        self.frequency_hertz = frequency_hertz
        self._wall_ms = wall_ms
        self._minutes: tuple[Minute, ...] = ()
        self._known: dict[tuple[int, int], tuple[Frame, CodeType]] = {}
        """By the identity of the code, which is held so that no other gets it, and the instruction."""
        self._names: dict[int, str] = {}
        """Names of threads, without their number."""
        self._waiting: dict[tuple[int, int, int], tuple[Frame, ...]] = {}
        """The stacks of threads that waited, by thread and place; their code is held by `_known`."""
        self._looks = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    # ------------------------------------------------------------------ life

    def start(self) -> None:
        if self.frequency_hertz and self._thread is None:
            self._thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Ends the thread, within a few milliseconds; what it has seen stays."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        show_thread_name()
        interval = 1.0 / self.frequency_hertz
        begun = time.monotonic()
        while not self._stop.wait(max(0.0, begun + random.random() * interval - time.monotonic())):  # noqa: S311
            self._look()
            begun = max(begun + interval, time.monotonic() - interval)

    def _look(self) -> None:
        # While another profile samples in this process, it has set the interval, and would be disturbed.
        if not IN_PROCESS_SAMPLING.acquire(blocking=False):
            return
        try:
            usual = sys.getswitchinterval()
            sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
            try:
                time.sleep(MEETING_SECONDS)
            finally:
                sys.setswitchinterval(usual)
            frames = sys._current_frames()
        finally:
            IN_PROCESS_SAMPLING.release()
        del frames[threading.get_ident()]
        if self._looks % LOOKS_WITH_SAME_NAMES == 0 or not frames.keys() <= self._names.keys():
            threads = [thread for thread in threading.enumerate() if thread.ident is not None]
            self._names = {thread.ident or 0: _NUMBERED.sub("", thread.name) for thread in threads}
            self._waiting = {}
        self._looks += 1
        self.take([self._seen(ident, frame) for ident, frame in frames.items()])

    def _seen(self, ident: int, frame: FrameType) -> tuple[bool, tuple[Frame, ...]]:
        """Whether a thread is at work, and its stack.

        One that waits where it waited at an earlier look has the same stack: most threads do, most of the time.
        """
        place = (ident, id(frame.f_code), frame.f_lasti)
        found = self._waiting.get(place)
        if found is not None:
            return False, found
        frames = self._frames(frame)
        stack = (Frame(self._names.get(ident, "unknown")), *frames)
        is_busy = not is_waiting(frames, loop_too=True)
        if not is_busy and len(self._waiting) < CONTINUOUS_STACKS_MAX:
            self._waiting[place] = stack
        return is_busy, stack

    def _frames(self, frame: FrameType | None) -> list[Frame]:
        """Root first; of a deeper stack the innermost."""
        found: list[Frame] = []
        known = self._known
        while frame is not None and len(found) < CONTINUOUS_STACK_FRAMES_MAX:
            # The hash of a code object and the line of an instruction are computed each time they are asked for.
            code = frame.f_code
            place = (id(code), frame.f_lasti)
            made = known.get(place)
            if made is None:
                if len(known) >= CONTINUOUS_FRAMES_KNOWN_MAX:
                    known.clear()
                    self._waiting = {}
                line = frame.f_lineno or code.co_firstlineno
                made = known[place] = (Frame(code.co_qualname, relative_path(code.co_filename), line), code)
            found.append(made[0])
            frame = frame.f_back
        found.reverse()
        return found

    # ------------------------------------------------------------------ what is kept

    def take(self, threads: Sequence[tuple[bool, tuple[Frame, ...]]]) -> None:
        """Add one look: whether each thread is at work, and its stack. By the profiler's thread alone."""
        start_ms = self._wall_ms() // MINUTE_MS * MINUTE_MS
        kept = self._minutes
        if kept and kept[-1].start_ms == start_ms:
            current, kept = kept[-1], kept[:-1]
        else:
            current = Minute(start_ms, 0, 0, {})
        stacks = dict(current.stacks)
        for _, stack in threads:
            counted = stack if stack in stacks or len(stacks) < CONTINUOUS_STACKS_MAX else OTHER_STACKS
            stacks[counted] = stacks.get(counted, 0) + 1
        busy_looks = current.busy_looks + any(is_busy for is_busy, _ in threads)
        grown = Minute(start_ms, current.looks + 1, busy_looks, stacks)
        self._minutes = (*kept, grown)[-CONTINUOUS_MINUTES_MAX:]

    def minutes(self) -> tuple[Minute, ...]:
        """The kept minutes in the order in which they were seen; the last one may be under way."""
        return self._minutes

    def between(self, from_ms: int, to_ms: int) -> tuple[Minute, ...]:
        """The kept minutes of which a part is in this time."""
        return tuple(one for one in self._minutes if one.start_ms < to_ms and one.start_ms + MINUTE_MS > from_ms)


def samples_of(minutes: Iterable[Minute], idle: bool) -> list[StackSample]:
    """The stacks of several minutes with their counts; those that wait for work only with `idle`."""
    found = merge(StackSample(stack, (count,)) for minute in minutes for stack, count in minute.stacks.items())
    return found if idle else [sample for sample in found if not is_waiting(sample.frames, loop_too=True)]

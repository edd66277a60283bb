"""Stacks with values: every profiler here produces them, and every format is written from them.

The text form is the folded one of FlameGraph, one stack per line, root first: `main (app:3);work (pool.jobs:7) 42`. A
frame shows its function first, then module and line. Files are named from the folder that Python imports from, so that
no directory of the machine is told. Must not know where the samples come from. Runs anywhere.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

_FRAME = re.compile(r"^(?P<function>.*) \((?P<file>.*?)(?::(?P<line>\d+))?\)$", re.DOTALL)
FILES_KNOWN_MAX = 4_096
"""Files whose short name is remembered."""

_WAITING = frozenset(
    {
        ("threading.py", "Condition.wait"),
        ("threading.py", "Thread.run"),  # a function in C is the thread's work, as `SimpleQueue.get`
        ("queue.py", "Queue.get"),
        ("concurrent/futures/thread.py", "_worker"),
        ("selectors.py", "EpollSelector.select"),
        ("selectors.py", "_PollLikeSelector.select"),
        ("metasrv/raft/log/storage_thread.py", "StorageThread._next_job"),
    }
)
"""Where threads wait for work: file and function of the innermost frame."""
_LOOP_WAITING = frozenset(
    {
        ("asyncio/runners.py", "Runner.run"),  # uvloop's loop has no frames of Python below it
        ("uvloop/__init__.py", "run"),
    }
)
"""Where the event loop waits for something to happen."""


class Frame(NamedTuple):
    """A function, its file, and the line it was at; 0 if unknown."""

    function: str
    file: str = ""
    line: int = 0

    @property
    def module(self) -> str:
        """The file as an import would name it: `metasrv.state.machine`."""
        if self.file.startswith("<"):
            return self.file
        return self.file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    def __str__(self) -> str:
        if not self.file:
            return self.function
        return f"{self.function} ({self.module}:{self.line})" if self.line else f"{self.function} ({self.module})"


class StackSample(NamedTuple):
    """One distinct stack, root first, and its values in the order of the profile's value types."""

    frames: tuple[Frame, ...]
    values: tuple[int, ...]


@lru_cache(maxsize=FILES_KNOWN_MAX)
def relative_path(path: str) -> str:
    """A file as it stands below the folder it is imported from; of others the name and one folder."""
    roots = [
        root.rstrip("/") + "/" for root in sys.path if root.startswith("/") and path.startswith(root.rstrip("/") + "/")
    ]
    if roots:
        return path.removeprefix(max(roots, key=len))
    return "/".join(path.rsplit("/", 2)[-2:]) if path.startswith("/") else path


def is_waiting(frames: Sequence[Frame], *, loop_too: bool = False) -> bool:
    """Whether a thread with this stack waits for work; with `loop_too` also an event loop that does.

    Only the innermost Python frame tells. What the loop does in C, as writing to a socket, counts as waiting then.
    """
    if not frames:
        return True
    place = (frames[-1].file, frames[-1].function)
    return place in _WAITING or (loop_too and place in _LOOP_WAITING)


def parse_frame(text: str) -> Frame:
    match = _FRAME.match(text)
    if match is None:
        return Frame(text)
    return Frame(match["function"], relative_path(match["file"]), int(match["line"] or 0))


def parse_folded(text: str) -> list[StackSample]:
    """Read folded lines with one value each; other lines are left out."""
    samples = []
    for line in text.splitlines():
        stack, _, count = line.rpartition(" ")
        if stack and count.isascii() and count.isdigit():
            samples.append(StackSample(tuple(parse_frame(part) for part in stack.split(";")), (int(count),)))
    return samples


def to_folded(samples: Iterable[StackSample], value_index: int = 0) -> str:
    """Write one value of every sample that has it."""
    lines = []
    for sample in samples:
        if sample.values[value_index] > 0:
            lines.append(f"{_folded(sample.frames)} {sample.values[value_index]}\n")
    return "".join(lines)


def to_folded_pair(samples: Iterable[StackSample], before_index: int, after_index: int) -> str:
    """Write two values of every sample that has one of them: `stack before after`, as FlameGraph's difffolded.pl does."""
    lines = []
    for sample in samples:
        before, after = sample.values[before_index], sample.values[after_index]
        if before > 0 or after > 0:
            lines.append(f"{_folded(sample.frames)} {before} {after}\n")
    return "".join(lines)


def _folded(frames: Iterable[Frame]) -> str:
    return ";".join(str(frame).replace(";", ",").replace("\n", " ") for frame in frames)


def merge(samples: Iterable[StackSample]) -> list[StackSample]:
    """Add up the values of equal stacks."""
    merged: dict[tuple[Frame, ...], Sequence[int]] = {}
    for frames, values in samples:
        known = merged.get(frames)
        merged[frames] = values if known is None else [a + b for a, b in zip(known, values, strict=True)]
    return [StackSample(frames, tuple(values)) for frames, values in merged.items()]

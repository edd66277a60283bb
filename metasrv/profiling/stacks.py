"""Stacks with values: every profiler here produces them, and every format is written from them.

The text form is the folded one of FlameGraph, one stack per line, root first: `main (a.py:3);work (b.py:7) 42`.
Pure functions; must not know where the samples come from. Runs anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

_FRAME = re.compile(r"^(?P<function>.*) \((?P<file>.*?)(?::(?P<line>\d+))?\)$", re.DOTALL)


class Frame(NamedTuple):
    """A function, its file, and the line it was at; 0 if unknown."""

    function: str
    file: str = ""
    line: int = 0

    def __str__(self) -> str:
        if not self.file:
            return self.function
        return f"{self.function} ({self.file}:{self.line})" if self.line else f"{self.function} ({self.file})"


class StackSample(NamedTuple):
    """One distinct stack, root first, and its values in the order of the profile's value types."""

    frames: tuple[Frame, ...]
    values: tuple[int, ...]


def short_path(path: str) -> str:
    """File and folder: enough to find the file, without the directory names of the machine."""
    return "/".join(path.rsplit("/", 2)[-2:])


def parse_frame(text: str) -> Frame:
    match = _FRAME.match(text)
    if match is None:
        return Frame(text)
    return Frame(match["function"], match["file"], int(match["line"] or 0))


def parse_folded(text: str) -> list[StackSample]:
    """Read folded lines with one value each; other lines are left out."""
    samples = []
    for line in text.splitlines():
        stack, _, count = line.rpartition(" ")
        if stack and count.isascii() and count.isdigit():
            samples.append(StackSample(tuple(parse_frame(part) for part in stack.split(";")), (int(count),)))
    return samples


def to_folded(samples: Iterable[StackSample], value_index: int = 0) -> str:
    """Write one value of every sample that has it; the inverse of `parse_folded`."""
    lines = []
    for sample in samples:
        if sample.values[value_index] > 0:
            stack = ";".join(str(frame).replace(";", ",").replace("\n", " ") for frame in sample.frames)
            lines.append(f"{stack} {sample.values[value_index]}\n")
    return "".join(lines)


def merge(samples: Iterable[StackSample]) -> list[StackSample]:
    """Add up the values of equal stacks."""
    merged: dict[tuple[Frame, ...], Sequence[int]] = {}
    for frames, values in samples:
        known = merged.get(frames)
        merged[frames] = values if known is None else [a + b for a, b in zip(known, values, strict=True)]
    return [StackSample(frames, tuple(values)) for frames, values in merged.items()]

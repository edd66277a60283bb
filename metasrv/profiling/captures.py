"""The newest memory profiles in short, so that a later one can be compared with any of them.

A capture's stacks with their four values, as lines of JSON, compressed: the largest stacks by name, the rest together.
They stay in this process's memory, a few hundred kilobytes at most, and are gone when it ends. The program that reads
memray's file writes and reads them (`heap_report.py`); this process only keeps the bytes. Must not know HTTP. Pure.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable
from typing import NamedTuple

from metasrv.model.limits import CAPTURE_SIZE_BYTES_MAX, CAPTURE_STACKS_MAX, CAPTURES_KEPT_MAX
from metasrv.profiling.profile import ProfilingError, Subject, UnknownCaptureError
from metasrv.profiling.stacks import Frame, StackSample, merge

OTHER_STACKS = (Frame("(other stacks)"),)


class Capture(NamedTuple):
    """One kept capture."""

    capture_id: str
    """Its moment: `20261127T031205Z`."""
    subject: Subject
    body: bytes


class Captures:
    """The newest `CAPTURES_KEPT_MAX`. Used on the event loop."""

    def __init__(self) -> None:
        self._kept: dict[str, Capture] = {}

    def keep(self, subject: Subject, body: bytes) -> str:
        """Keep one, in place of the oldest when there are too many; returns its name."""
        name = subject.moment().replace("-", "").replace(":", "").replace(" ", "T") + "Z"
        self._kept.pop(name, None)
        self._kept[name] = Capture(name, subject, body)
        while len(self._kept) > CAPTURES_KEPT_MAX:
            del self._kept[next(iter(self._kept))]
        return name

    def get(self, capture_id: str) -> Capture:
        """Raises UnknownCaptureError, which names those that are kept."""
        found = self._kept.get(capture_id)
        if found is None:
            kept = ", ".join(self._kept) or "none"
            raise UnknownCaptureError(f"no memory profile {capture_id!r} is kept; kept are: {kept}")
        return found

    def all(self) -> list[Capture]:
        """Oldest first."""
        return list(self._kept.values())


def pack(samples: Iterable[StackSample]) -> bytes:
    """The largest stacks; the others are added up as one."""
    ordered = sorted(samples, key=lambda sample: sum(sample.values), reverse=True)
    kept, rest = ordered[:CAPTURE_STACKS_MAX], ordered[CAPTURE_STACKS_MAX:]
    while True:
        others = merge(StackSample(OTHER_STACKS, sample.values) for sample in rest)
        lines = [json.dumps([sample.frames, sample.values], separators=(",", ":")) for sample in [*kept, *others]]
        packed = zlib.compress("\n".join(lines).encode())
        if len(packed) <= CAPTURE_SIZE_BYTES_MAX or not kept:
            return packed
        half = len(kept) // 2
        kept, rest = kept[:half], [*kept[half:], *rest]


def unpack(body: bytes) -> list[StackSample]:
    """The inverse of `pack`. Raises ProfilingError."""
    try:
        lines = zlib.decompress(body).decode().splitlines()
        return [
            StackSample(tuple(Frame(*frame) for frame in frames), tuple(values))
            for frames, values in map(json.loads, lines)
        ]
    except (zlib.error, ValueError, TypeError) as error:
        raise ProfilingError(f"a kept capture cannot be read: {error}") from error


def paired(before: Iterable[StackSample], after: Iterable[StackSample], width: int) -> list[StackSample]:
    """Both captures as one: the values of each stack before, then those after; 0 where it was not seen."""
    none = (0,) * width
    return merge(
        [
            *(StackSample(frames, (*values, *none)) for frames, values in before),
            *(StackSample(frames, (*none, *values)) for frames, values in after),
        ]
    )

"""What every profile has in common: its forms, its title, its result, its faults.

Must not know HTTP, nor how samples are taken. Runs anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from typing import NamedTuple

from metasrv.model.errors import MetasrvError

SECOND_NS = 1_000_000_000


class ProfileFormat(StrEnum):
    """The forms a profile can be asked for in."""

    PPROF = "pprof"
    SVG = "svg"
    FOLDED = "folded"
    SPEEDSCOPE = "speedscope"
    MEMRAY = "memray"
    """The raw capture, for memray's own reporters; memory only."""


CPU_FORMATS = (ProfileFormat.PPROF, ProfileFormat.SVG, ProfileFormat.FOLDED, ProfileFormat.SPEEDSCOPE)
MEMORY_FORMATS = (*CPU_FORMATS, ProfileFormat.MEMRAY)

CONTENT_TYPES = {
    ProfileFormat.PPROF: "application/octet-stream",
    ProfileFormat.SVG: "image/svg+xml",
    ProfileFormat.FOLDED: "text/plain; charset=utf-8",
    ProfileFormat.SPEEDSCOPE: "application/json; charset=utf-8",
    ProfileFormat.MEMRAY: "application/octet-stream",
}


class Subject(NamedTuple):
    """What a profile is of: everything that its title may tell."""

    node_id: int
    started_ns: int
    """Since the Unix epoch."""
    seconds: int

    def title(self, what: str) -> str:
        """`CPU of node 2, 2026-11-27 03:12:05 UTC, 5 s`."""
        return f"{what} of node {self.node_id}, {self.moment()} UTC, {self.seconds} s"

    def moment(self) -> str:
        return datetime.fromtimestamp(self.started_ns // SECOND_NS, UTC).strftime("%Y-%m-%d %H:%M:%S")

    @property
    def duration_ns(self) -> int:
        return self.seconds * SECOND_NS


class Profile(NamedTuple):
    """A finished profile."""

    body: bytes
    format: ProfileFormat
    sampler: str
    """Who took the samples: `py-spy`, `in-process` or `memray`."""
    capture_id: str | None = None
    """Under which name it can be compared with later; memory only."""

    @property
    def content_type(self) -> str:
        return CONTENT_TYPES[self.format]


class ProfilingError(MetasrvError):
    """A profile could not be taken; the text says why."""


class ProfilerUnavailableError(ProfilingError):
    """This installation has no such profiler."""


class ProfilerBusyError(ProfilingError):
    """Another profile is being taken."""


class UnknownCaptureError(ProfilingError):
    """The capture to compare with is not kept, or no longer."""


class ProfileSlot:
    """Room for one profile at a time; profilers disturb each other and the node."""

    def __init__(self) -> None:
        self._running: str | None = None

    @contextmanager
    def take(self, name: str) -> Iterator[None]:
        """Hold the slot; raises ProfilerBusyError when it is taken."""
        if self._running is not None:
            raise ProfilerBusyError(f"a {self._running} profile is being taken; try again when it is done")
        self._running = name
        try:
            yield
        finally:
            self._running = None

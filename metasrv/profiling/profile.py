"""What every profile has in common: its forms, its result, its faults.

Must not know HTTP, nor how samples are taken. Runs anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import NamedTuple

from metasrv.model.errors import MetasrvError


class ProfileFormat(StrEnum):
    """The forms a profile can be asked for in."""

    PPROF = "pprof"
    SVG = "svg"
    FOLDED = "folded"
    SPEEDSCOPE = "speedscope"
    MEMRAY = "memray"
    """The raw capture, for memray's own reporters; memory only."""


CPU_FORMATS = (ProfileFormat.PPROF, ProfileFormat.SVG, ProfileFormat.FOLDED, ProfileFormat.SPEEDSCOPE)
MEMORY_FORMATS = (ProfileFormat.PPROF, ProfileFormat.SVG, ProfileFormat.FOLDED, ProfileFormat.MEMRAY)

CONTENT_TYPES = {
    ProfileFormat.PPROF: "application/octet-stream",
    ProfileFormat.SVG: "image/svg+xml",
    ProfileFormat.FOLDED: "text/plain; charset=utf-8",
    ProfileFormat.SPEEDSCOPE: "application/json; charset=utf-8",
    ProfileFormat.MEMRAY: "application/octet-stream",
}


class Profile(NamedTuple):
    """A finished profile."""

    body: bytes
    format: ProfileFormat
    sampler: str
    """Who took the samples: `py-spy`, `in-process` or `memray`."""

    @property
    def content_type(self) -> str:
        return CONTENT_TYPES[self.format]


class ProfilingError(MetasrvError):
    """A profile could not be taken; the text says why."""


class ProfilerUnavailableError(ProfilingError):
    """This installation has no such profiler."""


class ProfilerBusyError(ProfilingError):
    """Another profile is being taken."""


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

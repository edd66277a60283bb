"""Counts what consensus reports: a run that never met an event proves nothing about it. Changes nothing."""

from __future__ import annotations

from collections.abc import Callable

from metasrv.raft.observer import SilentObserver


class CountingObserver(SilentObserver):
    """`count` is called with the name of each event."""

    def __init__(self, count: Callable[[str], None]) -> None:
        self._count = count

    def applying_paused(self, seconds: float) -> None:
        del seconds
        self._count("pauses for a new state log")

    def disk_stalled(self, part: str) -> None:
        self._count(f"disk stalls noticed, {part}")

"""Counts what consensus reports: a run that never met an event proves nothing about it. Changes nothing.

Who wants to look at a node after each of its steps hears of them here.
"""

from __future__ import annotations

from collections.abc import Callable

from metasrv.model.loop_work import LoopWork
from metasrv.raft.observer import SilentObserver

_STEPS = frozenset(
    (LoopWork.RAFT_APPLY, LoopWork.RAFT_MESSAGES, LoopWork.RAFT_TICK, LoopWork.RAFT_SEND, LoopWork.RAFT_UPKEEP)
)


class CountingObserver(SilentObserver):
    """`count` is called with the name of each event, `stepped` after each whole step of consensus."""

    def __init__(self, count: Callable[[str], None], stepped: Callable[[], None]) -> None:
        self._count = count
        self._stepped = stepped

    def step_took(self, work: LoopWork, seconds: float) -> None:
        del seconds
        if work in _STEPS:
            self._stepped()

    def applying_paused(self, seconds: float) -> None:
        del seconds
        self._count("pauses for a new state log")

    def disk_stalled(self, part: str) -> None:
        self._count(f"disk stalls noticed, {part}")

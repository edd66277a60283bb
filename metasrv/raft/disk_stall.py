"""Notices that this node's disk has stopped answering, and says so.

Two waits are watched: for a write of the raft log in flight, and for the state to take committed entries, which it does
not while its write-ahead log begins anew. A wait that lasts longer than a bound is a stall; it ends with the wait. Time
counts only while the event loop turns, so a process that was paused, or a loop that was held up, does not look like a
disk that stalls. Runs on the event loop; knows neither who leads nor what a stall leads to (`stalled_leader.py`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from enum import StrEnum

from metasrv.raft.observer import RaftObserver

logger = logging.getLogger(__name__)

DISK_STALL_MS = 1_000
"""A wait for the disk that is longer than this is a stall."""
_LOOK_SECONDS_MAX = 0.1
"""What one look adds to a wait at most."""


class StalledPart(StrEnum):
    """What waits for the disk."""

    LOG = "log"
    STATE = "state"


_SENTENCES = {
    StalledPart.LOG: "the disk stalls: a write of the raft log has not finished for {:.1f} s",
    StalledPart.STATE: "the disk stalls: the state has not taken committed entries for {:.1f} s",
}


class _Wait:
    """How long one thing has been waited for."""

    def __init__(self, current: Callable[[], Hashable | None]) -> None:
        self._current = current
        self._seen: Hashable | None = None
        self.seconds = 0.0

    def look(self, passed_seconds: float) -> None:
        current = self._current()
        self.seconds = self.seconds + passed_seconds if current is not None and current == self._seen else 0.0
        self._seen = current


class DiskStall:
    """Looks at both waits. `log` and `state` give what is waited for, None for nothing, another value for a new wait."""

    def __init__(
        self,
        *,
        log: Callable[[], Hashable | None],
        state: Callable[[], Hashable | None],
        observer: RaftObserver,
        stall_ms: int = DISK_STALL_MS,
    ) -> None:
        self._waits = {StalledPart.LOG: _Wait(log), StalledPart.STATE: _Wait(state)}
        self._observer = observer
        self._stall_seconds = stall_ms / 1000
        self._looked_at: float | None = None
        self._longest_seconds = 0.0
        self.part: StalledPart | None = None
        """What stalls now; the log before the state."""

    def look(self, now: float) -> None:
        """See what is waited for; to be called every few hundredths of a second."""
        passed = 0.0 if self._looked_at is None else min(now - self._looked_at, _LOOK_SECONDS_MAX)
        self._looked_at = now
        before, self.part = self.part, None
        for part, wait in self._waits.items():
            wait.look(passed)
            if self.part is None and wait.seconds >= self._stall_seconds:
                self.part = part
        if self.part is not None:
            self._longest_seconds = self.seconds()
        if self.part is before:
            return
        if self.part is not None:
            self._observer.disk_stalled(self.part.value)
            logger.warning("%s", self.sentence())
        else:
            logger.warning("the disk answers again, after %.1f s", self._longest_seconds)

    def seconds(self) -> float:
        """How long what stalls has been waited for; 0.0 when nothing stalls."""
        return 0.0 if self.part is None else self._waits[self.part].seconds

    def sentence(self) -> str | None:
        """What stalls, for people; None when nothing does."""
        return None if self.part is None else _SENTENCES[self.part].format(self.seconds())

"""When a leader tells its followers of a new commit index: with the next entries, or a little later by itself.

No clock of its own; runs on the event loop, in a step.
"""

from __future__ import annotations

from collections.abc import Callable

COMMIT_NOTICE_SECONDS = 0.005
"""Time after which followers are told of a new commit index, unless new entries tell them earlier."""


class CommitNotice:
    """`later(seconds)` has a step taken after that time."""

    def __init__(self, later: Callable[[float], object]) -> None:
        self._later = later
        self._told = 0
        self._seen_at = 0.0

    def due(self, commit: int, now: float) -> bool:
        """Whether the followers should be told of `commit` now."""
        if commit == self._told:
            return False
        if self._seen_at == 0.0:
            self._seen_at = now
            self._later(COMMIT_NOTICE_SECONDS)
            return False
        return now - self._seen_at >= COMMIT_NOTICE_SECONDS * 0.9

    def told(self, commit: int) -> None:
        """A message with `commit` leaves for all followers."""
        self._told, self._seen_at = commit, 0.0

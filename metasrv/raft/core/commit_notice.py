"""When a leader tells its followers of a new commit index: with the next entries, or a little later by itself.

No clock and no timer of its own; runs on the event loop, in a step.
"""

from __future__ import annotations

COMMIT_NOTICE_SECONDS = 0.005
"""Time after which followers are told of a new commit index, unless new entries tell them earlier."""


class CommitNotice:
    """What the followers were told; `step_in` says when to ask again."""

    def __init__(self) -> None:
        self._told = 0
        self._seen_at = 0.0
        self.step_in: float | None = None
        """Seconds after which a step is wanted, once for each commit index: whoever takes it sets it to None."""

    def due(self, commit: int, now: float) -> bool:
        """Whether the followers should be told of `commit` now."""
        if commit == self._told:
            return False
        if self._seen_at == 0.0:
            self._seen_at = now
            self.step_in = COMMIT_NOTICE_SECONDS
            return False
        return now - self._seen_at >= COMMIT_NOTICE_SECONDS * 0.9

    def told(self, commit: int) -> None:
        """A message with `commit` leaves for all followers."""
        self._told, self._seen_at = commit, 0.0

"""When a step sees to what can wait: most steps only pass messages on, and each look costs a little.

Pure; a node's replica asks it on the event loop, after each step.
"""

from __future__ import annotations

UPKEEP_SECONDS = 0.02
"""What can wait is looked at this often, and after each step in which an entry was applied."""


class Upkeep:
    """Remembers when it was last seen to."""

    __slots__ = ("_applied_index", "_at")

    def __init__(self) -> None:
        self._applied_index = -1
        self._at = float("-inf")

    def is_due(self, applied_index: int, now: float) -> bool:
        """Whether it is time, in monotonic seconds; the caller sees to it then."""
        if applied_index == self._applied_index and now < self._at:
            return False
        self._applied_index, self._at = applied_index, now + UPKEEP_SECONDS
        return True

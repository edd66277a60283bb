"""Log time: what a leader stamps into entries, and by what it decides which records have expired.

It is the leader's wall clock while that is level with it or ahead. When the wall clock is behind (it was set back, or an
earlier leader's clock was ahead) log time goes on with the monotonic clock, at half speed, until they are level. So it
never goes back, and no lease lives longer than twice its time whatever wall clocks do. Knows nothing of entries but
their times. Runs on the event loop.
"""

from __future__ import annotations

from metasrv.process.clock import Clock

SLOW_SPEED = 0.5
"""Milliseconds of log time for each of the monotonic clock, while log time is ahead of the wall clock."""


class LogTime:
    """One node's log time. It counts from the newest time that this node stamped, or saw in an entry."""

    def __init__(self, clock: Clock, time_ms: int) -> None:
        self._clock = clock
        self._base_ms = time_ms
        self._base_at = clock.monotonic()

    def now_ms(self) -> int:
        """The time to stamp now, in milliseconds since the epoch; never smaller than an earlier one."""
        now, wall_ms, time_ms = self._clock.monotonic(), self._clock.wall_ms(), self._without_wall_ms()
        if wall_ms < time_ms:
            return time_ms
        # Only here does the base move: many small steps at half speed would lose their fractions.
        self._base_ms, self._base_at = wall_ms, now
        return wall_ms

    def saw(self, time_ms: int) -> None:
        """An entry of this time is in the log or was applied: go on from there.

        The wall clock has no say in it: a follower whose clock is ahead has stamped nothing by it.
        """
        if time_ms > self._without_wall_ms():
            self._base_ms, self._base_at = time_ms, self._clock.monotonic()

    def ahead_ms(self) -> int:
        """How far log time is ahead of this node's wall clock; 0 while they are level. Changes nothing."""
        return max(0, self._without_wall_ms() - self._clock.wall_ms())

    def _without_wall_ms(self) -> int:
        """Log time as it is while the wall clock is behind it."""
        return self._base_ms + int((self._clock.monotonic() - self._base_at) * 1000 * SLOW_SPEED)

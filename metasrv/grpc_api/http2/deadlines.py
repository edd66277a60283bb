"""The deadlines of all calls of one server, watched by one timer. Runs on the event loop."""

from __future__ import annotations

import asyncio
from typing import Protocol

CHECK_SECONDS = 0.05
"""How often deadlines are checked: a call ends at most this long after its own. Clients watch theirs themselves."""


class TimedCall(Protocol):
    """A call that may have a deadline."""

    deadline: float | None
    """On the event loop's clock."""

    def expire(self) -> None:
        """End the call: its deadline has passed."""


class Deadlines:
    """Calls under way that have a deadline. Checking all of them at once costs less than a timer for each call."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._calls: set[TimedCall] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, call: TimedCall) -> None:
        self._calls.add(call)
        if self._timer is None:
            self._timer = self._loop.call_later(CHECK_SECONDS, self.check)

    def remove(self, call: TimedCall) -> None:
        """Forget a call that has ended; does nothing for one without a deadline."""
        self._calls.discard(call)

    def check(self) -> None:
        """End every call whose deadline has passed."""
        now = self._loop.time()
        for call in [call for call in self._calls if call.deadline is not None and call.deadline <= now]:
            call.expire()
        self._timer = self._loop.call_later(CHECK_SECONDS, self.check) if self._calls else None

    def stop(self) -> None:
        """End the timer."""
        if self._timer is not None:
            self._timer.cancel()

"""How long a request waits for an answer that only one leader can give.

It waits until its own deadline, and only a short time after that leader is no longer the leader. A leader that hangs or
lost its majority would otherwise keep callers until their deadlines, although nobody can tell them the outcome any more.
Runs on the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from metasrv.model.errors import MetasrvError

Result = TypeVar("Result")

LOOK_SECONDS = 0.25
"""Time between two checks of who leads."""
WRITE_GRACE_SECONDS = 1.25
"""How long a write waits on after its leader is lost: a new leader may still commit it, and the caller hears of that."""
READ_GRACE_SECONDS = 0.0
"""A read is asked again at once."""


class LeaderLostError(MetasrvError):
    """The leader that was asked is no longer known as the leader; the outcome of the request is unknown."""


class Patience:
    """Waits for an answer while its leader leads."""

    def __init__(self, leader_id: Callable[[], int | None]) -> None:
        self._leader_id = leader_id

    async def wait(
        self, answer: Awaitable[Result], leader_id: int, timeout_seconds: float, grace_seconds: float
    ) -> Result:
        """The answer of `leader_id`; raises TimeoutError at the deadline, LeaderLostError before it."""
        loop = asyncio.get_running_loop()
        lost_at: float | None = None
        lost = False
        timer: asyncio.TimerHandle

        def look() -> None:
            nonlocal lost_at, lost, timer
            if scope.expired():
                return  # a loop that wakes late has both timers due in one turn
            now = loop.time()
            if self._leader_id() == leader_id:
                lost_at = None
            else:
                lost_at = now if lost_at is None else lost_at
                if now - lost_at >= grace_seconds:
                    lost = True
                    scope.reschedule(now)
                    return
            timer = loop.call_later(LOOK_SECONDS, look)

        timer = loop.call_later(LOOK_SECONDS, look)
        try:
            async with asyncio.timeout(timeout_seconds) as scope:
                return await answer
        except TimeoutError:
            if lost:
                raise LeaderLostError from None
            raise
        finally:
            timer.cancel()

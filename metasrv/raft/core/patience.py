"""How long a request waits for an answer that only one leader can give.

Until its own deadline, and not much longer than that leader is the leader: a leader that lost its majority, or hangs,
would keep callers until their deadlines, although they could know long before that nobody can tell them the outcome.
Runs on the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from metasrv.model.errors import MetasrvError

Result = TypeVar("Result")

LOOK_SECONDS = 0.25
"""How often it is looked who leads."""
WRITE_GRACE_SECONDS = 1.25
"""A write outlives its leader for so long: a new leader may commit it yet, and then the caller hears of it."""
READ_GRACE_SECONDS = 0.0
"""A read is simply asked again."""


class LeaderLostError(MetasrvError):
    """The leader that was to answer is no longer known as the leader; what became of the request is open."""


class Patience:
    """Waits with an eye on the leader."""

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

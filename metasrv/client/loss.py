"""The end of a session, as the program sees it: asked for, waited for, or told to a callback.

Runs on the client's event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from metasrv.model.errors import RequestError


class SessionLostError(RequestError):
    """The session is over: what was held in it may belong to somebody else. Nothing was done in it after that."""


class Loss:
    """Set once, with a reason, when the session is over."""

    def __init__(self, is_overdue: Callable[[], bool], overdue_reason: str) -> None:
        self._event = asyncio.Event()
        self._is_overdue = is_overdue
        self._overdue_reason = overdue_reason
        self._callbacks: list[Callable[[str], None]] = []
        self.reason = ""
        """Why it is over, in words; empty while it is not."""

    def is_set(self) -> bool:
        """Whether the session is over by now. Looks at the clock: true at once in a program that was stopped too long."""
        if not self._event.is_set() and self._is_overdue():
            self.set(self._overdue_reason)
        return self._event.is_set()

    async def wait(self) -> str:
        """Wait until the session is over; returns the reason."""
        await self._event.wait()
        return self.reason

    def add_callback(self, callback: Callable[[str], None]) -> None:
        """Call `callback(reason)` on the event loop once the session is over, soon if it is already."""
        if self._event.is_set():
            asyncio.get_running_loop().call_soon(callback, self.reason)
        else:
            self._callbacks.append(callback)

    def set(self, reason: str) -> None:
        """End it, unless it has ended."""
        if self._event.is_set():
            return
        self.reason = reason
        self._event.set()
        loop = asyncio.get_running_loop()
        for callback in self._callbacks:
            loop.call_soon(callback, reason)
        self._callbacks.clear()

    def check(self) -> None:
        """Raise SessionLostError when it is over."""
        if self.is_set():
            raise SessionLostError(self.reason)

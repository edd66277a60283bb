"""A lock with one holder at a time, in the order of asking.

    async with AsyncLock(session, "reports/daily") as token:
        await client.transaction(Transaction().fenced_by(token).put("reports/last", b"..."))

A session that is lost while the lock is held cannot stop the program. `fenced_by` makes the cluster refuse what the
program still sends when another one holds the lock. Runs on the client's event loop.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

from metasrv.client.recipes.line import Line
from metasrv.client.recipes.waiting import seconds_of
from metasrv.client.sessions import AsyncSession
from metasrv.client.transaction import FencingToken


class AsyncLock:
    """One contender for the lock `name`; not reentrant, and not for two tasks at once."""

    def __init__(self, session: AsyncSession, name: str, value: bytes = b"") -> None:
        """`value` says to others who holds or waits; it need not be unique."""
        self._session = session
        self._value = value
        self._line = Line(session, f"{name}/lock/")
        self._token: FencingToken | None = None
        self._busy = False

    async def __aenter__(self) -> FencingToken:
        return await self.acquire()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.release()

    @property
    def token(self) -> FencingToken | None:
        """The token of the present hold."""
        return self._token

    @property
    def is_acquired(self) -> bool:
        """Whether this object holds the lock by the rule of `session.lost`."""
        return self._token is not None and not self._session.lost.is_set()

    async def acquire(self, *, timeout_ms: int | None = None) -> FencingToken:
        """Wait for the lock. Raises TimeoutError, SessionLostError, or what the client's calls raise.

        Whoever is cancelled or times out leaves the line.
        """
        self._take_object()
        token: FencingToken | None = None
        try:
            async with asyncio.timeout(seconds_of(timeout_ms)):
                token = await self._line.join(self._value)
                await self._line.wait_turn(token)
        except BaseException:
            self._give_up(token)
            raise
        self._token = token
        return token

    async def try_acquire(self) -> FencingToken | None:
        """The lock if nobody has it or waits for it, otherwise None."""
        self._take_object()
        token: FencingToken | None = None
        try:
            token = await self._line.join(self._value)
            turn = await self._line.is_turn(token)
            self._session.lost.check()
        except BaseException:
            self._give_up(token)
            raise
        if turn:
            self._token = token
            return token
        self._busy = False
        await self._line.leave(token)
        return None

    async def release(self) -> None:
        """Let the next one have it. What was written with the token stays; later writes with it are refused.

        Cancelled meanwhile, it goes on in the background.
        """
        if self._token is None:
            raise RuntimeError("the lock is not held")
        token, self._token = self._token, None
        self._busy = False
        await self._line.leave(token)

    async def contenders(self) -> list[bytes]:
        """The values of the holder and of those who wait, in the order of the line."""
        return [held.value for held in await self._line.contenders()]

    def _take_object(self) -> None:
        if self._busy:
            raise RuntimeError("the lock object is held or waits already: one object for each contender")
        self._busy = True

    def _give_up(self, token: FencingToken | None) -> None:
        self._busy = False
        if token is not None:
            self._line.leave_later(token)

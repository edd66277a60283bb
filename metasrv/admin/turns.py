"""One request of the admin API for every few turns of the event loop, so that many at once do not hold up the node.

A page of metrics takes milliseconds. A hundred callers that ask for it together would otherwise be answered in one turn
of the loop, while heartbeats, clients and probes wait for all of them. A probe on a new connection takes several turns
from its first packet to its answer, and would wait for a page in each; so would a client. Turns of a loop that has
nothing else to do take no time. Must not know what is asked for. Runs on the event loop.
"""

from __future__ import annotations

import asyncio
from collections import deque

TURNS_BETWEEN = 8
"""More turns than it takes to accept a connection, to read a request from it and to answer."""


class Turns:
    """Lets callers go on in the order in which they came, one for every `TURNS_BETWEEN` turns of the loop."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._taken = False

    async def take(self) -> None:
        """Return at once when nobody has gone on in this turn, otherwise in a later one."""
        loop = asyncio.get_running_loop()
        if not self._taken:
            self._taken = True
            loop.call_soon(self._pass, loop, TURNS_BETWEEN)
            return
        future: asyncio.Future[None] = loop.create_future()
        self._waiting.append(future)
        await future

    def _pass(self, loop: asyncio.AbstractEventLoop, turns: int) -> None:
        """Let turns of the loop pass, then the next caller go on."""
        if turns > 1 and self._waiting:
            loop.call_soon(self._pass, loop, turns - 1)
        else:
            self._next(loop)

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():  # a caller that was cancelled gives its turn to the one behind it
                future.set_result(None)
                loop.call_soon(self._pass, loop, TURNS_BETWEEN)
                return
        self._taken = False

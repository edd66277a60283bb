"""Which TLS handshakes go on: few at once, begun at a pace, and those of each address in turn.

A handshake costs the event loop a millisecond, most of it for a signature, and the client decides when: it may hold back
what the node answers with it, and send it on a thousand connections at once. So only a few handshakes are under way,
each step of the loop begins two, and the others wait before they have cost anything. Knows neither sockets nor TLS. Runs
on the event loop.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable

BEGUN_PER_STEP = 2
"""Two or three milliseconds."""
HOSTS_PER_STEP = 8
"""Addresses for which a place is looked for."""
PATIENCE_SECONDS = 0.25
"""A handshake that lasts longer gives its place to another of its own address; a round trip over an ocean fits."""
RETRY_SECONDS = 0.01
"""Until those who wait are looked at again while no place is free."""

Handshake = asyncio.Task[None]


class HandshakePace:
    """The handshakes of one listening socket. `make_room` ends one that is under way; it is called with its task."""

    def __init__(self, at_once_max: int, make_room: Callable[[Handshake], None]) -> None:
        self._at_once_max = at_once_max
        self._make_room = make_room
        self._loop = asyncio.get_running_loop()
        self._waiting: OrderedDict[str, deque[Handshake]] = OrderedDict()
        """By address; the one whose turn is next comes first."""
        self._tickets: dict[Handshake, asyncio.Future[bool]] = {}
        """What those who wait await."""
        self._begun: dict[str, dict[Handshake, float]] = {}
        """Since when they go on by the loop's clock, by address, the oldest first."""
        self.begun_count = 0
        self._next: asyncio.Handle | None = None

    async def begin(self, host: str, handshake: Handshake) -> bool:
        """Wait until this handshake may go on; False when it was left out meanwhile. `leave` ends it."""
        ticket: asyncio.Future[bool] = self._loop.create_future()
        self._tickets[handshake] = ticket
        self._waiting.setdefault(host, deque()).append(handshake)
        if self._next is None:
            self._next = self._loop.call_soon(self._step)
        try:
            return await ticket
        finally:
            self._tickets.pop(handshake, None)

    def leave(self, host: str, handshake: Handshake) -> None:
        """This handshake waits no more and goes on no more, however it ended; nothing if it did neither."""
        ticket = self._tickets.pop(handshake, None)
        if ticket is not None and not ticket.done():
            ticket.set_result(False)
        mine = self._begun.get(host, {})
        if mine.pop(handshake, None) is not None:
            self.begun_count -= 1
            if not mine:
                del self._begun[host]

    # ------------------------------------------------------------------------- steps

    def _step(self) -> None:
        """Begin what may begin in this step of the loop."""
        self._next = None
        for _ in range(BEGUN_PER_STEP):
            host = self._host_with_room()
            if host is None:
                if self._waiting:
                    self._next = self._loop.call_later(RETRY_SECONDS, self._step)
                return
            self._begin_next(host)
        self._next = self._loop.call_soon(self._step)

    def _host_with_room(self) -> str | None:
        """The first address in turn for which there is a place; None when there is none for those who are looked at."""
        for _ in range(HOSTS_PER_STEP):
            host = self._next_host()
            if host is None or self.begun_count < self._at_once_max or self._finds_room(host):
                return host
            self._waiting.move_to_end(host)
        return None

    def _next_host(self) -> str | None:
        """The address whose turn it is, with somebody who still waits; None when nobody does."""
        while self._waiting:
            host, handshakes = next(iter(self._waiting.items()))
            while handshakes and handshakes[0] not in self._tickets:
                handshakes.popleft()
            if handshakes:
                return host
            del self._waiting[host]
        return None

    def _begin_next(self, host: str) -> None:
        handshake = self._waiting[host].popleft()
        self._waiting.move_to_end(host)
        self._begun.setdefault(host, {})[handshake] = self._loop.time()
        self.begun_count += 1
        self._tickets.pop(handshake).set_result(True)

    def _finds_room(self, host: str) -> bool:
        """End a handshake that has had its time, or is one of the many of another address."""
        largest = max(self._begun, key=lambda other: len(self._begun[other]))
        own = self._begun.get(host, {})
        if len(self._begun[largest]) > len(own) + 1:
            victim_host, patience_seconds = largest, 0.0
        else:
            victim_host, patience_seconds = (host if own else largest), PATIENCE_SECONDS
        victim, since = next(iter(self._begun[victim_host].items()))
        if self._loop.time() - since < patience_seconds:
            return False
        self.leave(victim_host, victim)
        self._make_room(victim)
        return True

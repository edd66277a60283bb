"""One at a time, and those who ask from different addresses take turns: a flood from one address delays no other by much.

Knows neither calls nor passwords. Runs on the event loop.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque

from metasrv.model.errors import OverloadedError


class FairTurns:
    """A turn at something of which only one goes on at a time; `what` names those who wait in refusals."""

    def __init__(self, what: str, waiting_max: int) -> None:
        self._what = what
        self._waiting_max = waiting_max
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        """Who waits, by origin; the origin whose turn is next comes first."""
        self._count = 0
        self._taken = False

    async def take(self, origin: str) -> None:
        """Wait for a turn, which `give_back` ends. Raises OverloadedError when too many wait."""
        if not self._taken:
            self._taken = True
            return
        if self._count >= self._waiting_max:
            self._make_room(origin)
        ticket = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(origin, deque()).append(ticket)
        self._count += 1
        try:
            await ticket
        except asyncio.CancelledError:
            if ticket.cancelled():
                self._remove(origin, ticket)
            else:
                self.give_back()  # the turn had come at the same moment
            raise

    def give_back(self) -> None:
        """End a turn; the next origin has its own."""
        if not self._waiting:
            self._taken = False
            return
        origin, tickets = next(iter(self._waiting.items()))
        self._waiting.move_to_end(origin)
        ticket = tickets[0]
        self._remove(origin, ticket)
        if ticket.done():
            self.give_back()  # cancelled, and not yet told
        else:
            ticket.set_result(None)

    def _make_room(self, origin: str) -> None:
        """Refuse the newest of those who wait most often, unless `origin` is one of them itself."""
        own = len(self._waiting.get(origin, ()))
        largest = max(self._waiting, key=lambda name: len(self._waiting[name]))
        refusal = OverloadedError(f"{self._waiting_max} {self._what}, the limit")
        if len(self._waiting[largest]) <= own + 1:
            raise refusal
        ticket = self._waiting[largest][-1]
        self._remove(largest, ticket)
        if not ticket.done():
            ticket.set_exception(refusal)

    def _remove(self, origin: str, ticket: asyncio.Future[None]) -> None:
        tickets = self._waiting.get(origin)
        if tickets is None or ticket not in tickets:
            return
        tickets.remove(ticket)
        self._count -= 1
        if not tickets:
            del self._waiting[origin]

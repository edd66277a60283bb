"""Shares the event loop's time among the connections of one server, so that no client holds the loop or another client.

What arrives is handled at once while the present turn has time left. Work that is over its slice waits in a queue, and
each turn serves the queue from its head; between two turns everything else on the loop runs. Who used little of the last
second goes first. Runs on the event loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from time import perf_counter
from typing import Protocol

TURN_SECONDS = 0.002
"""What all connections together may use before the rest of the loop has its turn."""
SLICE_SECONDS = 0.001
"""What one connection may use before the next one has its turn."""
LIGHT_SECONDS = 0.005
"""Who used no more within a second goes before the others."""
PERIOD_SECONDS = 1.0


class Worker(Protocol):
    """A connection with work that waits."""

    share: Share

    def work(self) -> bool:
        """Work until the turn's `slice_ends_at`; return whether there is more to do."""


class Share:
    """What one connection has used of the loop."""

    __slots__ = ("is_queued", "period", "used_seconds")

    def __init__(self) -> None:
        self.period = 0
        self.used_seconds = 0.0
        """Within the present period."""
        self.is_queued = False


class Turns:
    """The turns of one server."""

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float] = perf_counter) -> None:
        self._loop = loop
        self.clock = clock
        self.slice_ends_at = 0.0
        """On `clock`; a worker looks at it between two pieces of work."""
        self._turn_ends_at = 0.0
        self._is_turn = False
        self._light: deque[Worker] = deque()
        self._heavy: deque[Worker] = deque()

    def work(self, worker: Worker) -> bool:
        """Let a connection work now, if there is time; return whether it now waits for a later turn."""
        share = worker.share
        if share.is_queued:
            return True
        now = self.clock()
        if not self._is_turn:
            self._begin(now)
        if now >= self._turn_ends_at:
            self._queue(worker, now)
            return True
        if self._slice(worker, now):
            self._queue(worker, now)
        return share.is_queued

    def wait(self, worker: Worker) -> None:
        """Let a connection work in a later turn."""
        if not worker.share.is_queued:
            now = self.clock()
            if not self._is_turn:
                self._begin(now)
            self._queue(worker, now)

    def _begin(self, now: float) -> None:
        self._is_turn = True
        self._turn_ends_at = now + TURN_SECONDS
        self._loop.call_soon(self._next)

    def _next(self) -> None:
        """The rest of the loop has had its turn."""
        self._is_turn = False
        if not self._light and not self._heavy:
            return
        now = self.clock()
        self._begin(now)
        # One of the others is served in each turn, however many light ones there are.
        heavy_first = bool(self._heavy)
        while now < self._turn_ends_at and (self._light or self._heavy):
            queue = self._heavy if self._heavy and (heavy_first or not self._light) else self._light
            heavy_first = False
            worker = queue.popleft()
            worker.share.is_queued = False
            if self._slice(worker, now):
                self._queue(worker, now)
            now = self.clock()

    def _slice(self, worker: Worker, now: float) -> bool:
        self.slice_ends_at = now + SLICE_SECONDS
        more = worker.work()
        share = worker.share
        period = int(now / PERIOD_SECONDS)
        if share.period != period:
            share.period, share.used_seconds = period, 0.0
        share.used_seconds += self.clock() - now
        return more

    def _queue(self, worker: Worker, now: float) -> None:
        share = worker.share
        share.is_queued = True
        is_light = share.used_seconds <= LIGHT_SECONDS or share.period != int(now / PERIOD_SECONDS)
        (self._light if is_light else self._heavy).append(worker)

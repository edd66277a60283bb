"""Which barrier a read of a gateway waits for: as few barriers as a read can do with.

A read may rest on a barrier that leaves after the read began. All that begin in one turn of the loop share one, and so do
all that begin while another barrier is under way: theirs leaves when that one is answered, as consensus would do with
it, or after `HOLD_SECONDS` if the answer takes longer. Knows no message. Runs on the gateway's event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import NamedTuple

HOLD_SECONDS = 0.002
"""A read waits no longer than this for the answer to a barrier on which it cannot rest."""


class Barrier(NamedTuple):
    """One that reads wait for."""

    number: int
    timeout_ms: int


class SharedBarriers:
    """The barriers of one kind. `send` puts one among the messages of this turn; call `left` when they are written."""

    def __init__(self, numbers: Iterator[int], send: Callable[[Barrier], None]) -> None:
        self._numbers = numbers
        self._send = send
        self._loop = asyncio.get_running_loop()
        self._joinable: Barrier | None = None
        """The newest one that has not left."""
        self._held: list[Barrier] = []
        self._leaving: list[int] = []
        self._under_way: set[int] = set()
        """Numbers of those that have left and are not answered."""
        self._timer: asyncio.TimerHandle | None = None

    def join(self, timeout_ms: int) -> Barrier:
        """A barrier for a read that begins now; who may wait longer is not bound to a shorter wait."""
        barrier = self._joinable
        if barrier is not None and timeout_ms <= barrier.timeout_ms:
            return barrier
        barrier = self._joinable = Barrier(next(self._numbers), timeout_ms)
        self._held.append(barrier)
        if not self._under_way:
            self._release()
        elif self._timer is None:
            self._timer = self._loop.call_later(HOLD_SECONDS, self._release)
        return barrier

    def left(self) -> None:
        """What was sent is written: no read may join it any more, because the node might have begun."""
        self._under_way.update(self._leaving)
        self._leaving.clear()
        if not self._held:
            self._joinable = None

    def answered(self, number: int) -> None:
        """The node has answered a barrier, or nobody waits for it any more."""
        self._under_way.discard(number)
        if self._held and not self._under_way:
            self._release()

    def _release(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for barrier in self._held:
            self._leaving.append(barrier.number)
            self._send(barrier)
        self._held.clear()

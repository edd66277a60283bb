"""The slowest and the largest writes of the last minutes, as the clients of this node had them.

A fixed number of each minute is kept. A write that is neither slow nor large costs three comparisons. Values are never
kept, keys are shortened. Must not know requests: what a write was is asked for only when it is kept. Runs on the event
loop.
"""

from __future__ import annotations

import heapq
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

from metasrv.model.limits import (
    SLOW_WRITE_KEY_CHARACTERS_MAX,
    SLOW_WRITE_KEYS_MAX,
    SLOW_WRITES_KEPT_MAX,
    SLOW_WRITES_MINUTES_MAX,
)

MINUTE_SECONDS = 60.0
CUT = "…"


class Written(NamedTuple):
    """What a write was about."""

    keys: tuple[str, ...]
    """The first of them."""
    operations: int
    """How many it has; 0 where that is not known."""


class SlowWrite(NamedTuple):
    """One write."""

    ended_at_ms: int
    """Wall clock."""
    seconds: float
    """From the request's arrival to the answer."""
    size_bytes: int
    """The size of the request."""
    method: str
    written: Written
    failure: str | None
    """Why it failed, in a word; None for one that was done."""


class _Minute:
    """The best of one minute, in heaps whose first member is the least."""

    __slots__ = ("largest", "slowest")

    def __init__(self) -> None:
        self.slowest: list[tuple[float, int, SlowWrite]] = []
        self.largest: list[tuple[float, int, SlowWrite]] = []


class SlowWrites:
    """Asked with each write; `clock` has the seconds that a write's end is told in."""

    def __init__(
        self,
        clock: Callable[[], float] = time.perf_counter,
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._clock = clock
        self._wall_ms = wall_ms
        self._minutes: deque[tuple[int, _Minute]] = deque(maxlen=SLOW_WRITES_MINUTES_MAX)
        self._minute_ends = self._seconds_least = self._size_least = float("-inf")
        """Until when the newest minute lasts, and what a write must exceed to be kept in it."""
        self._count = 0

    def note(
        self,
        ended: float,
        seconds: float,
        size_bytes: int,
        method: str,
        describe: Callable[[], Written],
        failure: str | None,
    ) -> None:
        """A write has ended; `describe` is called if it is kept."""
        if seconds <= self._seconds_least and size_bytes <= self._size_least and ended < self._minute_ends:
            return
        minute = self._minute_of(ended)
        self._count += 1
        keys, operations = describe()
        shortened = tuple(_shortened(key) for key in keys[:SLOW_WRITE_KEYS_MAX])
        write = SlowWrite(self._wall_ms(), seconds, size_bytes, method, Written(shortened, operations), failure)
        self._seconds_least = _keep(minute.slowest, (seconds, self._count, write))
        self._size_least = _keep(minute.largest, (float(size_bytes), self._count, write))

    def slowest(self) -> list[SlowWrite]:
        """The slowest of all minutes, the slowest first."""
        return _best(heap for minute in self._newest() for heap in minute.slowest)

    def largest(self) -> list[SlowWrite]:
        """The largest of all minutes, the largest first."""
        return _best(heap for minute in self._newest() for heap in minute.largest)

    def _minute_of(self, ended: float) -> _Minute:
        number = int(ended // MINUTE_SECONDS)
        if not self._minutes or self._minutes[-1][0] < number:
            self._minutes.append((number, _Minute()))
            self._minute_ends = (number + 1) * MINUTE_SECONDS
        return self._minutes[-1][1]

    def _newest(self) -> Iterator[_Minute]:
        """Those that are not too old: a node without writes begins no new minute."""
        oldest = int(self._clock() // MINUTE_SECONDS) - SLOW_WRITES_MINUTES_MAX
        return (minute for number, minute in self._minutes if number > oldest)


def _keep(heap: list[tuple[float, int, SlowWrite]], member: tuple[float, int, SlowWrite]) -> float:
    """Keep it if it is among the best; returns what the next one must exceed."""
    if len(heap) < SLOW_WRITES_KEPT_MAX:
        heapq.heappush(heap, member)
    elif member[0] > heap[0][0]:
        heapq.heapreplace(heap, member)
    return heap[0][0] if len(heap) == SLOW_WRITES_KEPT_MAX else float("-inf")


def _best(found: Iterator[tuple[float, int, SlowWrite]]) -> list[SlowWrite]:
    return [write for _, _, write in heapq.nlargest(SLOW_WRITES_KEPT_MAX, found)]


def _shortened(key: str) -> str:
    return key if len(key) <= SLOW_WRITE_KEY_CHARACTERS_MAX else key[: SLOW_WRITE_KEY_CHARACTERS_MAX - 1] + CUT

"""Finds what holds the event loop: times steps where they begin, and reports how long each took.

uvloop does not tell how long a callback ran, so the places where work begins measure it themselves: `StepLaps` for a step
of several parts, `timed` for a coroutine, from one wait to the next. The seconds include those in which the machine gave
the processor to somebody else. Nothing is decided by them, so they are not read from the node's `Clock`. Runs on the
event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from time import perf_counter
from types import coroutine
from typing import Any, TypeVar

from metasrv.model.limits import STEP_TIME_MS_MAX
from metasrv.model.loop_work import LoopWork

T = TypeVar("T")

STEP_SECONDS_MAX = STEP_TIME_MS_MAX / 1000

StepTook = Callable[[LoopWork, float], None]
"""Is told the kind of work and the seconds of each step; one that took longer than `STEP_SECONDS_MAX` is slow."""


class StepLaps:
    """Times the parts of a step, which is reported with the kind of its longest part."""

    __slots__ = ("_begun_at", "_lap_at", "_longest", "_longest_seconds", "_took")

    def __init__(self, took: StepTook) -> None:
        self._took = took
        self._begun_at = self._lap_at = 0.0
        self._longest = LoopWork.RAFT_TICK
        self._longest_seconds = 0.0

    def begin(self) -> None:
        self._begun_at = self._lap_at = perf_counter()
        self._longest_seconds = 0.0

    def lap(self, work: LoopWork) -> None:
        """What was done since the last call was `work`."""
        now = perf_counter()
        seconds = now - self._lap_at
        self._lap_at = now
        if seconds > self._longest_seconds:
            self._longest, self._longest_seconds = work, seconds

    def end(self) -> None:
        """The last lap ended the step."""
        self._took(self._longest, self._lap_at - self._begun_at)


@coroutine
def timed(work: LoopWork, took: StepTook, measured: Coroutine[Any, Any, T]) -> Generator[Any, Any, T]:
    """Await `measured`, and report each stretch between two of its waits."""
    value: Any = None
    error: BaseException | None = None
    while True:
        started = perf_counter()
        try:
            waits_for = measured.send(value) if error is None else measured.throw(error)
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            took(work, perf_counter() - started)
        value = error = None
        try:
            value = yield waits_for
        except GeneratorExit:
            measured.close()
            raise
        except BaseException as thrown:
            error = thrown

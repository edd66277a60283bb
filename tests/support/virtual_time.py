"""Event loops for unit tests: one on virtual time, and one that notices when a test waits for real time."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable

Events = list[tuple[selectors.SelectorKey, int]]

WAITED_SECONDS_MIN = 0.001
"""A shorter wait is the rounding of a timer that is due."""


class _Selector(selectors.DefaultSelector):
    """Hands each wait that would end with a timer to `wait`."""

    wait: Callable[[float], Events]

    def select(self, timeout: float | None = None) -> Events:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        return self.wait(timeout)

    def really_select(self, timeout: float | None) -> Events:
        return super().select(timeout)


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Time passes only when nothing is left to do, and then at once to the next timer.

    Not for tests whose work is done by another thread: the loop would take their answer for late.
    """

    def __init__(self) -> None:
        selector = _Selector()
        selector.wait = self._jump
        self._selector_of_test = selector
        self._now = 0.0
        super().__init__(selector)

    def time(self) -> float:
        return self._now

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Wait for the threads as long as they need: this loop would jump to the end of a timeout, as Python 3.13 has."""
        del timeout
        await super().shutdown_default_executor()

    def _jump(self, seconds: float) -> Events:
        events = self._selector_of_test.really_select(0)
        if not events:
            self._now += seconds
        return events


class RealTimeLoop(asyncio.SelectorEventLoop):
    """Asyncio's loop, which remembers whether it slept until a timer; answers of other threads may be waited for."""

    slept_seconds = 0.0
    """By all loops of this process together, since somebody set it to zero."""

    def __init__(self) -> None:
        selector = _Selector()
        selector.wait = self._wait
        self._selector_of_test = selector
        super().__init__(selector)

    def _wait(self, seconds: float) -> Events:
        events = self._selector_of_test.really_select(seconds)
        if not events and seconds >= WAITED_SECONDS_MIN:
            RealTimeLoop.slept_seconds += seconds
        return events

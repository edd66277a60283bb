"""Virtual time: everything that happens in a simulation happens in one queue, in the order of its time.

Events of the same time run in the order in which they were scheduled. Knows nothing of processes or networks.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

Action = Callable[[], Any]


class Event:
    """One thing that is due; `cancel` makes it never happen."""

    __slots__ = ("action",)

    def __init__(self, action: Action) -> None:
        self.action: Action | None = action

    def cancel(self) -> None:
        self.action = None


class Scheduler:
    """The queue and the present moment, in seconds."""

    def __init__(self) -> None:
        self.now = 0.0
        self.events = 0
        """Events that have happened."""
        self._queue: list[tuple[float, int, Event]] = []
        self._sequence = 0

    def at(self, when: float, action: Action) -> Event:
        """Have `action` called at a time; a time in the past is the present."""
        event = Event(action)
        self._sequence = sequence = self._sequence + 1
        heapq.heappush(self._queue, (when if when > self.now else self.now, sequence, event))
        return event

    def after(self, seconds: float, action: Action) -> Event:
        return self.at(self.now + seconds, action)

    def run(self, until: float, stopped: Callable[[], bool]) -> bool:
        """Let events happen until `stopped`; False when time `until` came first, or nothing is due any more."""
        queue, pop = self._queue, heapq.heappop
        while not stopped():
            if not queue or queue[0][0] > until:
                self.now = until
                return False
            self.now, _, event = pop(queue)
            action = event.action
            if action is not None:
                self.events += 1
                action()
        return True

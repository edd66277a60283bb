"""Virtual time: one queue holds everything that will happen in a simulation, in the order of its time.

Events of the same time run in the order in which they were scheduled. Knows nothing of processes or networks.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from typing import Any

Action = Callable[..., Any]

EVENTS_MAX = 5_000_000
"""Events of one simulation, some hundred times the usual; past it something loops, perhaps without time passing."""


class Scheduler:
    """The queue and the present moment, in seconds."""

    def __init__(self) -> None:
        self.now = 0.0
        self.events = 0
        """Number of events so far."""
        self._queue: list[tuple[float, int, Action, tuple[Any, ...]]] = []
        """Events of later times, as a heap."""
        self._present: deque[tuple[Action, tuple[Any, ...]]] = deque()
        """Events of this moment, in the order in which they were added; most events are of this kind."""
        self._sequence = 0

    def at(self, when: float, action: Action, *args: Any) -> None:
        """Call `action` at a time; a time in the past means now."""
        if when <= self.now:
            self._present.append((action, args))
            return
        self._sequence = sequence = self._sequence + 1
        heapq.heappush(self._queue, (when, sequence, action, args))

    def after(self, seconds: float, action: Action, *args: Any) -> None:
        self.at(self.now + seconds, action, *args)

    def run(self, until: float, stopped: Callable[[], bool]) -> bool:
        """Run events until `stopped`; False when time `until` or `EVENTS_MAX` came first, or no event is left."""
        queue, present, pop = self._queue, self._present, heapq.heappop
        while not stopped():
            # Events in the heap for this moment were scheduled before those in `present`.
            if queue and queue[0][0] <= self.now:
                _, _, action, args = pop(queue)
            elif present:
                action, args = present.popleft()
            elif queue and queue[0][0] <= until:
                self.now, _, action, args = pop(queue)
            else:
                self.now = until
                return False
            self.events += 1
            if self.events > EVENTS_MAX:
                return False
            action(*args)
        return True

"""The newest events of this node, in bounded memory; whoever wants to know of new ones is called.

Recording costs a tuple and happens seldom, never for each request. Knows nothing of where events come from or who reads
them. Runs on the event loop.
"""

from __future__ import annotations

import logging
import secrets
from collections import deque
from collections.abc import Callable

from metasrv.model.events import Event, EventKind, Severity
from metasrv.model.limits import EVENT_TEXT_CHARACTERS_MAX, EVENTS_KEPT_MAX
from metasrv.process.clock import Clock

logger = logging.getLogger("metasrv.events")

LOG_LEVELS = {Severity.INFO: logging.INFO, Severity.WARNING: logging.WARNING, Severity.CRITICAL: logging.ERROR}
"""The level of the line that tells of an event."""


class EventRing:
    """Keeps `EVENTS_KEPT_MAX` events of one run of one node."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._events: deque[Event] = deque(maxlen=EVENTS_KEPT_MAX)
        self._last = 0
        self._term: int | None = None
        """The newest that an event told."""
        self.node_id: int | None = None
        """Whose events these are, for the lines of the log; set by the composition root."""
        self.incarnation = secrets.token_hex(4)
        """Names this run of the node: numbers begin again at 1 with the next one."""
        self.on_event: Callable[[Event], None] = lambda _event: None
        """Called with each new event, after it was kept."""

    @property
    def last_number(self) -> int:
        """Number of the newest event, 0 before the first."""
        return self._last

    def record(self, kind: EventKind, severity: Severity, text: str, term: int | None = None) -> None:
        """Keep an event of this moment; a long text is cut."""
        self._last += 1
        self._term = self._term if term is None else term
        event = Event(
            self._last, self._clock.wall_ms(), kind.value, severity.value, text[:EVENT_TEXT_CHARACTERS_MAX], term
        )
        self._events.append(event)
        self.on_event(event)

    def tell(self, kind: EventKind, severity: Severity, text: str, term: int | None = None) -> None:
        """Keep an event that nobody else logs, and write it as one line of the log, with the node and the term."""
        self.record(kind, severity, text, term)
        logger.log(LOG_LEVELS[severity], "%s: %s", kind.value, text, extra={"node": self.node_id, "term": self._term})

    def after(self, number: int, limit: int = EVENTS_KEPT_MAX) -> tuple[Event, ...]:
        """The newest `limit` events with a larger number, oldest first."""
        if number >= self._last:
            return ()
        newer = tuple(event for event in self._events if event.number > number)
        return newer[-limit:]

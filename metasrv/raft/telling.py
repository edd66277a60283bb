"""Tells one thing that happened: a line in this node's log and an event, with the same words.

Must not know what is told. Runs on the event loop, seldom.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from metasrv.model.events import EventKind, Severity
from metasrv.process.event_ring import LOG_LEVELS, EventRing

logger = logging.getLogger("metasrv.raft.story")


class Telling:
    """One node's telling; `term` gives the present one."""

    def __init__(self, node_id: int, events: EventRing, term: Callable[[], int]) -> None:
        self.node_id = node_id
        self._events = events
        self._term = term

    def tell(self, kind: EventKind, severity: Severity, text: str, term: int | None = None) -> None:
        """A line and an event, of `term` or the present one."""
        term = self._term() if term is None else term
        self.log(severity, text, term)
        self._events.record(kind, severity, text, term)

    def event(self, kind: EventKind, severity: Severity, text: str, term: int | None = None) -> None:
        """An event whose line somebody else writes."""
        self._events.record(kind, severity, text, self._term() if term is None else term)

    def log(self, severity: Severity, text: str, term: int | None = None) -> None:
        """A line alone: a part of what an event tells, or something that lasts."""
        extra = {"node": self.node_id, "term": self._term() if term is None else term}
        logger.log(LOG_LEVELS[severity], "%s", text, extra=extra)

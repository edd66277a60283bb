"""What the other members told this node of themselves: their last summary, its age, and their events.

They are asked at a slow pace, only while somebody looks, all at once and each with a time limit. The last summary of a
member that is silent is kept. A member of a release without the question counts as one that does not answer. Runs on
the event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable

from metasrv.model.errors import MetasrvError
from metasrv.model.events import Event
from metasrv.model.limits import EVENTS_KEPT_MAX
from metasrv.model.summary import NodeSummary, SummaryQuestion
from metasrv.node.context import NodeContext

logger = logging.getLogger(__name__)

ASK_TIMEOUT_MS = 600
FRESH_SECONDS = 6.0
"""A summary that is older is the past."""


class KnownNode:
    """One other member."""

    def __init__(self) -> None:
        self.summary: NodeSummary | None = None
        self.told_at = float("-inf")
        """Monotonic seconds of that summary."""
        self.answers = False
        """Whether it answered when it was last asked."""
        self.round_trip_ms: float | None = None
        self.incarnation = ""
        self.events: deque[tuple[str, Event]] = deque(maxlen=EVENTS_KEPT_MAX)
        """With the incarnation that numbers them."""

    def is_fresh(self, now: float) -> bool:
        return now - self.told_at <= FRESH_SECONDS

    @property
    def last_number(self) -> int:
        """Number of the newest event of the present incarnation."""
        return self.events[-1][1].number if self.events and self.events[-1][0] == self.incarnation else 0


class KnownNodes:
    """All other members, and those that were some."""

    def __init__(self, context: NodeContext, on_event: Callable[[int, str, Event], None]) -> None:
        """`on_event(node_id, incarnation, event)` is called with each new event of another node."""
        self._context = context
        self._on_event = on_event
        self._nodes: dict[int, KnownNode] = {}
        self.asked_at = float("-inf")
        """Monotonic seconds of the end of the last round."""

    def get(self, node_id: int) -> KnownNode:
        """What is known; empty for a node that never answered."""
        return self._nodes.get(node_id) or KnownNode()

    def all(self) -> dict[int, KnownNode]:
        return self._nodes

    async def ask(self, members: Iterable[int]) -> None:
        """One round; what is not answered is not known, and no error."""
        wanted = set(members)
        for gone in self._nodes.keys() - wanted:
            del self._nodes[gone]
        await asyncio.gather(*(self._ask_one(node_id) for node_id in sorted(wanted)))
        self.asked_at = self._context.clock.monotonic()

    async def _ask_one(self, node_id: int) -> None:
        clock, node = self._context.clock, self._nodes.setdefault(node_id, KnownNode())
        begun = clock.monotonic()
        try:
            question = SummaryQuestion(node.incarnation, node.last_number)
            summary, incarnation, events = await self._context.ask_summary(node_id, question, ASK_TIMEOUT_MS)
        except MetasrvError as error:
            node.answers = False
            logger.debug("node %d tells nothing of itself: %s", node_id, error)
            return
        if summary.node_id != node_id:
            logger.debug("node %d answers as node %d, which does not count", node_id, summary.node_id)
            return
        node.answers, node.told_at = True, clock.monotonic()
        node.round_trip_ms = round((node.told_at - begun) * 1000, 2)
        node.summary, node.incarnation = summary, incarnation
        for event in events:
            node.events.append((incarnation, event))
            self._on_event(node_id, incarnation, event)

"""The events of all members as one list, by time: this node's own, and what the others told.

Every node tells of the members that come and go; the same sentence of several nodes within a few seconds is shown once.
Clocks may differ, so the order across nodes is as good as they are. Pure but for what it is given.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

from metasrv.console.known_nodes import KnownNodes
from metasrv.model.events import Event, EventKind
from metasrv.process.event_ring import EventRing

SAME_WITHIN_MS = 10_000
SHARED_KINDS = frozenset({EventKind.JOIN.value, EventKind.LEAVE.value})
"""Kinds that every node tells of in the same words."""
_REMEMBERED_MAX = 64


class TaggedEvent(NamedTuple):
    """An event with the node that tells it."""

    node_id: int
    incarnation: str
    event: Event

    def view(self) -> dict[str, Any]:
        """The shape of `/v1/events`."""
        number, time_ms, kind, severity, text, term = self.event
        return {
            "id": f"{self.node_id}-{self.incarnation}-{number}",
            "time_ms": time_ms,
            "node_id": self.node_id,
            "kind": kind,
            "severity": severity,
            "text": text,
            "term": term,
        }


class Repetitions:
    """Finds events that another node has told already."""

    def __init__(self) -> None:
        self._told: deque[tuple[str, str, int]] = deque(maxlen=_REMEMBERED_MAX)

    def is_told(self, event: Event) -> bool:
        """Whether it was told; if not, it is from now on."""
        if event.kind not in SHARED_KINDS:
            return False
        for kind, text, time_ms in self._told:
            if kind == event.kind and text == event.text and abs(event.time_ms - time_ms) <= SAME_WITHIN_MS:
                return True
        self._told.append((event.kind, event.text, event.time_ms))
        return False


def merged(
    own_id: int, own: EventRing, known: KnownNodes, since_ms: int, limit: int, only_node: int | None
) -> list[dict[str, Any]]:
    """The newest `limit` events from `since_ms` on, newest last."""
    found = sorted(
        _all(own_id, own, known), key=lambda tagged: (tagged.event.time_ms, tagged.node_id, tagged.event.number)
    )
    repetitions = Repetitions()
    kept = [tagged for tagged in found if not repetitions.is_told(tagged.event)]
    wanted = [
        tagged
        for tagged in kept
        if tagged.event.time_ms >= since_ms and (only_node is None or tagged.node_id == only_node)
    ]
    return [tagged.view() for tagged in wanted[-limit:]]


def _by_time(tagged: TaggedEvent) -> tuple[int, int, int]:
    return tagged.event.time_ms, tagged.node_id, tagged.event.number


def _all(own_id: int, own: EventRing, known: KnownNodes) -> Iterator[TaggedEvent]:
    for event in own.after(0):
        yield TaggedEvent(own_id, own.incarnation, event)
    for node_id, node in known.all().items():
        for incarnation, event in node.events:
            yield TaggedEvent(node_id, incarnation, event)

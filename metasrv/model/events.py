"""What happens to a node and is worth telling: kinds, severities, and one event.

Shown by the console, by `/v1/events` and by `metactl events`; nodes tell each other theirs. Pure; runs anywhere.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class EventKind(StrEnum):
    """What an event is about."""

    START = "start"
    STOP = "stop"
    ELECTION = "election"
    """A voter begins an election, with the reason."""
    LEADER = "leader"
    """A node learns who leads."""
    STEP_DOWN = "step_down"
    QUORUM = "quorum"
    """A node hears no majority of the voters any more."""
    PEER = "peer"
    """A leader no longer hears a member, or hears it again."""
    JOIN = "join"
    LEAVE = "leave"
    SNAPSHOT = "snapshot"
    SLOW_STEP = "slow_step"
    """Something held the event loop of the node."""
    REFUSED_CLIENT = "refused_client"
    GATEWAY = "gateway"
    """A process that serves clients has ended."""
    CONFIGURATION = "configuration"
    DISK = "disk"
    CLOCK = "clock"
    COPY = "copy"
    """A copy of the state is damaged, or not the same as another one."""


class Severity(StrEnum):
    """How urgently somebody should look."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


class Event(NamedTuple):
    """One thing that happened, on the node that tells it."""

    number: int
    """Counts the events of one run of the node, from 1."""
    time_ms: int
    """Wall clock of the node."""
    kind: str
    """An `EventKind`; text, because a newer node may tell of kinds that this one does not know."""
    severity: str
    text: str
    term: int | None = None

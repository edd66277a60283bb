"""What a node knows about its own copy of the state and about those of the others; `damage.py` fills it.

A plain holder, read by status, readiness, metrics and the client port.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class CopyFindings:
    """For status, readiness and metrics."""

    damage: str = ""
    """What is wrong with this node's copy, as one sentence; it is empty while nothing is known."""
    serves: bool = True
    """False while the copy is damaged and another voter has a good one."""
    peers: dict[int, str] = field(default_factory=dict)
    """What is wrong between this node's copy and another one's, or with that one's, by node."""
    compared_at: float | None = None
    """Monotonic seconds of the last comparison with another node."""
    scrubbed_at: float | None = None
    """Monotonic seconds of the end of the last complete look at this node's own state file."""
    scrubs: int = 0
    """Complete looks since the start."""

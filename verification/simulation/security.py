"""The shared secrets that simulated nodes hold, and what they demand of each other."""

from __future__ import annotations

from metasrv.raft.peers.security import PeerSecurity

_OLD, _NEW = b"the simulated cluster's secret", b"the secret that takes its place"

SECURITIES = ("no secret", "one secret", "secret changes", "secret rolled out")
"""None has a secret; all have the same; half of them demand a new one that all accept; half have none and none is
demanded."""
STRANGER_INCARNATION = "a stranger"
"""The incarnation of every stranger, so that a node that admits one is found out."""
OTHER_CLUSTER = "another cluster"
"""The cluster that strangers name where no secret is demanded."""


def demands_proof(name: str) -> bool:
    """Whether nodes admit only callers that prove a secret."""
    return name in ("one secret", "secret changes")


def lets_strangers_in(name: str, cluster_id: str | None) -> bool:
    """Whether a node that belongs to `cluster_id` cannot tell a stranger: it has not joined and demands no proof."""
    return cluster_id is None and not demands_proof(name)


def security_of(name: str, node_id: int) -> PeerSecurity:
    """What one node proves and demands."""
    even = node_id % 2 == 0
    match name:
        case "no secret":
            return PeerSecurity()
        case "one secret":
            return PeerSecurity(_OLD)
        case "secret changes":
            return PeerSecurity(_NEW, (_NEW,)) if even else PeerSecurity(_OLD, (_NEW,))
        case "secret rolled out":
            return PeerSecurity(_OLD if even else None, strict=False)
    raise ValueError(f"{name!r} is none of {', '.join(SECURITIES)}")

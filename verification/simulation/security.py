"""The shared secrets that simulated nodes hold, and what they demand of each other."""

from __future__ import annotations

from metasrv.raft.peers.security import PeerSecurity

_OLD, _NEW = b"the simulated cluster's secret", b"the secret that takes its place"

SECURITIES = ("no secret", "one secret", "secret changes", "secret rolled out")
"""All nodes hold the same or none; some prove with a new one already; some hold none yet, and none is demanded."""
STRANGER_INCARNATION = "a stranger"
"""In the identity of every stranger: shows which node has admitted one."""
OTHER_CLUSTER = "another cluster"
"""What strangers say that they belong to, where no secret is demanded of them."""


def demands_proof(name: str) -> bool:
    """Whether nodes let nobody in who does not prove a secret."""
    return name in ("one secret", "secret changes")


def lets_strangers_in(name: str, cluster_id: str | None) -> bool:
    """Whether a node of that cluster, or of none yet, has no means to tell a stranger."""
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
            return PeerSecurity(_NEW, (_OLD,)) if even else PeerSecurity(_OLD, (_NEW,))
        case "secret rolled out":
            return PeerSecurity(_OLD if even else None, strict=False)
    raise ValueError(f"{name!r} is none of {', '.join(SECURITIES)}")

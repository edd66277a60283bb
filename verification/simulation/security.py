"""The shared secrets that simulated nodes hold, and what they demand of each other."""

from __future__ import annotations

from metasrv.raft.peers.security import PeerSecurity

_OLD, _NEW = b"the simulated cluster's secret", b"the secret that takes its place"

SECURITIES = ("no secret", "one secret", "secret changes", "secret rolled out")
"""All nodes hold the same or none; some prove with a new one already; some hold none yet, and none is demanded."""
STRANGER_INCARNATION = "a stranger"
"""In the identity of every stranger, which names another cluster too: shows which node has admitted one."""


def lets_strangers_in(name: str, cluster_id: str | None) -> bool:
    """Whether a node of that cluster, or yet of none, may talk to a stranger: it has no means to tell."""
    return cluster_id is None and name in ("no secret", "secret rolled out")


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

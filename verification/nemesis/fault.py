"""What a fault is, and what all kinds of faults need.

Knows the process cluster only from outside. Runs on an event loop.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from metasrv.testing.network import Network
from metasrv.testing.processes import ProcessCluster

HOLD_SECONDS = 1.0
"""How long a node stays down before it is started again."""

Harm = Callable[[ProcessCluster, random.Random], Awaitable[None]]


def _possible() -> str | None:
    return None


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault by name."""

    name: str
    harm: Harm
    why_impossible: Callable[[], str | None] = _possible
    """What this machine lacks for it; None when nothing."""


async def any_follower(cluster: ProcessCluster, source: random.Random) -> int:
    leader = await cluster.wait_for_leader()
    return source.choice([node_id for node_id in sorted(cluster.nodes) if node_id != leader])


async def any_node(cluster: ProcessCluster, source: random.Random) -> int:
    """A random node; the leader half of the time, since most can go wrong there."""
    leader = await cluster.wait_for_leader()
    return leader if source.random() < 0.5 else await any_follower(cluster, source)


def network_of(cluster: ProcessCluster) -> Network:
    if cluster.network is None:
        raise AssertionError("this fault needs a cluster with a breakable network")
    return cluster.network


async def ask(cluster: ProcessCluster, node_id: int, path: str, timeout_s: float = 5.0) -> int:
    """The status code of an admin answer; 0 when the node does not answer, as a fault may cause."""
    try:
        code, _ = await cluster.admin(node_id, path, timeout_s)
    except OSError:
        return 0
    return code

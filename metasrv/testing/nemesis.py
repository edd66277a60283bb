"""Faults for real processes, one at a time, and the cluster whole again after each.

A fault is a coroutine: it harms the cluster while a workload runs, undoes the harm, and returns when the cluster
serves again. The one who calls it measures. Runs on an event loop; knows the process cluster only from outside.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from metasrv.testing.processes import ProcessCluster

HOLD_SECONDS = 1.0
"""How long a node stays down before it is started again."""
PAUSE_SECONDS_MIN = 0.2
PAUSE_SECONDS_MAX = 4.0
ADMIN_REQUESTS = 60
"""Admin requests of one hammering."""

Harm = Callable[[ProcessCluster, random.Random], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault by name."""

    name: str
    harm: Harm


async def kill_leader(cluster: ProcessCluster, source: random.Random) -> None:
    """SIGKILL to the leader; it comes back once another leads."""
    leader = await cluster.wait_for_leader()
    await cluster.kill(leader)
    await cluster.wait_for_leader(other_than=leader)
    cluster.start(leader)


async def kill_follower(cluster: ProcessCluster, source: random.Random) -> None:
    follower = await _follower(cluster, source)
    await cluster.kill(follower)
    await asyncio.sleep(HOLD_SECONDS)
    cluster.start(follower)


async def kill_majority(cluster: ProcessCluster, source: random.Random) -> None:
    nodes = sorted(cluster.nodes)
    victims = source.sample(nodes, len(nodes) // 2 + 1)
    await cluster.kill(*victims)
    await asyncio.sleep(HOLD_SECONDS)
    for node_id in victims:
        cluster.start(node_id)


async def kill_all(cluster: ProcessCluster, source: random.Random) -> None:
    """SIGKILL to every node at once; they come back in any order."""
    nodes = sorted(cluster.nodes)
    await cluster.kill(*nodes)
    source.shuffle(nodes)
    for node_id in nodes:
        cluster.start(node_id)


async def kill_while_starting(cluster: ProcessCluster, source: random.Random) -> None:
    """A node that dies again and again while it opens its files and catches up."""
    follower = await _follower(cluster, source)
    await cluster.kill(follower)
    for _ in range(3):
        cluster.start(follower)
        await asyncio.sleep(source.uniform(0.2, 1.5))
        await cluster.kill(follower)
    cluster.start(follower)


async def pause_leader(cluster: ProcessCluster, source: random.Random) -> None:
    """SIGSTOP to the leader, often longer than an election takes: the finder of stale reads."""
    await _pause(cluster, await cluster.wait_for_leader(), source)


async def pause_follower(cluster: ProcessCluster, source: random.Random) -> None:
    await _pause(cluster, await _follower(cluster, source), source)


async def pause_all(cluster: ProcessCluster, source: random.Random) -> None:
    """All nodes stop at different moments and resume in another order."""
    nodes = sorted(cluster.nodes)
    for node_id in source.sample(nodes, len(nodes)):
        cluster.pause(node_id)
        await asyncio.sleep(source.uniform(0.0, 0.3))
    for node_id in source.sample(nodes, len(nodes)):
        cluster.resume(node_id)
        await asyncio.sleep(source.uniform(0.0, 0.5))


async def rolling_restart(cluster: ProcessCluster, source: random.Random) -> None:
    """A clean stop and start of each node, as in an upgrade."""
    for node_id in sorted(cluster.nodes):
        await cluster.restart(node_id)


async def transfer_leadership(cluster: ProcessCluster, source: random.Random) -> None:
    """Several hand-overs in a row, some to a node that can not take it."""
    for _ in range(4):
        leader = await cluster.wait_for_leader()
        target = source.choice([*sorted(cluster.nodes), 99])
        await _ask(cluster, leader, f"/v1/ctrl/trigger_transfer_leader?to={target}")
        await asyncio.sleep(source.uniform(0.05, 0.5))


async def hammer_admin(cluster: ProcessCluster, source: random.Random) -> None:
    """Snapshots, metrics and status on every node at once."""
    paths = ["/v1/ctrl/trigger_snapshot", "/v1/metrics", "/v1/cluster/status"]
    nodes = sorted(cluster.nodes)
    requests = [_ask(cluster, source.choice(nodes), source.choice(paths)) for _ in range(ADMIN_REQUESTS)]
    await asyncio.gather(*requests)


async def lag_behind(cluster: ProcessCluster, source: random.Random) -> None:
    """A follower misses so much that it needs a snapshot, and another is killed while it is sent."""
    follower = await _follower(cluster, source)
    await cluster.kill(follower)
    await asyncio.sleep(2 * HOLD_SECONDS)
    cluster.start(follower)
    await asyncio.sleep(source.uniform(0.3, 1.5))
    await cluster.kill(follower)
    cluster.start(follower)


FAULTS = [
    Fault("kill -9 the leader", kill_leader),
    Fault("kill -9 a follower", kill_follower),
    Fault("kill -9 a majority", kill_majority),
    Fault("kill -9 all nodes", kill_all),
    Fault("kill -9 while starting", kill_while_starting),
    Fault("pause the leader", pause_leader),
    Fault("pause a follower", pause_follower),
    Fault("pause all nodes", pause_all),
    Fault("rolling restart", rolling_restart),
    Fault("transfer leadership", transfer_leadership),
    Fault("snapshots and status", hammer_admin),
    Fault("lag, snapshot, kill", lag_behind),
]


async def inflict(fault: Fault, cluster: ProcessCluster, source: random.Random) -> None:
    """One fault, then wait until every node runs and agrees on a leader."""
    await fault.harm(cluster, source)
    for node_id, node in cluster.nodes.items():
        if node.paused:
            cluster.resume(node_id)
        if not node.is_running:
            raise AssertionError(f"node {node_id} ended by itself\n{cluster.logs(node_id)}")
    await cluster.wait_for_leader(members=len(cluster.nodes))


async def _follower(cluster: ProcessCluster, source: random.Random) -> int:
    leader = await cluster.wait_for_leader()
    return source.choice([node_id for node_id in sorted(cluster.nodes) if node_id != leader])


async def _pause(cluster: ProcessCluster, node_id: int, source: random.Random) -> None:
    cluster.pause(node_id)
    await asyncio.sleep(source.uniform(PAUSE_SECONDS_MIN, PAUSE_SECONDS_MAX))
    cluster.resume(node_id)


async def _ask(cluster: ProcessCluster, node_id: int, path: str) -> int:
    """The code of an admin answer; 0 when the node does not answer, which a fault may bring about."""
    try:
        code, _ = await cluster.admin(node_id, path)
    except OSError:
        return 0
    return code

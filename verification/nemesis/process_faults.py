"""Nodes that die, stop for a while, or are restarted. Runs on an event loop."""

from __future__ import annotations

import asyncio
import random
import signal

from metasrv.testing.processes import ProcessCluster
from verification.nemesis.fault import HOLD_SECONDS, Fault, any_follower, any_node

PAUSE_SECONDS_MIN = 0.2
PAUSE_SECONDS_MAX = 4.0


async def kill_leader(cluster: ProcessCluster, source: random.Random) -> None:
    """SIGKILL to the leader; it comes back once another leads."""
    leader = await cluster.wait_for_leader()
    await cluster.kill(leader)
    await cluster.wait_for_leader(other_than=leader)
    cluster.start(leader)


async def kill_follower(cluster: ProcessCluster, source: random.Random) -> None:
    follower = await any_follower(cluster, source)
    await cluster.kill(follower)
    await asyncio.sleep(HOLD_SECONDS)
    cluster.start(follower)


async def kill_random_again_and_again(cluster: ProcessCluster, source: random.Random) -> None:
    """Kill and restart random nodes at once, several times in a row, before the cluster has come to rest."""
    for _ in range(4):
        victim = source.choice(sorted(cluster.nodes))
        await cluster.kill(victim)
        cluster.start(victim)
        await asyncio.sleep(source.uniform(0.2, 1.0))


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


async def kill_all_in_turn(cluster: ProcessCluster, source: random.Random) -> None:
    """Kill each node while the one before it starts: nothing is remembered except on disk."""
    for node_id in source.sample(sorted(cluster.nodes), len(cluster.nodes)):
        await cluster.kill(node_id)
        cluster.start(node_id)
        await asyncio.sleep(source.uniform(0.1, 0.6))


async def kill_while_starting(cluster: ProcessCluster, source: random.Random) -> None:
    """A node that dies again and again while it opens its files and catches up."""
    follower = await any_follower(cluster, source)
    await cluster.kill(follower)
    for _ in range(3):
        cluster.start(follower)
        await asyncio.sleep(source.uniform(0.2, 1.5))
        await cluster.kill(follower)
    cluster.start(follower)


async def lag_behind(cluster: ProcessCluster, source: random.Random) -> None:
    """Make a follower lag until it needs a snapshot, and kill it while the snapshot is sent."""
    follower = await any_follower(cluster, source)
    await cluster.kill(follower)
    await asyncio.sleep(2 * HOLD_SECONDS)
    cluster.start(follower)
    await asyncio.sleep(source.uniform(0.3, 1.5))
    await cluster.kill(follower)
    cluster.start(follower)


async def pause_leader(cluster: ProcessCluster, source: random.Random) -> None:
    """SIGSTOP to the leader, often longer than an election takes: finds stale reads."""
    await _pause(cluster, await cluster.wait_for_leader(), source.uniform(PAUSE_SECONDS_MIN, PAUSE_SECONDS_MAX))


async def pause_follower(cluster: ProcessCluster, source: random.Random) -> None:
    await _pause(cluster, await any_follower(cluster, source), source.uniform(PAUSE_SECONDS_MIN, PAUSE_SECONDS_MAX))


async def pause_all(cluster: ProcessCluster, source: random.Random) -> None:
    """All nodes stop at different moments and resume in another order."""
    nodes = sorted(cluster.nodes)
    for node_id in source.sample(nodes, len(nodes)):
        cluster.pause(node_id)
        await asyncio.sleep(source.uniform(0.0, 0.3))
    for node_id in source.sample(nodes, len(nodes)):
        cluster.resume(node_id)
        await asyncio.sleep(source.uniform(0.0, 0.5))


async def pause_again_and_again(cluster: ProcessCluster, source: random.Random) -> None:
    """Stop random nodes for about as long as an election takes, many times: leadership moves while they stand still."""
    for _ in range(6):
        await _pause(cluster, await any_node(cluster, source), source.uniform(0.3, 0.9))


async def rolling_restart(cluster: ProcessCluster, source: random.Random) -> None:
    """A clean stop and start of each node, as in an upgrade."""
    for node_id in sorted(cluster.nodes):
        await cluster.restart(node_id)


async def stray_signals(cluster: ProcessCluster, source: random.Random) -> None:
    """Signals that mean nothing to a node, and the one that opens its log files anew, all over the cluster."""
    for _ in range(40):
        for node_id in cluster.running():
            cluster.send_signal(node_id, source.choice([signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2]))
        await asyncio.sleep(source.uniform(0.0, 0.1))


async def _pause(cluster: ProcessCluster, node_id: int, seconds: float) -> None:
    cluster.pause(node_id)
    await asyncio.sleep(seconds)
    cluster.resume(node_id)


PROCESS_FAULTS = [
    Fault("kill -9 the leader", kill_leader),
    Fault("kill -9 a follower", kill_follower),
    Fault("kill -9 any, repeatedly", kill_random_again_and_again),
    Fault("kill -9 a majority", kill_majority),
    Fault("kill -9 all nodes", kill_all),
    Fault("kill -9 all in turn", kill_all_in_turn),
    Fault("kill -9 while starting", kill_while_starting),
    Fault("lag, snapshot, kill", lag_behind),
    Fault("pause the leader", pause_leader),
    Fault("pause a follower", pause_follower),
    Fault("pause all nodes", pause_all),
    Fault("pause any, repeatedly", pause_again_and_again),
    Fault("rolling restart", rolling_restart),
    Fault("stray signals", stray_signals),
]

"""What an operator may do at a bad moment, and several faults at once. Runs on an event loop."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress

from metasrv.testing.link import LinkFault
from metasrv.testing.network import why_unavailable
from metasrv.testing.processes import ProcessCluster
from verification.nemesis.fault import Fault, any_node, ask, network_of
from verification.nemesis.membership_faults import transfer_leadership
from verification.nemesis.network_faults import all_pairs
from verification.nemesis.process_faults import kill_random_again_and_again, pause_again_and_again

HAMMER_SECONDS = 2.0
PROFILE_TIMEOUT_SECONDS = 10.0
ROUTES = (
    "/v1/ctrl/trigger_snapshot",
    "/v1/metrics",
    "/v1/cluster/status",
    "/v1/cluster/nodes",
    "/readyz",
    "/debug/pprof/profile?seconds=1&format=folded",
    "/debug/mem/pprof/profile?seconds=1&format=svg",
)


async def hammer_admin(cluster: ProcessCluster, source: random.Random) -> None:
    """Snapshots, profiles, metrics and status on every node, as fast as they are answered."""
    answers = await asyncio.gather(*(_hammer(cluster, node_id, source, HAMMER_SECONDS) for node_id in cluster.nodes))
    if not all(answers):
        raise AssertionError(f"admin requests answered with 200, a node: {answers}")


async def hammer_forever(cluster: ProcessCluster, source: random.Random) -> None:
    """The same during another fault, on all nodes there are, until it is cancelled."""
    while True:
        node_id = source.choice(sorted(cluster.nodes))
        await ask(cluster, node_id, source.choice(ROUTES), PROFILE_TIMEOUT_SECONDS)
        await asyncio.sleep(0.05)


async def storm(cluster: ProcessCluster, source: random.Random) -> None:
    """A bad network, dying nodes, pauses and hand-overs, all at once."""
    network = network_of(cluster)
    network.harm(LinkFault(delay_s=0.01, jitter_s=0.05, loss=0.05, cut=0.005), all_pairs(cluster))
    transfers = asyncio.create_task(_transfers(cluster, source), name="transfers")
    try:
        for _ in range(2):
            await source.choice([kill_random_again_and_again, pause_again_and_again])(cluster, source)
    finally:
        network.heal()
        transfers.cancel()
        with suppress(asyncio.CancelledError):
            await transfers


async def _transfers(cluster: ProcessCluster, source: random.Random) -> None:
    while True:
        target = await any_node(cluster, source)
        for node_id in cluster.running():
            await ask(cluster, node_id, f"/v1/ctrl/trigger_transfer_leader?to={target}")
        await asyncio.sleep(source.uniform(0.1, 0.5))


async def snapshots_and_transfers(cluster: ProcessCluster, source: random.Random) -> None:
    """Leadership moves while every node writes snapshots without a pause."""
    hammer = asyncio.create_task(_snapshots(cluster), name="snapshots")
    try:
        await transfer_leadership(cluster, source)
    finally:
        hammer.cancel()
        with suppress(asyncio.CancelledError):
            await hammer


async def _snapshots(cluster: ProcessCluster) -> None:
    while True:
        await asyncio.gather(*(ask(cluster, node_id, ROUTES[0]) for node_id in cluster.nodes))


async def _hammer(cluster: ProcessCluster, node_id: int, source: random.Random, seconds: float) -> int:
    """How many requests were answered with 200."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    answered = 0
    while loop.time() < deadline or not answered:
        answered += await ask(cluster, node_id, source.choice(ROUTES), PROFILE_TIMEOUT_SECONDS) == 200
    return answered


SERVICE_FAULTS = [
    Fault("profiles, snapshots, metrics", hammer_admin),
    Fault("snapshots and transfers", snapshots_and_transfers),
    Fault("storm of all kinds", storm, why_unavailable),
]

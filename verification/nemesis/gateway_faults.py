"""Gateways that die or hang, on nodes that have some, and on machines without a node. Runs on an event loop.

The node stays; what its clients had in flight on a gateway is lost to them, and they connect anew. A gateway without a
node that hangs for some seconds loses its link: both ends give it up.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from contextlib import suppress
from pathlib import Path

from metasrv.testing.processes import ProcessCluster
from verification.nemesis.fault import HOLD_SECONDS, Fault, any_node

GATEWAYS_VARIABLE = "METASRV_GRPC_GATEWAYS"
"""Set for the whole run by `--gateways` of `verification.chaos_rounds`; nodes inherit it."""
REMOTE_VARIABLE = "CHAOS_REMOTE_GATEWAYS"
"""Set for the whole run by `--remote-gateways`."""
HANG_SECONDS_MAX = 7.0
"""Longer than a node waits for a sign of life, some of the time."""


def processes_of_gateways(node: int) -> list[int]:
    """Gateways of the node with this process id: the node forks one process, which forks them."""
    return [gateway for forked in _children(node) for gateway in _children(forked)]


def _children(process_id: int) -> list[int]:
    try:
        return [int(text) for text in Path(f"/proc/{process_id}/task/{process_id}/children").read_text().split()]
    except FileNotFoundError:
        return []


def _gateways_of(cluster: ProcessCluster, node_id: int) -> list[int]:
    process = cluster.nodes[node_id].process
    return [] if process is None else processes_of_gateways(process.pid)


def _signal(process_id: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # it has been ended by another fault, or by its node
        os.kill(process_id, number)


async def kill_gateways(cluster: ProcessCluster, source: random.Random) -> None:
    """SIGKILL to random gateways of random nodes, several times, and once to all of one node."""
    for _ in range(4):
        gateways = _gateways_of(cluster, await any_node(cluster, source))
        if gateways:
            _signal(source.choice(gateways), signal.SIGKILL)
        await asyncio.sleep(source.uniform(0.1, 0.8))
    for gateway in _gateways_of(cluster, await cluster.wait_for_leader()):
        _signal(gateway, signal.SIGKILL)
    await asyncio.sleep(source.uniform(0.5, 1.5))


async def pause_gateways(cluster: ProcessCluster, source: random.Random) -> None:
    """SIGSTOP to a gateway, in the middle of whatever it does: sometimes for so long that its node gives it up."""
    gateways = _gateways_of(cluster, await any_node(cluster, source))
    if gateways:
        gateway = source.choice(gateways)
        _signal(gateway, signal.SIGSTOP)
        await asyncio.sleep(source.uniform(0.2, HANG_SECONDS_MAX))
        _signal(gateway, signal.SIGCONT)


async def kill_remote_gateways(cluster: ProcessCluster, source: random.Random) -> None:
    """SIGKILL to gateways without a node, several times; each is started again, as its service manager would."""
    for _ in range(3):
        gateway = source.choice(cluster.remote_gateways)
        gateway.signal(signal.SIGKILL)
        await asyncio.sleep(source.uniform(0.1, 0.8))
        gateway.start()
        await gateway.wait_for("ok: ")


async def cut_remote_gateways(cluster: ProcessCluster, source: random.Random) -> None:
    """SIGSTOP until both ends have cut the link, some of the time; then the node that one is linked to is killed."""
    gateway = source.choice(cluster.remote_gateways)
    gateway.signal(signal.SIGSTOP)
    await asyncio.sleep(source.uniform(0.2, HANG_SECONDS_MAX))
    gateway.signal(signal.SIGCONT)
    await gateway.wait_for("ok: ")
    _, sentence = await gateway.get("/readyz")
    node_id = next((one for one in cluster.nodes if f"node {one} " in sentence), min(cluster.nodes))
    await cluster.kill(node_id)
    await asyncio.sleep(source.uniform(0.1, HOLD_SECONDS))
    cluster.start(node_id)
    await gateway.wait_for("ok: ")


def _without_remote_gateways() -> str | None:
    if os.environ.get(REMOTE_VARIABLE, "0") == "0":
        return "there are no gateways without a node (--remote-gateways)"
    return None


def _without_gateways() -> str | None:
    if sys.platform != "linux":
        return "gateways are found through /proc"
    if os.environ.get(GATEWAYS_VARIABLE, "0") == "0":
        return "the nodes have no gateways (--gateways)"
    return None


GATEWAY_FAULTS = [
    Fault("kill gateways", kill_gateways, _without_gateways),
    Fault("pause gateways", pause_gateways, _without_gateways),
    Fault("kill remote gateways", kill_remote_gateways, _without_remote_gateways),
    Fault("cut remote gateways", cut_remote_gateways, _without_remote_gateways),
]

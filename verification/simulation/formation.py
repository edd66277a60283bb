"""Disks of clusters that are formed already, of one to seven nodes, made once per size.

Forming a cluster takes longer than most histories, so most begin with a copy of these disks. The product makes them: one
node is started alone and the others join it.
"""

from __future__ import annotations

import asyncio
from functools import lru_cache

from verification.simulation.cluster import SimulatedCluster, opened
from verification.simulation.disk import Image
from verification.simulation.machine import Tuning

FORM_SECONDS_MAX = 60.0


@lru_cache(maxsize=8)
def formed_images(size: int) -> tuple[Image, ...]:
    """The disks of nodes 1 to `size`, all voters, stopped in order."""
    with opened(f"formation of {size}", Tuning()) as cluster:
        cluster.run(form(cluster, size), FORM_SECONDS_MAX)
        cluster.run(_stop_all(cluster), FORM_SECONDS_MAX)
        if cluster.witness.violations:
            raise AssertionError("; ".join(cluster.witness.violations))
        return tuple(cluster.machines[node_id].image or {} for node_id in range(1, size + 1))


async def form(cluster: SimulatedCluster, size: int) -> None:
    """Start nodes on empty disks; return when all of them serve."""
    for node_id in range(1, size + 1):
        machine = cluster.add_machine(node_id)
        machine.bootstrap = node_id == 1
        machine.joins = () if node_id == 1 else (1,)
        machine.start()
    await cluster.until(lambda: all(machine.serves for machine in cluster.machines.values()))
    for machine in cluster.machines.values():
        machine.joins = tuple(i for i in cluster.machines if i != machine.node_id)


async def _stop_all(cluster: SimulatedCluster) -> None:
    await asyncio.sleep(0.5)
    for machine in cluster.machines.values():
        machine.stop()
    await cluster.until(lambda: not cluster.processes())

"""All faults by name, and how to inflict one. Runs on an event loop."""

from __future__ import annotations

import random
from collections.abc import Sequence

from metasrv.testing.processes import DEADLINE_SECONDS, ProcessCluster
from verification.nemesis.copy_faults import COPY_FAULTS
from verification.nemesis.disk_faults import DISK_FAULTS
from verification.nemesis.fault import Fault
from verification.nemesis.gateway_faults import GATEWAY_FAULTS
from verification.nemesis.membership_faults import MEMBERSHIP_FAULTS
from verification.nemesis.network_faults import NETWORK_FAULTS
from verification.nemesis.process_faults import PROCESS_FAULTS
from verification.nemesis.service_faults import SERVICE_FAULTS
from verification.nemesis.stall_faults import STALL_FAULTS

FAULTS = [
    *PROCESS_FAULTS,
    *NETWORK_FAULTS,
    *DISK_FAULTS,
    *STALL_FAULTS,
    *COPY_FAULTS,
    *MEMBERSHIP_FAULTS,
    *SERVICE_FAULTS,
    *GATEWAY_FAULTS,
]


def faults_named(parts: Sequence[str]) -> list[Fault]:
    """Faults whose name contains one of `parts`; all of them when there is none."""
    return [fault for fault in FAULTS if not parts or any(part in fault.name for part in parts)]


async def inflict(
    fault: Fault, cluster: ProcessCluster, source: random.Random, timeout_s: float = DEADLINE_SECONDS
) -> None:
    """Inflict one fault, then wait until every node runs and all agree on a leader."""
    try:
        await fault.harm(cluster, source)
    finally:
        if cluster.network is not None:
            cluster.network.heal()
    for node_id, node in cluster.nodes.items():
        if node.paused:
            cluster.resume(node_id)
        if not node.is_running:
            raise AssertionError(f"node {node_id} ended by itself\n{cluster.logs(node_id)}")
    await cluster.wait_for_leader(members=len(cluster.nodes), timeout_s=timeout_s)

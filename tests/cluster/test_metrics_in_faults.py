"""What status and metrics of real nodes say while members are silent: an open connection is no member."""

from __future__ import annotations

import asyncio
import json
import time

from metasrv.protocol import methods as m
from metasrv.testing.processes import ProcessCluster
from tests.cluster.test_grpc_cluster import PUT, raw

NAMED_WITHIN_SECONDS = 10
TOLERANCE = "metasrv_raft_failure_tolerance_nodes"


async def sample(cluster: ProcessCluster, node_id: int, name: str) -> float | None:
    """The value of one series, None where there is none."""
    _, page = await cluster.admin(node_id, "/v1/metrics")
    found = [line for line in page.splitlines() if line.startswith(f"{name} ")]
    return float(found[0].rpartition(" ")[2]) if found else None


async def told(cluster: ProcessCluster, node_id: int) -> tuple[int | None, float | None]:
    """The failure tolerance of the status and of the metrics."""
    _, body = await cluster.admin(node_id, "/v1/cluster/status")
    return json.loads(body)["failure_tolerance"], await sample(cluster, node_id, TOLERANCE)


async def test_a_paused_follower_is_lost_and_writes_without_a_majority_are_counted(cluster: ProcessCluster) -> None:
    leader = await cluster.wait_for_leader()
    first, second = (node_id for node_id in cluster.nodes if node_id != leader)
    async with cluster.node_client(second) as client:
        await client.put("k", b"v")
        token = (m.TOKEN_METADATA_KEY, await client.handshake())
    assert await told(cluster, second) == (None, None), "a follower does not know"
    cluster.pause(first)
    try:
        deadline = time.monotonic() + NAMED_WITHIN_SECONDS
        while await told(cluster, leader) != (0, 0.0):
            assert time.monotonic() < deadline, await told(cluster, leader)
            await asyncio.sleep(0.1)
        cluster.pause(leader)
        try:
            channel, stub = await raw(cluster, second)
            deadline = time.monotonic() + NAMED_WITHIN_SECONDS
            failed = 'metasrv_grpc_requests_failed_total{kind="write",reason="no_leader"}'
            while not await sample(cluster, second, failed):
                assert time.monotonic() < deadline
                await stub.Transaction(PUT, metadata=(token,), timeout=1).code()
            assert await sample(cluster, second, "metasrv_server_proposals_failed_total") == 0
            await channel.close()
        finally:
            cluster.resume(leader)
    finally:
        cluster.resume(first)
    await cluster.wait_for_leader()

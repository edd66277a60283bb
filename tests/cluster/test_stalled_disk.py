"""A running leader whose raft log cannot be synced for seconds, and its node afterwards."""

from __future__ import annotations

import time

import pytest

from metasrv.client import AsyncClient
from metasrv.model.errors import UnknownOutcomeError
from metasrv.testing.processes import ProcessCluster
from verification.nemesis.stall_faults import stalled_log, why_no_tracer

STALL_SECONDS = 20.0


async def write(client: AsyncClient, value: bytes) -> None:
    """Until it is done; the old leader may say once that it does not know."""
    try:
        await client.upsert("k", value)
    except UnknownOutcomeError:
        await client.upsert("k", value)


async def test_a_leader_whose_log_stalls_is_replaced_and_comes_back_as_a_follower(cluster: ProcessCluster) -> None:
    if (reason := why_no_tracer()) is not None:
        pytest.skip(reason)
    leader = await cluster.wait_for_leader()
    others = [node_id for node_id in cluster.nodes if node_id != leader]
    process = cluster.nodes[leader].process
    async with cluster.client(*others) as client:
        await client.upsert("k", b"before")
        async with stalled_log(cluster, leader, STALL_SECONDS):
            began_at = time.monotonic()
            await write(client, b"meanwhile")
            assert time.monotonic() - began_at < STALL_SECONDS / 4, "the others elected meanwhile"
            await cluster.wait_until(
                lambda: "the disk stalls: a write of the raft log" in cluster.logs(leader, lines=200), "a line in the log"
            )
            code, text = await cluster.admin(leader, "/readyz")
            assert code == 503
            assert "[-]disk failed: the disk stalls: a write of the raft log has not finished for" in text
            assert (await cluster.admin(leader, "/livez"))[0] == 200, "nobody should restart it"
            for witness in (leader, others[0]):
                _, text = await cluster.admin(witness, "/v1/console")
                assert f"The disk of node {leader} does not answer" in text, "each node names it"
            _, text = await cluster.admin(others[0], f"/v1/events?node={leader}")
            assert "the disk stalls: a write of the raft log has not finished" in text
            status = await cluster.status(leader)
            assert status is not None
            assert not status["is_leader"]
            _, metrics = await cluster.admin(leader, "/v1/metrics")
            assert 'metasrv_raft_disk_stalls_total{part="log"} 1' in metrics
        await cluster.wait_for_ready(leader)
        assert cluster.nodes[leader].process is process
        assert await cluster.wait_for_leader() != leader
        await client.upsert("k", b"after")
    await cluster.wait_until_equal()

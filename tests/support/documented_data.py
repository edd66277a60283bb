"""What the nodes hold while somebody carries out the pages for operators, and which of them leads."""

from __future__ import annotations

from metasrv.testing.processes import ProcessCluster

KEYS = {f"app/k{number}": b"v" * number for number in range(1, 30)}


async def fill(cluster: ProcessCluster) -> None:
    async with cluster.client() as client:
        for key, value in KEYS.items():
            await client.upsert(key, value)
    await cluster.wait_until_equal()


async def check(cluster: ProcessCluster, *node_ids: int) -> None:
    async with cluster.client(*node_ids) as client:
        assert {key: record.data for key, record in await client.list_prefix("app/")} == KEYS


async def lead(cluster: ProcessCluster, node_id: int) -> None:
    """Let this node lead."""
    if await cluster.wait_for_leader() != node_id:
        leader = await cluster.wait_for_leader()
        await cluster.admin(leader, f"/v1/ctrl/trigger_transfer_leader?to={node_id}")
        await cluster.wait_for_leader(other_than=leader)
    assert await cluster.wait_for_leader() == node_id

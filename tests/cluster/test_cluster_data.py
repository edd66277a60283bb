"""Writes and reads through every node, and what is left of them after restarts, kills and snapshots."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from metasrv.testing.processes import ProcessCluster
from tests.conftest import StartCluster

LOW_SNAPSHOT = {"snapshot_logs_since_last": 50, "max_applied_log_to_keep": 20}


async def write_many(cluster: ProcessCluster, node_id: int, count: int, start: int = 0) -> dict[str, bytes]:
    records = {f"many/{number:06}": f"value {number}".encode() for number in range(start, start + count)}
    async with cluster.node_client(node_id) as client:
        for key, value in records.items():
            await client.put(key, value)
    return records


async def read_all(cluster: ProcessCluster, node_id: int, prefix: str = "many/") -> dict[str, bytes]:
    async with cluster.node_client(node_id) as client:
        return await client.list_prefix(prefix)


async def test_a_write_through_any_node_is_read_through_every_node(cluster: ProcessCluster) -> None:
    for writer in cluster.nodes:
        async with cluster.node_client(writer) as client:
            await client.put(f"from/{writer}", str(writer).encode())
        for reader in cluster.nodes:
            async with cluster.node_client(reader) as client:
                assert await client.get(f"from/{writer}") == str(writer).encode()


async def test_the_client_finds_the_leader_from_any_node(cluster: ProcessCluster) -> None:
    for node_id in cluster.nodes:
        async with cluster.client(node_id) as client:
            await client.upsert(f"client/{node_id}", b"value")
            record = await client.get(f"client/{node_id}")
            assert record is not None
            assert record.data == b"value"


async def test_sequence_numbers_grow_by_one_per_write(cluster: ProcessCluster) -> None:
    async with cluster.node_client(1) as one, cluster.node_client(2) as two:
        numbers = [await client.put("k", b"v") for client in (one, two, one, two)]
    assert numbers == list(range(numbers[0], numbers[0] + 4))


async def test_each_node_restarts_cleanly_and_keeps_the_data(cluster: ProcessCluster) -> None:
    records = await write_many(cluster, 1, 30)
    for node_id in cluster.nodes:
        await cluster.restart(node_id)
        assert await read_all(cluster, node_id) == records
    await cluster.wait_until_equal()


async def test_all_nodes_killed_at_once_keep_every_acknowledged_write(cluster: ProcessCluster) -> None:
    records = await write_many(cluster, 1, 50)
    await cluster.kill(1, 2, 3)
    await cluster.boot((3, 1, 2))
    for node_id in cluster.nodes:
        assert await read_all(cluster, node_id) == records


async def test_identity_and_term_never_go_back_over_restarts(cluster: ProcessCluster) -> None:
    before = await cluster.statuses()
    await cluster.kill(1, 2, 3)
    await cluster.boot()
    for node_id, after in (await cluster.statuses()).items():
        earlier = before[node_id]
        assert after is not None
        assert earlier is not None
        assert after["id"] == earlier["id"]
        assert after["current_term"] >= earlier["current_term"]
        assert after["last_applied"]["index"] >= earlier["last_applied"]["index"]


def _has_other_snapshots(directory: Path, before: set[Path]) -> Callable[[], bool]:
    return lambda: bool(set(directory.glob("*.snap")) - before)


def _names_its_snapshot(node_id: int) -> Callable[[dict[int, dict[str, Any]]], bool]:
    return lambda found: found[node_id]["snapshot_last_log_id"] is not None


async def test_triggered_snapshot_makes_a_file_on_any_node(cluster: ProcessCluster) -> None:
    await write_many(cluster, 1, 10)
    await cluster.wait_until_equal()
    for node_id, node in cluster.nodes.items():
        directory = node.raft_dir / "df_meta" / "V004" / "snapshot"
        before = set(directory.glob("*.snap"))
        assert await cluster.admin(node_id, "/v1/ctrl/trigger_snapshot") == (200, "null")
        await cluster.wait_until(_has_other_snapshots(directory, before), f"a new snapshot file in {directory}")
        # The file has its name a moment before the event loop hears of it.
        statuses = await cluster.wait_for_statuses(
            _names_its_snapshot(node_id),
            f"node {node_id} to name its snapshot",
        )
        assert statuses[node_id]["snapshot_last_log_id"]["index"] > 0
        assert statuses[node_id]["snapshot_key_count"] >= 10


async def test_the_log_is_purged_and_a_node_that_lags_catches_up_by_snapshot(start_cluster: StartCluster) -> None:
    cluster: ProcessCluster = start_cluster(3, settings=LOW_SNAPSHOT)
    leader = await cluster.boot()
    lagging = next(node_id for node_id in cluster.nodes if node_id != leader)
    records = await write_many(cluster, leader, 20)
    await cluster.kill(lagging)
    records |= await write_many(cluster, leader, 300, start=20)
    statuses = await cluster.wait_for_statuses(
        lambda found: all(status["purged"] for status in found.values()), "the log to be purged"
    )
    assert all(status["purged"]["index"] > 100 for status in statuses.values())
    cluster.start(lagging)
    await cluster.wait_for_leader(members=3)
    await cluster.wait_until_equal()
    assert await read_all(cluster, lagging) == records
    await cluster.kill(lagging)
    cluster.start(lagging)
    await cluster.wait_until_equal()
    assert await read_all(cluster, lagging) == records


async def test_status_is_one_instant_while_writes_run(cluster: ProcessCluster) -> None:
    leader = await cluster.wait_for_leader()
    async with cluster.node_client(leader) as client:
        for number in range(60):
            await client.put(f"k{number}", b"v")
            _, body = await cluster.admin(leader, "/v1/cluster/status")
            status = json.loads(body)
            assert status["last_applied"]["index"] <= status["last_log_index"]
            assert status["is_leader"] is (status["state"] == "Leader")
            if status["is_leader"]:
                assert status["leader"]["name"] == str(leader)
                assert status["replication"][str(leader)]["index"] <= status["last_log_index"]

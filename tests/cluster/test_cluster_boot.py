"""Three processes become one cluster, whatever the order, and every node tells the same truth over HTTP."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from metasrv.testing.processes import ProcessCluster
from tests.conftest import StartCluster

SEED_STATUS_KEYS = [
    "id",
    "endpoint",
    "db_size",
    "state",
    "is_leader",
    "current_term",
    "last_log_index",
    "last_applied",
    "leader",
    "voters",
    "non_voters",
    "last_seq",
]
SEED_METRICS = {
    "metasrv_meta_network_recv_bytes": "counter",
    "metasrv_server_leader_changes": "counter",
    "metasrv_meta_network_req_success": "counter",
    "metasrv_meta_network_sent_bytes": "counter",
    "metasrv_server_node_is_health": "gauge",
    "metasrv_server_is_leader": "gauge",
    "metasrv_server_proposals_applied": "gauge",
    "metasrv_server_last_seq": "gauge",
    "metasrv_server_current_term": "gauge",
    "metasrv_meta_network_req_inflights": "gauge",
    "metasrv_server_proposals_pending": "gauge",
    "metasrv_server_last_log_index": "gauge",
    "metasrv_server_current_leader_id": "gauge",
    "metasrv_meta_network_rpc_delay_seconds": "summary",
}
QUANTILES = ["0", "0.5", "0.9", "0.95", "0.99", "0.999", "1"]


def assert_is_node(node: Any) -> None:
    assert isinstance(node["name"], str)
    assert isinstance(node["endpoint"]["addr"], str)
    assert isinstance(node["endpoint"]["port"], int)
    assert isinstance(node["grpc_api_addr"], str)


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 2, 1), (2, 3, 1)], ids=str)
async def test_three_nodes_started_at_once_in_any_order_form_one_cluster(
    start_cluster: StartCluster, order: tuple[int, ...]
) -> None:
    cluster: ProcessCluster = start_cluster(3)
    leader = await cluster.boot(order)
    for status in (await cluster.statuses()).values():
        assert status is not None
        assert [voter["name"] for voter in status["voters"]] == ["1", "2", "3"]
        assert status["leader"]["name"] == str(leader)


async def test_status_of_each_node_has_the_shape_of_the_documentation(cluster: ProcessCluster) -> None:
    leader = await cluster.wait_for_leader()
    statuses = await cluster.statuses()
    for node_id, status in statuses.items():
        assert status is not None
        assert list(status)[: len(SEED_STATUS_KEYS)] == SEED_STATUS_KEYS
        assert status["id"] == node_id
        assert status["endpoint"] == str(cluster.nodes[node_id].raft)
        assert status["state"] == ("Leader" if node_id == leader else "Follower")
        assert status["is_leader"] is (node_id == leader)
        assert set(status["last_applied"]) == {"term", "index", "leader_id"}
        assert 0 < status["last_applied"]["index"] <= status["last_log_index"]
        assert status["db_size"] > 0
        assert status["non_voters"] == []
        assert (status["replication"] is not None) is (node_id == leader)
        for node in [status["leader"], *status["voters"]]:
            assert_is_node(node)
    assert [status["is_leader"] for status in statuses.values() if status].count(True) == 1


async def test_nodes_route_lists_all_nodes_in_order_on_each_node(cluster: ProcessCluster) -> None:
    for node_id in cluster.nodes:
        code, body = await cluster.admin(node_id, "/v1/cluster/nodes")
        nodes = json.loads(body)
        assert code == 200
        assert [node["name"] for node in nodes] == ["1", "2", "3"]
        for node in nodes:
            assert_is_node(node)
            assert node["endpoint"]["port"] == cluster.nodes[int(node["name"])].raft.port
            assert node["grpc_api_addr"] == str(cluster.nodes[int(node["name"])].grpc)


async def test_metrics_of_each_node_have_the_names_and_types_of_the_documentation(
    cluster: ProcessCluster,
) -> None:
    async with cluster.node_client(1) as client:
        await client.put("k", b"v")
    for node_id in cluster.nodes:
        async with cluster.node_client(node_id) as client:
            await client.get("k")
        code, body = await cluster.admin(node_id, "/v1/metrics")
        lines = body.splitlines()
        assert code == 200
        for name, kind in SEED_METRICS.items():
            assert f"# TYPE {name} {kind}" in lines, name
            assert any(line.startswith((f"{name} ", f"{name}{{", f"{name}_sum ")) for line in lines), name
        for quantile in QUANTILES:
            start = f'metasrv_meta_network_rpc_delay_seconds{{quantile="{quantile}"}} '
            assert any(line.startswith(start) for line in lines), quantile


async def test_a_write_moves_the_applied_index_and_the_sequence_number_on_every_node(
    cluster: ProcessCluster,
) -> None:
    before = await cluster.statuses()
    async with cluster.node_client(1) as client:
        seq = await client.put("k", b"v")
    await cluster.wait_until_equal()
    for node_id, after in (await cluster.statuses()).items():
        earlier = before[node_id]
        assert after is not None
        assert earlier is not None
        assert after["last_applied"]["index"] > earlier["last_applied"]["index"]
        assert after["last_seq"] == seq


async def test_probes_answer_on_each_node(cluster: ProcessCluster) -> None:
    await cluster.wait_for_ready()
    for node_id in cluster.nodes:
        assert await cluster.admin(node_id, "/v1/health") == (200, '{"status":"pass"}')
        assert (await cluster.admin(node_id, "/livez"))[0] == 200
        assert (await cluster.admin(node_id, "/readyz"))[0] == 200


async def test_admin_answers_before_the_node_has_joined_and_says_it_is_not_ready(start_cluster: StartCluster) -> None:
    cluster: ProcessCluster = start_cluster(2)
    cluster.start(2)
    await cluster.wait_for_statuses(lambda statuses: 2 in statuses, "node 2 to answer")
    status = await cluster.status(2)
    assert status is not None
    assert status["leader"] is None
    assert (await cluster.admin(2, "/livez"))[0] == 200
    code, reasons = await cluster.admin(2, "/readyz")
    assert code == 503
    assert "leader" in reasons
    cluster.start(1)
    await cluster.wait_for_leader(members=2)
    await cluster.wait_for_ready(2)


async def test_a_node_that_finds_nobody_to_join_gives_up_with_a_sentence(start_cluster: StartCluster) -> None:
    cluster: ProcessCluster = start_cluster(2, settings={"wait_leader_timeout": 2000})
    cluster.start(2)
    assert await cluster.wait_exit(2) == 3
    address = cluster.nodes[1].raft
    assert "fail to join node-2 to cluster via" in cluster.nodes[2].output()
    assert str(address) in cluster.nodes[2].output()


async def test_a_snapshot_asked_for_at_the_first_moment_of_a_node_is_written(start_cluster: StartCluster) -> None:
    cluster = start_cluster(1, settings={"heartbeat_interval": 1000})  # the first election takes two seconds
    cluster.start(1)
    for _ in range(500):
        try:
            answer = await cluster.admin(1, "/v1/ctrl/trigger_snapshot")
            break
        except OSError:
            await asyncio.sleep(0.02)
    assert answer == (200, "null")
    status = await cluster.status(1)
    assert status is not None
    assert status["leader"] is None, "nothing is applied yet"
    await cluster.wait_until(lambda: any(cluster.nodes[1].raft_dir.rglob("*.snap")), "a snapshot file")

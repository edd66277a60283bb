"""The first node begins a cluster once, and never a second one under its old address."""

from __future__ import annotations

import asyncio

from metasrv.testing.processes import ProcessCluster
from tests.conftest import StartCluster


def everybody_asks_everybody(cluster: ProcessCluster) -> None:
    """As conf/node1.toml and the others: each node has the other addresses in `join`, node 1 has `single` too."""
    for node in cluster.nodes.values():
        node.settings["join"] = [str(other.advertised) for other in cluster.nodes.values() if other is not node]
        node.write_config()


async def cluster_ids(cluster: ProcessCluster) -> set[str]:
    return {status["cluster_id"] for status in (await cluster.statuses()).values() if status is not None}


async def until_it_waits(cluster: ProcessCluster, node_id: int, *names: str) -> str:
    """Until the node's status says that it waits for these; what it says."""
    statuses = await cluster.wait_for_statuses(
        lambda seen: node_id in seen and all(name in (seen[node_id]["waiting_for"] or "") for name in names),
        f"node {node_id} to wait for {names}",
    )
    return str(statuses[node_id]["waiting_for"])


async def test_the_first_node_waits_for_the_others_and_then_all_three_are_one_cluster(
    start_cluster: StartCluster,
) -> None:
    cluster: ProcessCluster = start_cluster(3)
    everybody_asks_everybody(cluster)
    cluster.start(1)
    second, third = (str(cluster.nodes[i].raft) for i in (2, 3))
    said = await until_it_waits(cluster, 1, second, third, "--begin-cluster")
    code, reasons = await cluster.admin(1, "/readyz?verbose")
    assert code == 503
    assert second in reasons
    assert said.split(".")[0] in reasons.replace("\n", " ") or third in reasons
    assert third in cluster.nodes[1].output()
    cluster.start(2)
    await until_it_waits(cluster, 1, third)
    await asyncio.sleep(0.5)
    assert await cluster_ids(cluster) == {None}, "one answer of two is not enough"
    cluster.start(3)
    await cluster.wait_for_leader(members=3)
    await cluster.wait_for_ready()
    assert len(await cluster_ids(cluster)) == 1
    assert (await cluster.statuses())[1]["waiting_for"] is None  # type: ignore[index]


async def test_a_wiped_first_node_joins_its_cluster_again(start_cluster: StartCluster) -> None:
    cluster: ProcessCluster = start_cluster(3)
    everybody_asks_everybody(cluster)
    await cluster.boot()
    (before,) = await cluster_ids(cluster)
    async with cluster.node_client(2) as client:
        await client.put("k", b"v")
    await cluster.kill(1, 2, 3)
    cluster.wipe(1)
    cluster.start(1)
    await until_it_waits(cluster, 1, "has not answered")
    await asyncio.sleep(2.0)  # in the past it led a cluster of its own within this time
    status = await cluster.status(1)
    assert status is not None
    assert (status["voters"], status["cluster_id"]) == ([], None)
    cluster.start(2)
    cluster.start(3)
    await cluster.wait_for_leader(members=3)
    await cluster.wait_for_ready()
    assert await cluster_ids(cluster) == {before}
    async with cluster.node_client(1) as client:
        assert await client.get("k") == b"v"


async def test_two_wiped_nodes_begin_nothing_beside_the_one_that_has_the_data(start_cluster: StartCluster) -> None:
    cluster: ProcessCluster = start_cluster(3)
    everybody_asks_everybody(cluster)
    await cluster.boot()
    (before,) = await cluster_ids(cluster)
    await cluster.kill(1, 2, 3)
    for node_id in (1, 2):
        cluster.wipe(node_id)
        cluster.start(node_id)
    await until_it_waits(cluster, 1, str(cluster.nodes[3].raft))
    await asyncio.sleep(1.0)
    assert await cluster_ids(cluster) == {None}, "node 3 is down, and may hold the data"
    cluster.start(3)
    statuses = await cluster.wait_for_statuses(
        lambda seen: len(seen) == 3 and all(status["cluster_id"] == before for status in seen.values()),
        "the wiped nodes to ask for the cluster of node 3",
    )
    assert not any(status["is_leader"] for status in statuses.values())
    assert not any(status["joined"] for status in statuses.values())


async def test_begin_cluster_does_not_wait_for_the_silent_and_the_survivors_see_another_cluster(
    start_cluster: StartCluster,
) -> None:
    cluster: ProcessCluster = start_cluster(3)
    everybody_asks_everybody(cluster)
    await cluster.boot()
    (before,) = await cluster_ids(cluster)
    await cluster.kill(1, 2, 3)
    cluster.wipe(1)
    cluster.start(1, "--begin-cluster")
    await cluster.wait_for_leader(members=1)
    await cluster.wait_for_ready(1)
    assert "this node begins a cluster although" in cluster.nodes[1].output()
    (other,) = await cluster_ids(cluster)
    assert other != before
    cluster.start(2)
    cluster.start(3)

    def seen(statuses: dict[int, dict[str, object]]) -> bool:
        return all(
            {"id": 1, "other_cluster": other}.items() <= statuses[i]["peers"][0].items()  # type: ignore[index]
            for i in (2, 3)
        )

    await cluster.wait_for_statuses(seen, "the survivors to name the other cluster")
    assert f"ANOTHER CLUSTER, {other}, answers at {cluster.nodes[1].raft}" in cluster.nodes[2].output()
    _, metrics = await cluster.admin(2, "/v1/metrics")
    assert 'metasrv_raft_peer_other_cluster{id="1"} 1' in metrics
    assert 'metasrv_raft_peer_other_cluster{id="3"} 0' in metrics
    _, console = await cluster.admin(2, "/v1/console")
    assert "Another cluster answers for node 1" in console


async def test_begin_cluster_begins_nothing_where_somebody_knows_a_cluster(start_cluster: StartCluster) -> None:
    cluster: ProcessCluster = start_cluster(3)
    everybody_asks_everybody(cluster)
    await cluster.boot()
    (before,) = await cluster_ids(cluster)
    await cluster.kill(1)
    cluster.wipe(1)
    cluster.start(1, "--begin-cluster")
    await cluster.wait_for_leader(members=3)
    await cluster.wait_for_ready(1)
    assert await cluster_ids(cluster) == {before}
    await cluster.stop(1)
    cluster.start(1, "--begin-cluster")
    await cluster.wait_for_leader(members=3)
    await cluster.wait_for_ready(1)
    assert "--begin-cluster has no effect" in cluster.nodes[1].output()
    assert await cluster_ids(cluster) == {before}

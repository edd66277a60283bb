"""Nodes that come back with their data at other addresses: one, two, all; and at the address of somebody else."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from metasrv.client import AsyncClient, OtherClusterError
from metasrv.model.types import Endpoint
from metasrv.testing.process_node import HOST
from metasrv.testing.processes import ProcessCluster
from tests.conftest import StartCluster


def write_joins(cluster: ProcessCluster) -> None:
    """As an operator does after a move: each node's `join` has the present addresses of the others."""
    for node in cluster.nodes.values():
        node.settings["join"] = [str(other.advertised) for other in cluster.nodes.values() if other is not node]
        node.write_config()


async def until_all_know_the_addresses(cluster: ProcessCluster) -> None:
    """Until every node has the present address of every node, and membership says so too."""
    wanted = {str(node_id): node.advertised for node_id, node in cluster.nodes.items()}

    def known(statuses: dict[int, dict[str, Any]]) -> bool:
        return len(statuses) == len(wanted) and all(addresses(status) == wanted for status in statuses.values())

    await cluster.wait_for_statuses(known, f"every node to have {wanted}")


def addresses(status: dict[str, Any]) -> dict[str, Endpoint]:
    return {voter["name"]: Endpoint(**voter["endpoint"]) for voter in status["voters"]}


def says(cluster: ProcessCluster, text: str) -> bool:
    return any(text in node.output() for node in cluster.nodes.values())


@pytest.mark.parametrize("moving", [(2,), (2, 3), (1, 2), (1, 2, 3)], ids=str)
async def test_nodes_that_moved_with_their_data_are_members_as_before(
    start_cluster: StartCluster, moving: tuple[int, ...]
) -> None:
    cluster: ProcessCluster = start_cluster(3)
    await cluster.boot()
    await cluster.wait_for_ready()
    before = {node_id: node.advertised for node_id, node in cluster.nodes.items()}
    async with cluster.node_client(2) as client:
        await client.put("before", b"v")
    for node_id in moving:
        await cluster.stop(node_id)
    cluster.move(*moving)
    if len(moving) == 3:  # nobody is where he was: one right address for each pair must stand in a `join`
        for node_id in (2, 3):
            cluster.nodes[node_id].settings["join"] = [str(cluster.nodes[1].advertised)]
            cluster.nodes[node_id].write_config()
    for node_id in moving:
        cluster.start(node_id)
    await cluster.wait_for_leader(members=3)
    await cluster.wait_for_ready()
    for node_id in cluster.nodes:
        async with cluster.node_client(node_id) as client:
            assert await client.get("before") == b"v"
            await client.put(f"after {node_id}", b"v")
    await until_all_know_the_addresses(cluster)
    for node_id in moving:
        now = cluster.nodes[node_id].advertised
        changed = f"the cluster now has node {node_id} at {now}"
        await cluster.wait_until(partial(says, cluster, changed), f"a node to say: {changed}")
        others_say = f"node {node_id} is at {now}, and the cluster has it at {before[node_id]}"
        assert len(moving) == 3 or says(cluster, others_say)


async def test_a_node_that_lost_its_disk_and_its_address_is_admitted_at_the_new_one(start_cluster: StartCluster) -> None:
    cluster: ProcessCluster = start_cluster(3)
    await cluster.boot()
    await cluster.wait_for_ready()
    async with cluster.node_client(1) as client:
        await client.put("k", b"v")
    await cluster.stop(3)
    cluster.move(3)
    cluster.rejoin_from_scratch(3)
    cluster.start(3)
    await cluster.wait_for_leader(members=3)
    await cluster.wait_for_ready()
    async with cluster.node_client(3) as client:
        assert await client.get("k") == b"v"
    await until_all_know_the_addresses(cluster)


async def test_a_first_join_with_a_wrong_address_is_corrected_by_the_next(start_cluster: StartCluster) -> None:
    cluster: ProcessCluster = start_cluster(2)
    await cluster.boot()
    third = cluster.nodes[cluster.add_node()]
    third.advertised_host = "127.0.0.9"  # where nobody listens
    third.write_config()
    cluster.start(3)
    await cluster.wait_until(lambda: says(cluster, "node 3 joined as a learner, at 127.0.0.9"), "node 3 to be a learner")
    await cluster.kill(3)
    third.advertised_host = HOST
    third.write_config()
    cluster.start(3)
    await cluster.wait_for_leader(members=3)
    await cluster.wait_for_ready()
    await until_all_know_the_addresses(cluster)
    async with cluster.node_client(3) as client:
        await client.put("k", b"v")
        assert await client.get("k") == b"v"


async def test_a_node_of_another_cluster_at_the_old_address_is_refused_and_the_member_is_found(
    start_cluster: StartCluster,
) -> None:
    cluster: ProcessCluster = start_cluster(3)
    await cluster.boot()
    await cluster.wait_for_ready()
    stranger: ProcessCluster = start_cluster(1)
    await cluster.stop(2)
    stranger.nodes[1].raft = cluster.nodes[2].raft
    stranger.nodes[1].write_config()
    cluster.move(2)
    await stranger.boot()
    await cluster.wait_until(
        lambda: "ANOTHER CLUSTER" in cluster.nodes[1].output(), "node 1 to see the cluster at the old address of node 2"
    )
    cluster.start(2)
    await cluster.wait_for_leader(members=3)
    await cluster.wait_for_ready()
    await until_all_know_the_addresses(cluster)
    (status,) = (await stranger.statuses()).values()
    assert status is not None
    assert len(status["voters"]) == 1


async def test_a_client_of_one_cluster_is_told_when_an_endpoint_belongs_to_another(start_cluster: StartCluster) -> None:
    first: ProcessCluster = start_cluster(1)
    second: ProcessCluster = start_cluster(1)
    for cluster in (first, second):
        await cluster.boot()
        await cluster.wait_for_ready()
    async with AsyncClient([str(first.nodes[1].grpc)], timeout_ms=20_000) as client:
        await client.upsert("k", b"v")
        pinned = client.cluster_id
        status = await first.status(1)
        assert status is not None
        assert pinned == status["cluster_id"]
        await first.stop(1)
        await second.stop(1)
        second.nodes[1].grpc_listens = first.nodes[1].grpc_listens  # the other cluster takes over the address
        second.nodes[1].write_config()
        second.start(1)
        await second.wait_for_leader(members=1)
        await second.wait_for_ready()
        with pytest.raises(OtherClusterError, match=f"this client to cluster {pinned}"):
            await client.upsert("k", b"lost")
        with pytest.raises(OtherClusterError):
            await anext(client.watch("k"))
    async with AsyncClient([str(second.nodes[1].grpc)]) as client:
        assert await client.get("k") is None, "nothing was written there"

"""Nodes start on data directories of released versions, and serve what is in them."""

from __future__ import annotations

import shutil

import pytest

from metasrv.testing.processes import ProcessCluster
from tests.conftest import StartCluster
from tests.support.data_directories import Kept, kept_directories

KEPT = kept_directories()
ALONE = [kept for kept in KEPT if kept.name.endswith("/alone")]
MEMBERS = [kept for kept in KEPT if kept.name.endswith("/member")]


def starting(start_cluster: StartCluster, kept: Kept) -> ProcessCluster:
    """A cluster whose node with the directory's id starts on a copy of it; the others stay down."""
    node_id: int = kept.expected["node_id"]
    cluster: ProcessCluster = start_cluster(node_id)
    shutil.copytree(kept.path, cluster.nodes[node_id].raft_dir)
    cluster.start(node_id)
    return cluster


@pytest.mark.parametrize("kept", ALONE, ids=[kept.name for kept in ALONE])
async def test_a_lone_node_leads_reads_and_writes_on_a_kept_directory(start_cluster: StartCluster, kept: Kept) -> None:
    cluster = starting(start_cluster, kept)
    await cluster.wait_for_leader()
    expected = {key: bytes.fromhex(record["hex"]) for key, record in kept.expected["records"].items() if key != "expired"}
    async with cluster.client() as client:
        found = {key: record.data for key, record in await client.list_prefix("")}
        assert found == expected
        reply = await client.upsert("new", b"value")
        assert reply.result is not None
        assert reply.result.seq > kept.expected["last_seq"]
    await cluster.restart(1)
    async with cluster.client() as client:
        assert {key for key, _ in await client.list_prefix("")} == {*expected, "new"}


@pytest.mark.parametrize("kept", MEMBERS, ids=[kept.name for kept in MEMBERS])
async def test_a_member_whose_peers_are_gone_serves_stale_reads_of_a_kept_directory(
    start_cluster: StartCluster, kept: Kept
) -> None:
    cluster = starting(start_cluster, kept)
    node_id: int = kept.expected["node_id"]
    statuses = await cluster.wait_for_statuses(lambda statuses: node_id in statuses, "the node to answer")
    assert statuses[node_id]["last_applied"]["index"] == kept.expected["last_applied"][1]
    assert statuses[node_id]["leader"] is None
    assert len(statuses[node_id]["voters"]) == len(kept.expected["voters"])
    async with cluster.client(node_id) as client:
        for key, record in kept.expected["records"].items():
            found = await client.get(key, stale=True)
            assert (None if found is None else found.data) == (None if key == "expired" else bytes.fromhex(record["hex"]))

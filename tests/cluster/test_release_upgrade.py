"""From the previous release to this one and back, a node at a time, under a load whose every answer is checked.

Nodes of the previous release run from its wheel (tests/data/releases).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from metasrv import __version__
from metasrv.cli.node_process import THIS_PROGRAM, NodeProgram
from metasrv.client import AsyncClient
from metasrv.model.types import SeqV
from metasrv.testing.processes import ProcessCluster
from metasrv.testing.workload import Workload
from tests.conftest import RecordProperty, StartCluster
from tests.support import newer_node
from tests.support.metactl import metactl
from tests.support.releases import KEPT_SECRETS, PREVIOUS, USER, USER_PASSWORD, kept_cluster, unpacked
from verification.chaos import SETTINGS, find_problems, open_stores

WRITERS = 6
WRITES_BETWEEN = 40
ROOT_PASSWORD = KEPT_SECRETS["METASRV_GRPC_PASSWORD"]


@pytest.fixture(scope="module")
def previous() -> Iterator[NodeProgram]:
    """The node of the previous release."""
    with TemporaryDirectory(prefix="metasrv-release-") as directory:
        yield unpacked(PREVIOUS, Path(directory))


async def is_now(cluster: ProcessCluster, node_id: int, version: str) -> None:
    status = await cluster.status(node_id)
    assert status is not None
    assert status["binary_version"].partition("+")[0] == version


async def change(cluster: ProcessCluster, node_id: int, program: NodeProgram, version: str) -> None:
    """Stop a node in order and start it with another release; ready again, and that release."""
    assert await cluster.stop(node_id) == 0, cluster.logs(node_id)
    cluster.nodes[node_id].program = program
    cluster.start(node_id)
    await cluster.wait_for_ready(node_id)
    await is_now(cluster, node_id, version)


async def walk(cluster: ProcessCluster, steps: list[tuple[int, NodeProgram, str]], record: RecordProperty) -> None:
    """Make the steps under load, then judge every answer and compare what the nodes hold."""
    async with open_stores(cluster, WRITERS) as stores, Workload(stores) as workload:
        await workload.wait_for_writes(WRITES_BETWEEN)
        for node_id, program, version in steps:
            await change(cluster, node_id, program, version)
            await workload.wait_for_writes(WRITES_BETWEEN)
        unknown, total = workload.record.unknown, workload.record.total
    record("measured", f"{len(steps)} steps, {total} operations, {unknown} unknown outcomes")
    assert await find_problems(cluster, workload.record) == []
    assert len(workload.record.appended) > len(steps) * WRITES_BETWEEN // WRITERS
    for node_id in cluster.nodes:
        assert "Traceback" not in cluster.nodes[node_id].output()


async def test_one_node_is_upgraded_and_goes_back_under_load(
    start_cluster: StartCluster, previous: NodeProgram, record_property: RecordProperty
) -> None:
    """The leader, so that leadership passes between the releases both ways."""
    cluster: ProcessCluster = start_cluster(3, settings=SETTINGS, program=previous)
    leader = await cluster.boot()
    await is_now(cluster, leader, PREVIOUS)
    await walk(cluster, [(leader, THIS_PROGRAM, __version__), (leader, previous, PREVIOUS)], record_property)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_three_nodes_are_upgraded_and_go_back_under_load(
    start_cluster: StartCluster, previous: NodeProgram, record_property: RecordProperty
) -> None:
    cluster: ProcessCluster = start_cluster(3, settings=SETTINGS, program=previous)
    leader = await cluster.boot()
    order = [*(node_id for node_id in cluster.nodes if node_id != leader), leader]
    up = [(node_id, THIS_PROGRAM, __version__) for node_id in order]
    back = [(node_id, previous, PREVIOUS) for node_id in order]
    await walk(cluster, [*up, *back], record_property)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_node_of_either_release_catches_up_by_a_snapshot_of_the_other(
    start_cluster: StartCluster, previous: NodeProgram
) -> None:
    """Each was away so long that the others have purged what it lacks."""
    settings = {"snapshot_logs_since_last": 20, "max_applied_log_to_keep": 5}
    for away, others in ((previous, THIS_PROGRAM), (THIS_PROGRAM, previous)):
        cluster: ProcessCluster = start_cluster(3, settings=settings, program=others)
        cluster.nodes[3].program = away
        await cluster.boot()
        assert await cluster.stop(3) == 0
        async with cluster.client(1, 2) as client:
            for number in range(60):
                await client.upsert(f"key/{number}", b"v" * 2000)
        cluster.start(3)
        await cluster.wait_for_ready(3)
        await cluster.wait_until_equal()
        statuses = await cluster.statuses()
        assert statuses[3] is not None
        assert statuses[3]["purged"]["index"] > 20
        async with cluster.node_client(3) as pinned:
            assert len(await pinned.list_prefix("key/")) == 60
        for node_id in cluster.nodes:
            await cluster.stop(node_id)


# ----------------------------------------------------------------------------- directories


def fingerprint(record: SeqV) -> dict[str, object]:
    expire_at = None if record.meta is None else record.meta.expire_at
    return {"seq": record.seq, "sha256": hashlib.sha256(record.data).hexdigest(), "expire_at": expire_at}


async def test_a_cluster_of_the_previous_release_goes_on_with_its_directories(
    start_cluster: StartCluster, tmp_path: Path
) -> None:
    """Three directories, at other ports than they were written with: one cluster, with everything in it."""
    expected = kept_cluster(PREVIOUS, tmp_path)
    cluster: ProcessCluster = start_cluster(3)
    for node_id, node in cluster.nodes.items():
        (tmp_path / str(node_id)).rename(node.raft_dir)
        node.settings.pop("single", None)
        node.settings["join"] = [str(other.raft) for other in cluster.nodes.values() if other is not node]
        node.write_config()
        cluster.start(node_id, **KEPT_SECRETS)
    await cluster.wait_for_leader(members=3)
    await cluster.wait_for_ready()
    await cluster.wait_until_equal()
    for node_id, status in (await cluster.statuses()).items():
        kept = expected["nodes"][str(node_id)]
        assert status is not None
        assert status["cluster_id"] == kept["cluster_id"]
        assert status["last_applied"]["index"] > kept["last_applied"]
        assert status["last_seq"] == kept["last_seq"]
        assert status["binary_version"].partition("+")[0] == __version__
        endpoints = [str(cluster.nodes[node_id].grpc)]
        async with AsyncClient(endpoints, password=ROOT_PASSWORD) as client:
            found = {key: fingerprint(record) for key, record in await client.list_prefix("")}
        assert found == expected["records"]
    async with AsyncClient(endpoints, username=USER, password=USER_PASSWORD) as client:
        await client.upsert("log/of the user", b"1")
        assert (await client.get("log/of the user")) is not None
    listed = await metactl("list-features", "--admin-api-address", cluster.nodes[1].admin, environment=KEPT_SECRETS)
    assert all(feature in listed.out.partition("enabled")[2] for feature in expected["features"])


# ----------------------------------------------------------------------------- features


async def test_a_mixed_cluster_refuses_a_feature_that_a_member_does_not_know(
    start_cluster: StartCluster, previous: NodeProgram
) -> None:
    """In the middle of a rolling upgrade to a release that is yet to come, and once it is done."""
    cluster: ProcessCluster = start_cluster(3, program=newer_node.PROGRAM)
    cluster.nodes[3].program = previous
    await cluster.boot()
    await metactl("transfer-leader", "--to", 1, "--wait", "--admin-api-address", cluster.nodes[1].admin)
    turn_on = ("set-feature", "--feature", newer_node.FEATURE, "--enable", "true")
    refused = await metactl(*turn_on, "--admin-api-address", cluster.nodes[1].admin, code=1)
    assert f"the feature {newer_node.FEATURE} stays off: the release of node 3 does not know it" in refused.err
    assert await cluster.stop(3) == 0
    refused = await metactl(*turn_on, "--admin-api-address", cluster.nodes[1].admin, code=1)
    assert "node 3 could not be asked" in refused.err
    cluster.nodes[3].program = newer_node.PROGRAM
    cluster.start(3)
    await cluster.wait_for_ready(3)
    allowed = await metactl(*turn_on, "--admin-api-address", cluster.nodes[1].admin)
    assert newer_node.FEATURE in allowed.out

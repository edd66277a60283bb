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
from metasrv.client import AsyncClient, Transaction
from metasrv.model.types import SeqV
from metasrv.testing.processes import ProcessCluster
from metasrv.testing.workload import Workload
from tests.conftest import RecordProperty, StartCluster
from tests.support import newer_node
from tests.support.collector import Collector
from tests.support.documented_data import lead
from tests.support.metactl import metactl, metasrv
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


async def may_go_back(cluster: ProcessCluster, node_id: int, code: int = 0) -> str:
    """What `downgrade-check` says of a node, stopped or running, and the exit code that it must end with."""
    config = cluster.nodes[node_id].config_file
    return (await metasrv("downgrade-check", "-c", config, "--to", PREVIOUS, code=code)).out


async def change(cluster: ProcessCluster, node_id: int, program: NodeProgram, version: str) -> None:
    """Stop a node in order and start it with another release; ready again, and that release.

    Before it goes back, it is asked whether it can, while it serves.
    """
    if version == PREVIOUS:
        assert f"yes: {PREVIOUS} can open this directory" in await may_go_back(cluster, node_id)
    assert await cluster.stop(node_id) == 0, cluster.logs(node_id)
    cluster.nodes[node_id].program = program
    cluster.start(node_id)
    await cluster.wait_for_ready(node_id)
    await is_now(cluster, node_id, version)


async def problems_on_the_way(
    cluster: ProcessCluster, steps: list[tuple[int, NodeProgram, str]], record: RecordProperty
) -> list[str]:
    """Make the steps under load; every wrong answer, what is lost, and what the nodes do not hold alike."""
    async with open_stores(cluster, WRITERS) as stores, Workload(stores) as workload:
        await workload.wait_for_writes(WRITES_BETWEEN)
        for node_id, program, version in steps:
            await change(cluster, node_id, program, version)
            await workload.wait_for_writes(WRITES_BETWEEN)
        unknown, total = workload.record.unknown, workload.record.total
    record("measured", f"{len(steps)} steps, {total} operations, {unknown} unknown outcomes")
    assert len(workload.record.appended) > len(steps) * WRITES_BETWEEN // WRITERS
    problems = await find_problems(cluster, workload.record)
    return [
        *problems,
        *(line for node in cluster.nodes.values() for line in node.output().splitlines() if "Traceback" in line),
    ]


@pytest.mark.timeout(240)
async def test_one_node_is_upgraded_and_goes_back_under_load(
    start_cluster: StartCluster, previous: NodeProgram, record_property: RecordProperty
) -> None:
    """The leader, so that leadership passes between the releases both ways."""
    cluster: ProcessCluster = start_cluster(3, settings=SETTINGS, program=previous)
    leader = await cluster.boot()
    await is_now(cluster, leader, PREVIOUS)
    steps = [(leader, THIS_PROGRAM, __version__), (leader, previous, PREVIOUS)]
    assert await problems_on_the_way(cluster, steps, record_property) == []


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_three_nodes_are_upgraded_and_go_back_under_load(
    start_cluster: StartCluster, previous: NodeProgram, record_property: RecordProperty
) -> None:
    """With a key in the configuration that the previous release does not know."""
    settings = {**SETTINGS, "of_a_release_to_come": 1}
    cluster: ProcessCluster = start_cluster(3, settings=settings, program=previous)
    leader = await cluster.boot()
    assert "unknown key `raft_config.of_a_release_to_come`" in cluster.nodes[leader].output()
    order = [*(node_id for node_id in cluster.nodes if node_id != leader), leader]
    up = [(node_id, THIS_PROGRAM, __version__) for node_id in order]
    back = [(node_id, previous, PREVIOUS) for node_id in order]
    assert await problems_on_the_way(cluster, [*up, *back], record_property) == []


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_node_of_either_release_catches_up_by_a_snapshot_of_the_other(
    start_cluster: StartCluster, previous: NodeProgram, tmp_path: Path
) -> None:
    """Each was away so long that the others have purged what it lacks."""
    settings = {"snapshot_logs_since_last": 20, "max_applied_log_to_keep": 5}
    archive = tmp_path / "of a cluster of both.archive"
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
        if others is THIS_PROGRAM:  # what this release saves, the one before restores
            await metactl("snapshot", "save", archive, "--grpc-api-address", cluster.nodes[1].grpc)
            inspected = await metactl("snapshot", "inspect", archive, environment=previous.environment)
            assert "Keys: 60" in inspected.out
        for node_id in cluster.nodes:
            await cluster.stop(node_id)


# ----------------------------------------------------------------------------- directories


def fingerprint(record: SeqV) -> dict[str, object]:
    expire_at = None if record.meta is None else record.meta.expire_at
    return {"seq": record.seq, "sha256": hashlib.sha256(record.data).hexdigest(), "expire_at": expire_at}


@pytest.mark.timeout(240)
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


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_mixed_cluster_refuses_a_feature_that_a_member_does_not_know(
    start_cluster: StartCluster, previous: NodeProgram
) -> None:
    """In the middle of a rolling upgrade to a release that is yet to come, and once it is done."""
    calm = {"heartbeat_interval": 1_000}  # leadership stays where it is put, whatever else this machine does
    cluster: ProcessCluster = start_cluster(3, settings=calm, program=newer_node.PROGRAM)
    cluster.nodes[3].program = previous
    await cluster.boot()
    turn_on = ("set-feature", "--feature", newer_node.FEATURE, "--enable", "true")
    await lead(cluster, 3)
    refused = await metactl(*turn_on, "--admin-api-address", cluster.nodes[3].admin, code=1)
    assert "'feature' and 'enable' query parameters are required" in refused.err, "it does not know the name"
    await lead(cluster, 1)
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
    await cluster.wait_until_equal()
    answer = await may_go_back(cluster, 3, code=11)
    assert f"feature {newer_node.FEATURE}: OBSTACLE: it is on, and {PREVIOUS} does not know it" in answer
    turn_off = (*turn_on[:3], "--enable", "false")
    await metactl(*turn_off, "--admin-api-address", cluster.nodes[1].admin)
    await cluster.wait_until_equal()
    await cluster.kill(3)  # and of a node that left its write-ahead logs
    assert "yes: " in await may_go_back(cluster, 3)
    cluster.nodes[3].program = previous
    cluster.start(3)
    await cluster.wait_for_ready(3)


@pytest.mark.long
async def test_a_traced_write_reaches_a_leader_of_the_previous_release(previous: NodeProgram) -> None:
    """It refuses the request that carries a trace without looking at it, and is asked as it knows it."""
    with Collector() as collector:
        async with ProcessCluster(2) as cluster:
            cluster.nodes[1].program = previous
            cluster.start(1)
            await cluster.wait_for_leader(members=1)
            cluster.start(2, *("--tracing-otlp-endpoint", collector.url), *("--tracing-sample-ratio", "1"))
            leader = await cluster.wait_for_leader(members=2)
            await cluster.wait_for_ready(2)
            assert leader == 1, "it was alone when the other one joined"
            async with cluster.node_client(2) as follower:  # it does not go on to the leader, as the library would
                await follower.handshake()
                for number in range(3):
                    await follower.transaction(Transaction().put(f"traced/{number}", b"1").request)
            async with AsyncClient([str(cluster.nodes[2].grpc)]) as client:
                found = [key for key, _ in await client.list_prefix("traced/")]
            assert found == [f"traced/{number}" for number in range(3)]
            assert await cluster.stop(2) == 0
            old = cluster.nodes[1].output()
        names = [span.name for span in collector.spans]
    assert names.count("Transaction") == 3
    assert names.count("forward") >= 3
    assert {span.instance for span in collector.spans} == {"2"}, "the leader makes none"
    assert "Traceback" not in old

"""What people, engines and networks do to containers: no promise is broken, and clients are soon served again."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator

import pytest

from metasrv import __version__
from metasrv.testing.workload import Workload
from tests.conftest import RecordProperty
from verification.compose import ComposeCluster
from verification.compose_chaos import FAULTS, WARM_UP_WRITES, find_problems, open_stores, run_round
from verification.compose_image import ROOT

CLIENT_GAP_SECONDS_MAX = 3.0
ROUNDS_UNTIL_LATE = 3
"""A client that is late in this many rounds, one after the other, is not late because the machine is busy."""
NEXT_IMAGE = "metasrv-compose-test-next"
BY_NAME = {fault.name: fault for fault in FAULTS}
ESSENTIAL = {"kill the leader", "pause the leader", "disconnect the leader", "lose a volume", "restart all"}
assert BY_NAME.keys() >= ESSENTIAL


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.essential) if name in ESSENTIAL else name for name in BY_NAME]
)
def test_a_fault_under_load_breaks_no_promise(
    cluster: ComposeCluster, name: str, record_property: RecordProperty
) -> None:
    """Promises hold in every round. Clients are late once on a machine that is busy, and always after a defect."""
    for seed in range(1, 1 + ROUNDS_UNTIL_LATE):
        one = asyncio.run(run_round(cluster, BY_NAME[name], seed))
        record_property(
            "measured",
            f"{one.operations} operations, {one.unknown} unknown outcomes, "
            f"one client was {one.client_gap_s:.2f} s without a write",
        )
        assert one.problems == ()
        assert one.operations > 2 * WARM_UP_WRITES
        if one.client_gap_s <= CLIENT_GAP_SECONDS_MAX or not BY_NAME[name].one_node:
            return
    pytest.fail(f"in {ROUNDS_UNTIL_LATE} rounds of {ROUNDS_UNTIL_LATE} one client was not back in time")


def test_the_node_that_began_joins_again_without_its_data(cluster: ComposeCluster) -> None:
    with cluster.blocking_client(2) as client:
        client.upsert("before-loss", b"kept")
    cluster.compose("rm", "--stop", "--force", "meta1")
    cluster.docker("volume", "rm", f"{cluster.name}_meta1")
    cluster.up(1)
    cluster.wait_until_whole()
    with cluster.blocking_client(1) as client:
        record = client.get("before-loss")
    assert record is not None
    assert record.data == b"kept"


@pytest.fixture
def next_image(image: str) -> Iterator[str]:
    """The same program, as another commit."""
    text = f"FROM {image}\nENV METASRV_COMMIT=abcdef012345\n"
    subprocess.run(["docker", "build", "--tag", NEXT_IMAGE, "-"], input=text.encode(), capture_output=True, check=True)
    yield NEXT_IMAGE
    subprocess.run(["docker", "image", "rm", "--force", NEXT_IMAGE], capture_output=True, check=False)


async def roll(cluster: ComposeCluster, image: str) -> list[str]:
    """Bring every node to `image`, one after the other, under load; everything that was wrong."""
    async with (
        open_stores(cluster, 8) as stores,
        Workload(stores, seed=7, name="update-under-load-", pause_s=0.005) as workload,
    ):
        for node_id in cluster.ids:
            await workload.wait_for_writes(50)
            await asyncio.to_thread(cluster.up, node_id, METASRV_IMAGE=image)
            await asyncio.to_thread(cluster.wait_until_whole)
        await workload.wait_for_writes(50)
    return await find_problems(cluster, workload.record, "update-under-load-")


@pytest.mark.essential
def test_a_rolling_update_to_a_new_image_under_load(cluster: ComposeCluster, next_image: str) -> None:
    assert asyncio.run(roll(cluster, next_image)) == []
    for node_id in cluster.ids:
        status = cluster.status(node_id)
        assert status is not None
        assert status["binary_version"].removesuffix(".compiled") == f"{__version__}+abcdef012345"
    cluster.docker("rm", "--force", *(cluster.container(node_id) for node_id in cluster.ids))


def test_the_checker_on_the_network_finds_nothing(cluster: ComposeCluster) -> None:
    """The profile `chaos`: the same clients and the same verdict, from a container."""
    run = ("--profile", "chaos", "run", "--rm", "-T", "chaos", "python", "-m", "metasrv.testing.soak")
    addresses = [f"meta{node_id}:{cluster.grpc_ports[node_id]}" for node_id in cluster.ids]
    with cluster.blocking_client() as client:
        before = client.list_prefix("")
    said = cluster.compose(*run, "--rounds", "2", "--round-seconds", "2", *addresses)
    assert "2 rounds" in said
    assert said.rstrip().endswith("0 violations")
    with cluster.blocking_client() as client:
        assert client.list_prefix("") == before, "the checker removes what it wrote"


def test_five_nodes_survive_two(image: str) -> None:
    """Three become five under one profile; two of them may go."""
    cluster = ComposeCluster(ROOT, image)
    try:
        cluster.up()
        cluster.wait_until_whole()
        cluster.environment["COMPOSE_PROFILES"] = "five"
        cluster.ids = (1, 2, 3, 4, 5)
        cluster.up()
        leader = cluster.wait_until_whole()
        victims = [leader, next(node_id for node_id in cluster.ids if node_id != leader)]
        cluster.docker("kill", *map(cluster.container, victims))
        left = [node_id for node_id in cluster.ids if node_id not in victims]
        assert cluster.wait_for_leader(*left) in left
        with cluster.blocking_client(*left) as client:
            client.upsert("with-three-of-five", b"x")
        for victim in victims:
            cluster.docker("start", cluster.container(victim))
        one = asyncio.run(run_round(cluster, BY_NAME["kill the leader"], seed=5))
        assert one.problems == ()

        leader = cluster.wait_for_leader()
        cluster.ids = (1, 2, 3)
        if leader not in cluster.ids:
            cluster.get(leader, "/v1/ctrl/trigger_transfer_leader?to=1")
            cluster.wait_until(lambda: cluster.leader() == 1, "node 1 leads")
        for node_id in (5, 4):
            cluster.execute(1, "metasrv-entrypoint", "metasrv", "--leave-via", "meta1:28103", "--leave-id", str(node_id))
            cluster.compose("rm", "--stop", "--force", f"meta{node_id}")
        cluster.wait_until_whole()
    finally:
        cluster.close()

"""Leadership that is handed over, lost, and never claimed by a node that has lost it."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from contextlib import AsyncExitStack

import grpc
import pytest

from metasrv.testing.processes import ProcessCluster
from metasrv.testing.store import PinnedStore
from metasrv.testing.workload import LOG_PREFIX, Workload, verdict


def others(cluster: ProcessCluster, node_id: int) -> list[int]:
    return [other for other in cluster.nodes if other != node_id]


async def test_transfer_moves_leadership_to_the_named_node(cluster: ProcessCluster) -> None:
    leader = await cluster.wait_for_leader()
    target = others(cluster, leader)[1]
    code, body = await cluster.admin(leader, f"/v1/ctrl/trigger_transfer_leader?to={target}")
    assert code == 200
    assert json.loads(body) == {"from": leader, "to": target, "voter_ids": [1, 2, 3]}
    assert await cluster.wait_for_leader(other_than=leader) == target


async def test_transfer_without_a_target_goes_to_the_next_voter(cluster: ProcessCluster) -> None:
    leader = await cluster.wait_for_leader()
    code, body = await cluster.admin(leader, "/v1/ctrl/trigger_transfer_leader")
    assert code == 200
    assert json.loads(body)["to"] == leader % 3 + 1
    assert await cluster.wait_for_leader(other_than=leader) == leader % 3 + 1


async def test_transfer_on_a_follower_is_refused_with_the_four_lines(cluster: ProcessCluster) -> None:
    leader = await cluster.wait_for_leader()
    follower = others(cluster, leader)[0]
    code, body = await cluster.admin(follower, "/v1/ctrl/trigger_transfer_leader")
    lines = body.splitlines()
    assert code == 404
    assert len(lines) == 4
    assert "not leader" in lines[0]
    assert lines[1:] == [f"id={follower}", f"current_leader=Some({leader})", "voter_ids=[1, 2, 3]"]


async def test_transfer_to_an_unknown_node_changes_nothing(cluster: ProcessCluster) -> None:
    leader = await cluster.wait_for_leader()
    code, _ = await cluster.admin(leader, "/v1/ctrl/trigger_transfer_leader?to=99")
    assert code == 200
    assert await cluster.wait_for_leader() == leader
    async with cluster.node_client(leader) as client:
        await client.put("k", b"v")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_leader_asked_to_stop_under_load_hands_over_and_loses_nothing(
    cluster: ProcessCluster, number: signal.Signals
) -> None:
    leader = await cluster.wait_for_leader()
    stores = [PinnedStore(cluster.nodes[node_id].grpc) for node_id in others(cluster, leader) * 4]
    async with AsyncExitStack() as stack:
        for store in stores:
            await stack.enter_async_context(store)
        workload = await stack.enter_async_context(Workload(stores))
        await workload.wait_for_writes(50)
        started = time.monotonic()
        code = await cluster.stop(leader, number)
        seconds = time.monotonic() - started
        statuses = await cluster.statuses()
        await workload.wait_for_writes(50)
    assert code == 0, cluster.logs(leader)
    assert seconds < 5.0
    assert any(status is not None and status["is_leader"] for status in statuses.values()), statuses
    async with cluster.node_client(others(cluster, leader)[0]) as client:
        stored = await client.list_prefix(LOG_PREFIX)
    assert verdict(workload.record, stored) == []


async def test_a_paused_leader_that_resumes_is_not_leader_and_serves_no_stale_read(
    cluster: ProcessCluster,
) -> None:
    old = await cluster.wait_for_leader()
    async with cluster.node_client(old) as at_old:
        await at_old.put("k", b"old")
        cluster.pause(old)
        new = await cluster.wait_for_leader(other_than=old)
        async with cluster.node_client(new) as at_new:
            await at_new.put("k", b"new")
        reads = [asyncio.create_task(at_old.get("k")) for _ in range(8)]
        status_request = asyncio.create_task(cluster.status(old))
        await asyncio.sleep(0.05)  # the requests must be waiting in the paused process
        cluster.resume(old)
        answers = await asyncio.gather(*reads, return_exceptions=True)
        first_status = await status_request
    for answer in answers:
        assert answer == b"new" or isinstance(answer, grpc.aio.AioRpcError), answer
    assert first_status is not None
    assert first_status["is_leader"] is False
    assert await cluster.wait_for_leader() == new


async def test_a_leader_without_a_quorum_says_so_and_answers_no_reads_or_writes(
    cluster: ProcessCluster,
) -> None:
    leader = await cluster.wait_for_leader()
    await cluster.kill(*others(cluster, leader))
    statuses = await cluster.wait_for_statuses(
        lambda found: found[leader]["leader"] is None, "the lone leader to step down"
    )
    assert statuses[leader]["is_leader"] is False
    assert statuses[leader]["state"] in {"Follower", "Candidate"}
    assert (await cluster.admin(leader, "/livez"))[0] == 200
    assert (await cluster.admin(leader, "/readyz"))[0] == 503
    assert (await cluster.admin(leader, "/v1/health"))[0] == 200
    async with cluster.node_client(leader) as client:
        with pytest.raises(grpc.aio.AioRpcError):
            await client.get("k")
        with pytest.raises(grpc.aio.AioRpcError):
            await client.put("k", b"v")
    for node_id in others(cluster, leader):
        cluster.start(node_id)
    await cluster.wait_for_leader(members=3)
    async with cluster.node_client(leader) as client:
        await client.put("k", b"v")


async def test_nodes_of_one_machine_measure_clocks_that_agree(cluster: ProcessCluster) -> None:
    await cluster.wait_for_leader()

    async def measured() -> bool:
        statuses = (await cluster.statuses()).values()
        return all(
            status is not None
            and status["clock_offset_ms"] is not None
            and all(peer["clock_offset_ms"] is not None for peer in status["peers"])
            for status in statuses
        )

    deadline = time.monotonic() + 20
    while not await measured():
        assert time.monotonic() < deadline, await cluster.statuses()
        await asyncio.sleep(0.1)
    for node_id, status in (await cluster.statuses()).items():
        assert status is not None
        offsets = [status["clock_offset_ms"], *(peer["clock_offset_ms"] for peer in status["peers"])]
        assert max(abs(offset) for offset in offsets) < 200, f"node {node_id}"
        _, metrics = await cluster.admin(node_id, "/v1/metrics")
        assert metrics.count("metasrv_raft_peer_clock_offset_seconds{") == 2
        assert "metasrv_node_clock_offset_seconds " in metrics
        _, ready = await cluster.admin(node_id, "/readyz?verbose")
        assert "[+]clock ok: " in ready

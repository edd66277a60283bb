"""The read-only switch, the quota, drains and compaction, by metactl on real nodes, as in docs/operating.md."""

from __future__ import annotations

import asyncio
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from metasrv.client import AsyncClient
from metasrv.model.errors import WriteRefusedError
from metasrv.testing.history import Operation
from metasrv.testing.linearizability import check
from metasrv.testing.models import REFUSED, SwitchedRegisterModel
from metasrv.testing.processes import ProcessCluster
from tests.support.metactl import metactl

FEATURE = ("set-feature", "--feature", "write-limits", "--enable", "true")
READ_ONLY = "the cluster is read-only, an operator has turned writes off"


class Operator:
    """Runs metactl against a node's admin API, or its client port."""

    def __init__(self, cluster: ProcessCluster) -> None:
        self.cluster = cluster

    async def __call__(self, node_id: int, *arguments: object, code: int = 0) -> str:
        """What it prints on stdout, or on stderr when it is to fail."""
        address = self.cluster.nodes[node_id].admin
        ran = await metactl(*arguments, "--admin-api-address", address, code=code)
        return ran.err if code else ran.out

    async def status(self, node_id: int) -> str:
        return (await metactl("status", "--grpc-api-address", self.cluster.nodes[node_id].grpc)).out

    async def metric(self, node_id: int, name: str) -> float:
        _, page = await self.cluster.admin(node_id, "/v1/metrics")
        return float(next(line for line in page.splitlines() if line.startswith(f"{name} ")).split()[1])


async def led(start_cluster: Any, **settings: Any) -> tuple[ProcessCluster, Operator, int, list[int]]:
    """Three nodes with the feature on; the leader and the others."""
    cluster: ProcessCluster = start_cluster(3)
    for node in cluster.nodes.values():
        node.settings.update(settings)
        node.write_config()
    for node_id in (1, 2, 3):
        cluster.start(node_id)
    leader = await cluster.wait_for_leader(members=3)
    await cluster.wait_for_ready(1, 2, 3)
    return cluster, Operator(cluster), leader, [node_id for node_id in (1, 2, 3) if node_id != leader]


async def refusal_of(client: AsyncClient, key: str = "k", value: bytes = b"v") -> str:
    with pytest.raises(WriteRefusedError) as refused:
        await client.upsert(key, value)
    return str(refused.value)


async def test_a_read_only_cluster_takes_no_write_and_does_everything_else(start_cluster: Any) -> None:
    cluster, operator, leader, (follower, other) = await led(start_cluster)
    assert "set-feature --feature write-limits" in await operator(follower, "cluster", "read-only", "on", code=1)
    await operator(leader, *FEATURE)
    async with cluster.client(leader) as client, cluster.client(follower) as second:
        await client.upsert("kept", b"1")
        await client.upsert("lease", b"1", ttl_ms=300)
        watch = asyncio.create_task(first_change(second, "lease"))
        await cluster.wait_until_equal()
        said = await operator(follower, "cluster", "read-only", "on", "--reason", "moving to meta-b")
        assert said == "the cluster is read-only: moving to meta-b\n"
        for node_client in (client, second):
            begun = time.monotonic()
            assert (await refusal_of(node_client)).endswith(f"{READ_ONLY}: moving to meta-b")
            assert time.monotonic() - begun < 2, "the client must not try again until its deadline"
        assert await second.get("kept") is not None
        assert await asyncio.wait_for(watch, 10) is None, "the lease ends, and its watcher hears of it"
        assert (await metactl("export", "--grpc-api-address", cluster.nodes[other].grpc)).out.count("GenericKV") == 1

        await cluster.kill(leader)
        await cluster.wait_for_leader(members=3)
        assert READ_ONLY in await refusal_of(second)
        cluster.start(leader)
        await cluster.wait_for_ready(leader)
        assert READ_ONLY in await refusal_of(client), "it is in the state"
        assert "\nReadOnly: since 2" in await operator.status(leader)
        status = await cluster.status(leader) or {}
        assert status["read_only"]["reason"] == "moving to meta-b"
        assert await operator.metric(leader, "metasrv_cluster_read_only") == 1
        assert "[!]writes warning: the cluster is read-only since" in (await cluster.admin(leader, "/readyz?verbose"))[1]

        assert await operator(leader, "cluster", "read-only", "off") == "the cluster takes writes\n"
        await second.upsert("k", b"v")
        assert "ReadOnly" not in await operator.status(leader)


async def first_change(client: AsyncClient, key: str) -> bytes | None:
    async for event in client.watch(key):
        return None if event.current is None else event.current.data
    raise AssertionError("the watch ended")


async def test_refusals_are_linearizable_under_toggles_and_a_kill(start_cluster: Any) -> None:
    cluster, operator, leader, followers = await led(start_cluster)
    await operator(leader, *FEATURE)
    operations: list[Operation] = []
    stopping = False

    async def client_of(number: int, node_id: int) -> None:
        serial = 0
        async with cluster.client(node_id) as client:
            while not stopping:
                serial += 1
                value, called_at, output = f"{number}-{serial}", time.monotonic(), None
                try:
                    await client.upsert("register", value.encode())
                except WriteRefusedError:
                    output = REFUSED
                operations.append(Operation(number, "r", "write", value, output, called_at, time.monotonic()))
                called_at = time.monotonic()
                record = await client.get("register")
                read = None if record is None else record.data.decode()
                operations.append(Operation(number, "r", "read", None, read, called_at, time.monotonic()))
                await asyncio.sleep(0.02)

    clients = [asyncio.create_task(client_of(number, node_id)) for number, node_id in enumerate((1, 2, 3))]
    for turn, on in enumerate((True, False, True, False)):
        node_id, called_at = (leader, *followers)[turn % 3], time.monotonic()
        await operator(node_id, "cluster", "read-only", "on" if on else "off")
        operations.append(Operation(9, "r", "switch", on, None, called_at, time.monotonic()))
        await asyncio.sleep(0.15)
    stopping = True
    await asyncio.gather(*clients)
    outputs = [operation.output for operation in operations if operation.name == "write"]
    assert set(outputs) == {REFUSED, None}
    assert check(operations, SwitchedRegisterModel()) == []


async def test_a_quota_refuses_growth_and_lets_shrinking_through(start_cluster: Any) -> None:
    cluster, operator, leader, (follower, _) = await led(start_cluster, quota_bytes=20_000)
    await operator(leader, *FEATURE)
    await cluster.wait_for_statuses(
        lambda statuses: all(status["quota_bytes"] == 20_000 for status in statuses.values()), "the quota is everywhere"
    )
    async with cluster.client(follower) as client:
        for number in range(9):
            await client.upsert(f"key/{number}", bytes(2_000))
        text = await refusal_of(client, "key/9", bytes(2_000))
        assert "the quota of the cluster is used up: keys and values take 18045 bytes, the limit is 20000" in text
        await client.upsert("key/0", bytes(1_000))
        await client.delete("key/0")
        await client.upsert("key/9", bytes(2_000))
        await cluster.wait_until_equal()
    for node_id in (1, 2, 3):
        assert await operator.metric(node_id, "metasrv_cluster_data_size_bytes") == 18_045
        assert await operator.metric(node_id, "metasrv_cluster_quota_bytes") == 20_000
        assert await operator.metric(node_id, "metasrv_cluster_writes_refused_total") == 1
        assert "Quota: keys and values take 18045 of 20000 bytes (90%)" in await operator.status(node_id)
        assert "[!]writes warning: keys and values take 18045" in (await cluster.admin(node_id, "/readyz?verbose"))[1]


async def test_a_drained_node_leads_no_more_and_goes_on_replicating(start_cluster: Any) -> None:
    cluster, operator, leader, (follower, _) = await led(start_cluster)
    assert "this is node" in await operator(leader, "node", "drain", follower, code=1)
    said = await operator(leader, "node", "drain", leader)
    assert said.startswith(f"node {leader} is drained")
    second = await cluster.wait_for_leader(members=3)
    assert second != leader
    code, text = await cluster.admin(leader, "/readyz")
    assert code == 503
    assert "[-]draining failed: an operator drained this node" in text
    assert f"Drained: node {leader} " in await operator.status(leader)
    async with cluster.client(leader) as client:
        await client.upsert("through the drained node", b"1")
        assert await client.get("through the drained node") is not None
    await operator(second, "transfer-leader", "--to", leader)
    await cluster.kill(second)
    third = await cluster.wait_for_leader(members=3)
    assert third not in (leader, second)
    cluster.start(second)
    await cluster.wait_for_ready(second)
    await operator(leader, "node", "drain", leader, "--off")
    await cluster.wait_for_ready(1, 2, 3)
    await operator(third, "transfer-leader", "--to", leader, "--wait")
    await operator(leader, "node", "drain", leader)
    assert await cluster.stop(leader, signal.SIGTERM) == 0
    cluster.start(leader)
    await cluster.wait_for_ready(leader)


async def test_the_only_voter_is_not_drained(start_cluster: Any) -> None:
    cluster: ProcessCluster = start_cluster(1)
    cluster.start(1)
    await cluster.wait_for_ready(1)
    assert "is the only voter" in await Operator(cluster)(1, "node", "drain", 1, code=1)
    await cluster.wait_for_ready(1)


async def test_compaction_makes_the_files_smaller_and_says_so(start_cluster: Any, tmp_path: Path) -> None:
    cluster: ProcessCluster = start_cluster(1)
    cluster.start(1)
    await cluster.wait_for_ready(1)
    async with cluster.client(1) as client:
        for number in range(60):
            await client.upsert(f"large/{number}", bytes(50_000))
        for number in range(60):
            await client.delete(f"large/{number}")
        before = await cluster.status(1)
        said = await Operator(cluster)(1, "compact")
        after = await cluster.status(1)
        assert before is not None
        assert after is not None
        assert await client.get("large/0") is None
    assert re.search(r"\d+ log entries purged, \S+ \S+ freed", said)
    assert after["purged"]["index"] >= before["last_applied"]["index"] - 2
    assert after["db_size"] < before["db_size"] / 4
    assert (after["compaction"]["step"], after["compaction"]["error"]) == ("done", None)
    await cluster.restart(1)
    await cluster.wait_for_ready(1)

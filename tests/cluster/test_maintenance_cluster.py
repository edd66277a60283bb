"""The read-only switch, the quota, drains and compaction, by metactl on real nodes, as in docs/operating.md."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any

import pytest

from metasrv.cli import ctl
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
    """Runs metactl in this process against a node's admin API, or its client port."""

    def __init__(self, cluster: ProcessCluster, capsys: pytest.CaptureFixture[str]) -> None:
        self.cluster = cluster
        self._capsys = capsys

    async def __call__(self, node_id: int, *arguments: str, code: int = 0) -> str:
        """What it prints on stdout, or on stderr when it is to fail."""
        address = str(self.cluster.nodes[node_id].admin)
        return await self._run([*arguments, "--admin-api-address", address], code)

    async def status(self, node_id: int) -> str:
        return await self._run(["status", "--grpc-api-address", str(self.cluster.nodes[node_id].grpc)], 0)

    async def export(self, node_id: int) -> str:
        return await self._run(["export", "--grpc-api-address", str(self.cluster.nodes[node_id].grpc)], 0)

    async def _run(self, arguments: list[str], code: int) -> str:
        self._capsys.readouterr()
        assert await asyncio.to_thread(ctl.main, arguments) == code, self._capsys.readouterr()
        printed = self._capsys.readouterr()
        return printed.err if code else printed.out

    async def metric(self, node_id: int, name: str) -> float:
        _, page = await self.cluster.admin(node_id, "/v1/metrics")
        return float(next(line for line in page.splitlines() if line.startswith(f"{name} ")).split()[1])


async def led(
    start_cluster: Any, capsys: pytest.CaptureFixture[str], **settings: Any
) -> tuple[ProcessCluster, Operator, int, list[int]]:
    """Three nodes with the feature on; the leader and the others."""
    cluster: ProcessCluster = start_cluster(3)
    for node in cluster.nodes.values():
        node.settings.update(settings)
        node.write_config()
    for node_id in (1, 2, 3):
        cluster.start(node_id)
    leader = await cluster.wait_for_leader(members=3)
    await cluster.wait_for_ready(1, 2, 3)
    return cluster, Operator(cluster, capsys), leader, [node_id for node_id in (1, 2, 3) if node_id != leader]


async def refusal_of(client: AsyncClient, key: str = "k", value: bytes = b"v") -> str:
    with pytest.raises(WriteRefusedError) as refused:
        await client.upsert(key, value)
    return str(refused.value)


async def test_a_read_only_cluster_takes_no_write_and_does_everything_else(
    start_cluster: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster, operator, leader, (follower, other) = await led(start_cluster, capsys)
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
        assert (await operator.export(other)).count("GenericKV") == 1

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
    await refusals_are_linearizable(cluster, operator)


async def first_change(client: AsyncClient, key: str) -> bytes | None:
    # The node may be a follower that has not applied yet what the leader has acknowledged.
    async for event in client.watch(key, require_leader=True):
        return None if event.current is None else event.current.data
    raise AssertionError("the watch ended")


async def refusals_are_linearizable(cluster: ProcessCluster, operator: Operator) -> None:
    """Writers on every node, and a switch that is turned on and off through every node."""
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
        node_id, called_at = turn % 3 + 1, time.monotonic()
        await operator(node_id, "cluster", "read-only", "on" if on else "off")
        operations.append(Operation(9, "r", "switch", on, None, called_at, time.monotonic()))
        await asyncio.sleep(0.15)
    stopping = True
    await asyncio.gather(*clients)
    outputs = [operation.output for operation in operations if operation.name == "write"]
    assert set(outputs) == {REFUSED, None}
    assert check(operations, SwitchedRegisterModel()) == []


async def test_a_quota_refuses_growth_and_a_drained_node_leads_no_more(
    start_cluster: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster, operator, leader, (follower, other) = await led(start_cluster, capsys, quota_bytes=20_000)
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
    await drained_node_leads_no_more(cluster, operator, leader, other)


async def drained_node_leads_no_more(cluster: ProcessCluster, operator: Operator, leader: int, follower: int) -> None:
    assert "this is node" in await operator(leader, "node", "drain", str(follower), code=1)
    await operator(follower, "node", "drain", str(follower))
    assert (await cluster.admin(follower, "/readyz"))[0] == 503
    assert await operator(follower, "node", "drain", str(follower), "--off") == f"node {follower} is not drained\n"
    assert (await cluster.admin(follower, "/readyz"))[0] == 200

    said = await operator(leader, "node", "drain", str(leader))
    assert said.startswith(f"node {leader} is drained")
    second = await cluster.wait_for_leader(members=3)
    assert second != leader
    code, text = await cluster.admin(leader, "/readyz")
    assert code == 503
    assert "[-]draining failed: an operator drained this node" in text
    assert f"Drained: node {leader} " in await operator.status(leader)
    async with cluster.client(leader) as client:
        await client.upsert("small", b"1")
        assert await client.get("small") is not None, "it goes on serving"
    await cluster.wait_until_equal()
    await operator(second, "transfer-leader", "--to", str(leader))
    await cluster.kill(second)
    third = await cluster.wait_for_leader(members=3)
    assert third not in (leader, second), "neither a transfer nor an election makes it lead"
    await cluster.restart(leader)
    await cluster.wait_for_ready(leader)
    await operator(third, "transfer-leader", "--to", str(leader), "--wait")


async def test_the_program_on_a_node_alone(start_cluster: Any) -> None:
    """Each command as a process of its own; compaction makes the files smaller and says so."""
    cluster: ProcessCluster = start_cluster(1)
    cluster.start(1)
    await cluster.wait_for_ready(1)
    address = ("--admin-api-address", cluster.nodes[1].admin)
    assert "is the only voter" in (await metactl("node", "drain", 1, *address, code=1)).err
    await cluster.wait_for_ready(1)
    refused = (await metactl("cluster", "read-only", "on", *address, code=1)).err
    assert "metactl set-feature --feature write-limits --enable true" in refused
    async with cluster.client(1) as client:
        for number in range(60):
            await client.upsert(f"large/{number}", bytes(50_000))
        for number in range(60):
            await client.delete(f"large/{number}")
        before = await cluster.status(1)
        said = (await metactl("compact", *address)).out
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

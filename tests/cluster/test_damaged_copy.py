"""A byte that flips in one node's state file is found while the cluster runs, and the node is rebuilt by one command."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from metasrv.model.errors import MetasrvError
from metasrv.model.types import KVMeta, SeqV
from metasrv.state.digest import DIGEST_MASK
from metasrv.state.format import META_APPLIED, applied_out
from metasrv.state.machine import StateMachine
from metasrv.testing.processes import ProcessCluster

FOUND_SECONDS_MAX = 60.0
KEY = "key/0250/marked"
MARK = b"the value in which a byte flips"


def state_file(cluster: ProcessCluster, node_id: int) -> Path:
    return cluster.nodes[node_id].raft_dir / "df_meta" / "V004" / "state" / "state.db"


def flip(path: Path, mark: bytes) -> None:
    """Change one byte on the disk, under the running node."""
    content = path.read_bytes()
    at = content.index(mark)
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(bytes([content[at] ^ 0x20]))


async def copies(cluster: ProcessCluster, node_id: int) -> dict[str, Any]:
    status = await cluster.status(node_id)
    assert status is not None
    found: dict[str, Any] = status["copies"]
    return found


async def wait_for(cluster: ProcessCluster, node_id: int, what: str, seconds: float) -> dict[str, Any]:
    deadline = time.monotonic() + seconds
    while not (found := await copies(cluster, node_id))[what]:
        assert time.monotonic() < deadline, f"{found}\n{cluster.logs(node_id)}"
        await asyncio.sleep(0.2)
    return found


async def in_the_file(cluster: ProcessCluster, node_id: int) -> None:
    """Wait until the value has left the write-ahead log, as after 16 MiB of writes."""
    code = await cluster.stop(node_id)
    assert code == 0
    cluster.start(node_id)
    await cluster.wait_for_leader(members=3)
    await cluster.wait_for_ready(node_id)


async def test_a_flipped_byte_is_found_within_a_minute_and_the_node_is_rebuilt() -> None:
    async with ProcessCluster(3) as cluster:
        leader = await cluster.boot()
        async with cluster.client(leader) as client:
            for at in range(500):
                await client.upsert(f"key/{at:04}", b"v" * 100)
            await client.upsert(KEY, MARK)
        await cluster.wait_until_equal()
        await in_the_file(cluster, leader)
        damaged = leader
        flip(state_file(cluster, damaged), MARK)
        started = time.monotonic()
        found = await wait_for(cluster, damaged, "damage", FOUND_SECONDS_MAX)
        assert time.monotonic() - started < FOUND_SECONDS_MAX
        assert f"key {KEY!r}" in found["damage"]
        assert not found["serves"]
        code, text = await cluster.admin(damaged, "/readyz")
        assert code == 503
        assert "[-]copy failed" in text
        code, text = await cluster.admin(damaged, "/v1/metrics")
        assert "metasrv_node_copy_damaged 1" in text
        assert "copy of the state is damaged" in cluster.logs(damaged, lines=1000)
        async with cluster.client(damaged, timeout_ms=2_000) as client:
            with pytest.raises(MetasrvError):
                await client.get("key/0001", stale=True)
        # The others serve, without it as their leader, and name it.
        other = next(node_id for node_id in cluster.nodes if node_id != damaged)
        new_leader = await cluster.wait_for_leader(members=3)
        assert new_leader != damaged
        assert str(damaged) in (await wait_for(cluster, other, "differing", 20.0))["differing"]
        async with cluster.client(other) as client:
            await client.upsert("key/after", b"v")

        # A restart does not forget it; then one command.
        await cluster.restart(damaged)
        assert (await copies(cluster, damaged))["damage"]
        assert await cluster.stop(damaged) == 0
        node = cluster.nodes[damaged]
        node.settings["join"] = [str(each.advertised) for each in cluster.nodes.values() if each is not node]
        node.write_config()
        cluster.start(damaged, "--rebuild")
        await cluster.wait_for_leader(members=3)
        await cluster.wait_for_ready(damaged, timeout_s=60.0)
        await cluster.wait_until_equal()
        assert not (await copies(cluster, damaged))["damage"]
        async with cluster.client(damaged) as client:
            record = await client.get(KEY)
        assert record is not None
        assert record.data == MARK
        assert list(node.raft_dir.glob("aside-*/df_meta"))


def apply_something_else(path: str, key: str) -> None:
    """Leave a file that is good in itself, as if this node alone had applied another value."""
    machine = StateMachine.open(path)
    store, applied = machine._store, machine._applied
    record = store.read(key)
    assert record is not None
    gain = store.put(key, SeqV(record.seq, b"another value", record.meta or KVMeta()), record)
    store.set_meta(META_APPLIED, applied_out(applied._replace(digest=(applied.digest + gain) & DIGEST_MASK)))
    machine.close()


async def test_a_node_that_applied_something_else_is_found_by_the_others() -> None:
    """Its own file looks good: only the comparison shows it, and a majority says who is wrong."""
    async with ProcessCluster(3) as cluster:
        leader = await cluster.boot()
        async with cluster.client(leader) as client:
            for at in range(300):
                await client.upsert(f"key/{at:04}", b"v" * 20)
        await cluster.wait_until_equal()
        wrong = next(node_id for node_id in cluster.nodes if node_id != leader)
        assert await cluster.stop(wrong) == 0
        apply_something_else(str(state_file(cluster, wrong)), "key/0123")
        cluster.start(wrong)
        await cluster.wait_for_leader(members=3)
        found = await wait_for(cluster, wrong, "damage", FOUND_SECONDS_MAX)
        assert not found["serves"]
        deadline = time.monotonic() + 10
        while "the keys from 'key/0123' to before 'key/0124'" not in (await copies(cluster, wrong))["damage"]:
            assert time.monotonic() < deadline, cluster.logs(wrong)
            await asyncio.sleep(0.2)
        # Every other member names it.
        differing = (await wait_for(cluster, leader, "differing", 20.0))["differing"]
        assert list(differing) == [str(wrong)]
        assert (await cluster.admin(leader, "/readyz"))[0] == 200

"""A lost majority: `metasrv recover` and `check` with real nodes, as docs/runbooks/no-leader.md has them."""

from __future__ import annotations

import signal

import pytest

from metasrv.model.errors import NotDoneError, UnknownOutcomeError
from metasrv.testing.processes import ProcessCluster
from tests.support.metactl import metasrv

ACKNOWLEDGED = {f"k{number}": b"v" * number for number in range(40)}


async def fill(cluster: ProcessCluster) -> None:
    async with cluster.client() as client:
        for key, value in ACKNOWLEDGED.items():
            await client.upsert(key, value)
    await cluster.wait_until_equal()


async def test_a_survivor_becomes_a_cluster_that_others_join(cluster: ProcessCluster) -> None:
    await fill(cluster)
    leader = await cluster.wait_for_leader()
    survivor, *lost = sorted(cluster.nodes, key=lambda node_id: node_id != leader)
    old_id = (await cluster.statuses())[survivor]["cluster_id"]  # type: ignore[index]
    await cluster.kill(*lost)
    async with cluster.client(survivor, timeout_ms=1_000) as client:
        with pytest.raises((NotDoneError, UnknownOutcomeError)):
            await client.upsert("told nobody", b"1")
    for node_id in lost:
        cluster.wipe(node_id)

    file = cluster.nodes[survivor].config_file
    recover = ("recover", "--force-new-cluster", "-c", file)
    running = await metasrv(*recover, "--yes-i-lost-the-majority", code=5)
    assert "is in use by another running metasrv process" in running.err
    cluster.send_signal(survivor, signal.SIGKILL)  # not even a clean stop
    await cluster.wait_exit(survivor)
    checked = await metasrv("check", cluster.nodes[survivor].raft_dir)
    assert checked.out.endswith("sound\n")
    planned = await metasrv(*recover, code=1)
    assert "as its only member" in planned.out
    assert "--yes-i-lost-the-majority carries the plan out" in planned.err
    done = await metasrv(*recover, "--yes-i-lost-the-majority")
    assert "done: the old data is in" in done.out

    cluster.start(survivor)
    await cluster.wait_for_leader()
    await cluster.wait_for_ready(survivor)
    for node_id in lost:
        cluster.nodes[node_id].settings["join"] = [str(cluster.nodes[survivor].raft)]
        cluster.nodes[node_id].settings.pop("single", None)
        cluster.nodes[node_id].write_config()
        cluster.start(node_id)
    await cluster.wait_for_leader(members=3)
    await cluster.wait_for_ready()
    for node_id in cluster.nodes:
        async with cluster.client(node_id) as client:
            found = {key: record.data for key, record in await client.list_prefix("k")}
        assert found == ACKNOWLEDGED
    statuses = await cluster.statuses()
    ids = {status["cluster_id"] for status in statuses.values() if status is not None}
    assert len(ids) == 1
    assert old_id not in ids
    async with cluster.client() as client:
        assert (await client.upsert("after", b"1")).result is not None


async def test_it_is_refused_while_a_majority_answers(cluster: ProcessCluster) -> None:
    await fill(cluster)
    await cluster.stop(1)
    recover = ("recover", "--force-new-cluster", "--yes-i-lost-the-majority", "-c", cluster.nodes[1].config_file)
    refused = await metasrv(*recover, code=1)
    assert "answers as node 2 of this cluster" in refused.out
    assert "nodes [1, 2, 3] of [1, 2, 3] are there" in refused.err
    await cluster.kill(2)
    refused = await metasrv(*recover, code=1)
    assert "nodes [1, 3] of [1, 2, 3] are there" in refused.err
    # One that hangs may come back: it counts until somebody stops it.
    cluster.pause(3)
    refused = await metasrv(*recover, code=1)
    assert "listens, and cannot be asked" in refused.out
    cluster.resume(3)
    cluster.start(1)
    await cluster.wait_for_leader()
    async with cluster.client(1, 3) as client:
        assert {key: record.data for key, record in await client.list_prefix("")} == ACKNOWLEDGED
    wrong = await metasrv("recover", "-c", cluster.nodes[1].config_file, code=2)
    assert "--force-new-cluster" in wrong.err


async def test_a_check_names_what_is_damaged_and_what_helps(cluster: ProcessCluster) -> None:
    await fill(cluster)
    node = cluster.nodes[2]
    running = await metasrv("check", node.raft_dir, code=5)
    assert "is in use by another running metasrv process" in running.err
    await cluster.admin(2, "/v1/ctrl/trigger_snapshot")
    await cluster.wait_until(lambda: any((node.raft_dir / "df_meta/V004/snapshot").glob("*.snap")), "a snapshot")
    await cluster.stop(2)
    sound = await metasrv("check", node.raft_dir)
    assert [line.partition(" ")[0] for line in sound.out.splitlines()] == [
        "identity:",
        "log:",
        "state:",
        "snapshot",
        "sound",
    ]
    state = node.raft_dir / "df_meta/V004/state/state.db"
    data = bytearray(state.read_bytes())
    data[data.index(b"v" * 39)] ^= 1
    state.write_bytes(data)
    damaged = await metasrv("check", node.raft_dir, code=6)
    assert "state: DAMAGED: " in damaged.out
    assert "key 'k39'" in damaged.out
    assert "metasrv --rebuild -c FILE" in damaged.out
    # The command that it names.
    node.settings["join"] = [str(cluster.nodes[other].raft) for other in (1, 3)]
    node.write_config()
    cluster.start(2, "--rebuild")
    await cluster.wait_for_leader(members=3)
    await cluster.wait_for_ready(2)
    async with cluster.client(2) as client:
        assert {key: record.data for key, record in await client.list_prefix("")} == ACKNOWLEDGED

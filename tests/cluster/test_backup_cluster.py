"""Backup and restore with the real programs against real nodes: docs/runbooks/restore.md, command by command."""

from __future__ import annotations

import json
import stat
from pathlib import Path

from metasrv.client import AsyncClient
from metasrv.testing.processes import ProcessCluster
from tests.conftest import StartCluster
from tests.support.metactl import metactl

VALUES = {
    "large": b"x" * 5000,
    "\u00e4/\n": bytes(range(256)),
    **{f"d{number % 3}/k{number}": b"v" * number for number in range(60)},
}


async def fill(cluster: ProcessCluster) -> None:
    async with cluster.client() as client:
        for key, value in VALUES.items():
            await client.upsert(key, value)
        await client.upsert("expires", b"later", ttl_ms=3_600_000)
    await cluster.wait_until_equal()


async def check_values(cluster: ProcessCluster, *node_ids: int) -> None:
    async with cluster.client(*node_ids) as client:
        found = {key: record.data for key, record in await client.list_prefix("")}
    assert found == {**VALUES, "expires": b"later"}


def initial_cluster(cluster: ProcessCluster, *node_ids: int) -> list[str]:
    return [f"{node_id}={cluster.nodes[node_id].raft}" for node_id in node_ids or cluster.nodes]


async def cluster_ids(cluster: ProcessCluster) -> set[str]:
    return {status["cluster_id"] for status in (await cluster.statuses()).values() if status is not None}


async def test_three_nodes_are_restored_from_nothing_at_other_addresses(
    cluster: ProcessCluster, start_cluster: StartCluster
) -> None:
    await fill(cluster)
    old_ids = await cluster_ids(cluster)
    archive = cluster.directory / "monday.archive"
    saved = await metactl("snapshot", "save", archive, "--grpc-api-address", cluster.nodes[2].grpc)
    assert "confirmed: yes, by a quorum" in saved.out
    assert stat.S_IMODE(archive.stat().st_mode) == 0o600
    inspected = await metactl("snapshot", "inspect", archive)
    assert f"Keys: {len(VALUES) + 1}" in inspected.out
    assert f"ClusterId: {old_ids.copy().pop()}" in inspected.out

    # Other ids and other addresses, as another cluster beside the first has them.
    new: ProcessCluster = start_cluster(3)
    for _ in range(3):
        new.add_node()
    for node_id in (1, 2, 3):
        new.forget(node_id)
    for node_id, node in new.nodes.items():
        node.settings["single" if node_id == 4 else "join"] = True if node_id == 4 else [str(new.nodes[4].raft)]
        if node_id == 4:
            node.settings.pop("join", None)
        node.write_config()
        restored = await metactl(
            "snapshot",
            "restore",
            archive,
            "--raft-dir",
            node.raft_dir,
            "--id",
            node_id,
            "--initial-cluster",
            *initial_cluster(new),
        )
        assert "cluster id: " in restored.err
    await new.boot()
    await new.wait_for_ready()
    await check_values(new)
    await new.wait_until_equal()
    assert len(await cluster_ids(new)) == 1
    assert await cluster_ids(new) != old_ids
    statuses = await new.wait_for_statuses(
        lambda found: all(len(status["voters"]) == 3 for status in found.values()), "three voters"
    )
    # What each node registered at its start, and nothing of the old cluster (addresses of a backup are another's).
    voters = {voter["name"]: voter["endpoint"]["port"] for voter in statuses[4]["voters"]}
    assert voters == {str(node_id): node.raft.port for node_id, node in new.nodes.items()}
    async with new.client() as client:
        reply = await client.upsert("after", b"1")
        assert reply.result is not None
        assert reply.result.seq > len(VALUES)
    await check_values(cluster)  # the old cluster never heard of it


async def test_one_node_is_restored_and_others_join_it(cluster: ProcessCluster, start_cluster: StartCluster) -> None:
    await fill(cluster)
    archive = cluster.directory / "archive"
    await metactl("snapshot", "save", archive, "--grpc-api-address", cluster.nodes[1].grpc)
    new: ProcessCluster = start_cluster(3)
    await metactl(
        "snapshot", "restore", archive, "--raft-dir", new.nodes[1].raft_dir, "--initial-cluster", *initial_cluster(new, 1)
    )
    refused = await metactl(
        "snapshot",
        "restore",
        archive,
        "--raft-dir",
        new.nodes[1].raft_dir,
        "--initial-cluster",
        *initial_cluster(new, 1),
        code=1,
    )
    assert "already holds the data of a node" in refused.err
    await new.boot()
    await new.wait_for_ready()
    for node_id in new.nodes:
        await check_values(new, node_id)


async def test_a_node_without_a_quorum_saves_what_it_has_only_when_asked_to(cluster: ProcessCluster) -> None:
    await fill(cluster)
    await cluster.kill(2, 3)
    archive = cluster.directory / "archive"
    address = cluster.nodes[1].grpc
    refused = await metactl("snapshot", "save", archive, "--grpc-api-address", address, code=1)
    assert "--local saves what it has" in refused.err
    assert not archive.exists()
    saved = await metactl("snapshot", "save", archive, "--grpc-api-address", address, "--local")
    assert "confirmed: no: it ends at entry" in saved.out
    inspected = await metactl("snapshot", "inspect", archive)
    assert "Confirmed: no: " in inspected.out
    assert f"Keys: {len(VALUES) + 1}" in inspected.out


def differing_lines(before: str, after: str) -> set[tuple[str, str]]:
    """Tree and kind of each line that is not in both; the others stand in the same order."""
    lines = [before.splitlines(), after.splitlines()]
    differing = set(lines[0]) ^ set(lines[1])
    assert len(set(lines[0])) == len(lines[0])
    assert [line for line in lines[0] if line not in differing] == [line for line in lines[1] if line not in differing]
    trees = [json.loads(line) for line in differing]
    return {(tree, *body) for tree, body in trees}


async def test_export_import_export_is_the_same_but_for_named_lines(
    cluster: ProcessCluster, start_cluster: StartCluster, tmp_path: Path
) -> None:
    await fill(cluster)
    for node_id in cluster.nodes:
        assert await cluster.stop(node_id) == 0
    first, second = tmp_path / "first", tmp_path / "second"
    await metactl("export", "--raft-dir", cluster.nodes[3].raft_dir, "--db", first)
    # From standard input, with the flags of older scripts.
    await metactl("--import", "--raft-dir", tmp_path / "same", given=first.read_bytes())
    await metactl("--export", "--raft-dir", tmp_path / "same", "--db", second)
    before, after = first.read_text().splitlines(), second.read_text().splitlines()
    assert before[4] == '["raft_log",{"Purged":null}]'
    assert '"Purged":{"leader_id"' in after[4], "the new log begins where the old one ended"
    assert [*before[:4], *before[5:]] == [*after[:4], *after[5:]]

    new: ProcessCluster = start_cluster(3)
    for node_id, node in new.nodes.items():
        await metactl(
            "import",
            "--raft-dir",
            node.raft_dir,
            "--id",
            node_id,
            "--db",
            first,
            "--initial-cluster",
            ",".join(initial_cluster(new)),
        )
    printed = await metactl("export", "--raft-dir", new.nodes[1].raft_dir)
    assert differing_lines(first.read_text(), printed.out) == {
        ("raft_log", "NodeId"),
        ("raft_log", "Purged"),
        ("state_machine/0", "StateMachineMeta"),
        ("state_machine/0", "Nodes"),
    }
    await new.boot()
    await check_values(new)
    # A cluster of its own by now: an election, members that registered, nothing else.
    await new.wait_until_equal()
    after_start = await metactl("export", "--grpc-api-address", new.nodes[1].grpc)
    assert differing_lines(first.read_text(), after_start.out) == {
        ("raft_log", "NodeId"),
        ("raft_log", "Vote"),
        ("raft_log", "Committed"),
        ("raft_log", "Purged"),
        ("state_machine/0", "StateMachineMeta"),
        ("state_machine/0", "Nodes"),
    }
    running = await metactl("export", "--raft-dir", new.nodes[1].raft_dir, code=1)
    assert "is in use by another running metasrv process" in running.err
    refused = await metactl("import", "--raft-dir", new.nodes[1].raft_dir, "--db", first, code=1)
    assert "is in use by another running metasrv process" in refused.err


async def test_export_import_export_is_the_same_after_purges_with_users_and_a_quota(
    start_cluster: StartCluster, tmp_path: Path
) -> None:
    secrets = {"METASRV_GRPC_PASSWORD": "sesame", "METASRV_ADMIN_TOKEN": "of operators"}
    settings = {"snapshot_logs_since_last": 20, "max_applied_log_to_keep": 5, "quota_bytes": 10_000_000}
    cluster: ProcessCluster = start_cluster(1, settings=settings)
    node = cluster.nodes[1]
    cluster.start(1, **secrets)
    await cluster.wait_for_ready(1)
    for feature in ("users", "write-limits"):
        turn_on = ("set-feature", "--feature", feature, "--enable", "true")
        await metactl(*turn_on, "--admin-api-address", node.admin, environment=secrets)
    for change in (("add",), ("grant", "--right", "read", "--prefix", "d0/")):
        arguments = ("user", change[0], "--name", "app", *change[1:], "--admin-api-address", node.admin)
        await metactl(*arguments, given=b"open\n", environment=secrets)
    async with AsyncClient([str(node.grpc)], password=secrets["METASRV_GRPC_PASSWORD"]) as client:
        for key, value in VALUES.items():
            await client.upsert(key, value)
        for number in range(20):
            await client.upsert(f"gone/{number}", b"", ttl_ms=1)
            await client.upsert(f"leased/{number}", b"", ttl_ms=3_600_000 + number)
            await client.delete(f"d0/k{number}")
    assert await cluster.stop(1) == 0
    first, second = tmp_path / "first", tmp_path / "second"
    await metactl("export", "--raft-dir", node.raft_dir, "--db", first)
    await metactl("import", "--raft-dir", tmp_path / "same", "--db", first)
    await metactl("export", "--raft-dir", tmp_path / "same", "--db", second)
    before, after = first.read_bytes().splitlines(), second.read_bytes().splitlines()
    assert json.loads(before[4])[1]["Purged"]["index"] > 20
    assert sum(b'"Expire"' in line for line in before) >= 20
    assert [*before[:4], *before[5:]] == [*after[:4], *after[5:]]

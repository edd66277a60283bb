"""Backups that the leader makes by itself, with real nodes: over changes of the leader, until one of them is restored."""

from __future__ import annotations

from pathlib import Path

import pytest

from metasrv.testing.processes import ProcessCluster
from tests.conftest import StartCluster
from tests.support.metactl import metactl
from tests.support.settings import configure

EVERY_SECONDS = 2
PASSWORD = "correct horse"


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir() if path.name.endswith(".archive"))


async def wait_for_backups(cluster: ProcessCluster, directory: Path, more_than: list[str]) -> list[str]:
    """The names once there is one that was not there."""
    await cluster.wait_until(lambda: bool(set(names(directory)) - set(more_than)), "another backup", 20)
    return names(directory)


async def test_the_schedule_goes_on_when_the_leader_changes_and_a_backup_is_restored(
    start_cluster: StartCluster, tmp_path: Path
) -> None:
    cluster: ProcessCluster = start_cluster(3)
    directory, key = tmp_path / "backups", tmp_path / "key"
    directory.mkdir()
    key.write_bytes(bytes(range(32)))
    foreign = directory / "metasrv-beef-20231114T221320123Z-42.archive"
    foreign.write_text("of another cluster")
    backup = {"every_seconds": EVERY_SECONDS, "keep": 2, "directory": str(directory), "encrypt_with": str(key)}
    configure(cluster, {"grpc_password": PASSWORD}, "backup", backup)
    leader = await cluster.boot()
    saved = await wait_for_backups(cluster, directory, [foreign.name])
    asked = await metactl("backup", "now", "--admin-api-address", cluster.nodes[leader].admin)
    assert "written and checked in" in asked.out
    await cluster.kill(leader)
    cluster.start(leader)
    leader = await cluster.wait_for_leader()
    saved = await wait_for_backups(cluster, directory, names(directory))
    times = [one.split("-")[2] for one in saved if one != foreign.name]
    assert len(times) == 2
    assert foreign.read_text() == "of another cluster"
    status = await cluster.status(leader)
    assert status is not None
    assert status["backup"]["failure"] is None
    assert status["backup"]["age_seconds"] < EVERY_SECONDS * 5
    other = next(node_id for node_id in cluster.nodes if node_id != leader)
    refused = await metactl("backup", "now", "--admin-api-address", cluster.nodes[other].admin, code=1)
    assert "This node is not leader" in refused.err
    listed = await metactl("backup", "list", "--admin-api-address", cluster.nodes[other].admin)
    assert len(listed.out.splitlines()) == 2
    await restore_the_newest(listed.out.splitlines()[-1].split()[-1], directory, key, start_cluster(1))


async def restore_the_newest(name: str, directory: Path, key: Path, new: ProcessCluster) -> None:
    """Inspect and restore it as the runbook does; the restored node has the key of tokens."""
    kept = directory.parent / "kept.archive"
    kept.write_bytes((directory / name).read_bytes())
    inspected = await metactl("snapshot", "inspect", kept, "--decrypt-with", key)
    assert "Encrypted: yes" in inspected.out
    assert "SHA-256: " in inspected.out
    members = f"1={new.nodes[1].raft}"
    where = ("--raft-dir", new.nodes[1].raft_dir, "--initial-cluster", members)
    restored = await metactl("snapshot", "restore", kept, "--decrypt-with", key, *where)
    assert "imported" in restored.err
    await new.boot()


@pytest.mark.long
async def test_secrets_go_into_an_archive_of_root_and_into_the_restored_cluster(
    start_cluster: StartCluster, tmp_path: Path
) -> None:
    cluster: ProcessCluster = start_cluster(1)
    configure(cluster, {"grpc_password": PASSWORD, "admin_token": "a token of the admin API"})
    await cluster.boot()
    address, admin = cluster.nodes[1].grpc, ("--admin-api-address", cluster.nodes[1].admin)
    environment = {"METASRV_GRPC_PASSWORD": PASSWORD, "METASRV_ADMIN_TOKEN": "a token of the admin API"}
    await metactl("set-feature", "--feature", "users", "--enable", "true", *admin, environment=environment)
    await metactl("user", "add", "--name", "app", *admin, given=b"the password of app\n", environment=environment)
    await metactl("user", "grant", "--name", "app", "--right", "read", "--prefix", "", *admin, environment=environment)
    whole, without, of_app = tmp_path / "whole", tmp_path / "without", tmp_path / "of-app"
    saved = await metactl("snapshot", "save", whole, "--grpc-api-address", address, environment=environment)
    assert "users with the hashes of their passwords" in saved.out
    await metactl(
        "snapshot", "save", without, "--without-secrets", "--grpc-api-address", address, environment=environment
    )
    app = {"METASRV_GRPC_USER": "app", "METASRV_GRPC_PASSWORD": "the password of app"}
    saved = await metactl("snapshot", "save", of_app, "--grpc-api-address", address, environment=app)
    assert "gives the key of tokens and users only to root" in saved.err
    assert "SecretsHeld: 1 users, the key of tokens" in (await metactl("snapshot", "inspect", whole)).out
    for archive, word in ((whole, "are there: 2 secrets"), (without, "makes a new key")):
        new: ProcessCluster = start_cluster(1)
        configure(new, {"grpc_password": PASSWORD, "admin_token": "a token of the admin API"})
        members = f"1={new.nodes[1].raft}"
        restored = await metactl(
            "snapshot", "restore", archive, "--raft-dir", new.nodes[1].raft_dir, "--initial-cluster", members
        )
        assert word in restored.err
        if archive != whole:
            continue
        await new.boot()
        listed = await metactl("user", "list", "--admin-api-address", new.nodes[1].admin, environment=environment)
        assert "app" in listed.out
        get = ("get", "--key", "x", "--grpc-api-address", new.nodes[1].grpc)
        await metactl(*get, environment=app)

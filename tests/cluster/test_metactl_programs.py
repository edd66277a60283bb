"""Commands of metactl and metasrv as programs against a real node: users, profiles, what it logs, its configuration.

Their answers to the letter have tests of their own; here each goes the whole way, from a command line to a node and back.
"""

from __future__ import annotations

import asyncio
import json
import re
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from metasrv.client import AsyncClient
from metasrv.client.answers import WatchEvent
from metasrv.model.errors import InvalidRequestError, RequestError
from metasrv.testing.processes import ProcessCluster
from tests.conftest import StartCluster
from tests.support.metactl import metactl, metasrv
from tests.support.waiting import until

PASSWORD = "of root, of this test"
TOKEN = {"METASRV_ADMIN_TOKEN": "of operators, of this test"}
ROOT = {"METASRV_GRPC_PASSWORD": PASSWORD}


@pytest.fixture
async def node(start_cluster: StartCluster) -> ProcessCluster:
    """One node, whose password is configured as the hash that metactl makes of it."""
    cluster: ProcessCluster = start_cluster(1)
    hashed = (await metactl("hash-password", given=f"{PASSWORD}\n".encode())).out.strip()
    assert PASSWORD not in hashed
    cluster.start(1, METASRV_GRPC_PASSWORD=hashed, **TOKEN)
    await cluster.wait_for_ready(1)
    return cluster


def grpc_of(cluster: ProcessCluster) -> tuple[object, ...]:
    return "--grpc-api-address", cluster.nodes[1].grpc


def admin_of(cluster: ProcessCluster) -> tuple[object, ...]:
    return "--admin-api-address", cluster.nodes[1].admin


async def to_its_end(watch: AsyncIterator[WatchEvent]) -> None:
    async for _ in watch:
        continue


async def test_a_hashed_password_lets_in_and_users_are_managed(node: ProcessCluster) -> None:
    grpc, admin = grpc_of(node), admin_of(node)
    assert "Wrong password" in (await metactl("member-list", *grpc, code=1)).err
    assert (await metactl("member-list", *grpc, environment=ROOT)).out == f"{node.nodes[1].grpc}\n"
    await metactl("upsert", "--key", "app/a/b", "--value", "1", *grpc, environment=ROOT)
    await metactl("trigger-snapshot", *admin, environment=TOKEN)
    directory = node.nodes[1].raft_dir
    await until(lambda: any(directory.rglob("*.snap")), 20.0)
    assert "app/a" in (await metactl("keys-layout", *grpc, environment=ROOT)).out
    opened = await metactl("bench-client-num-conn", "--num", "3", *grpc, environment=ROOT)
    assert opened.out.endswith("bench completed: 3 connections created\n")

    await metactl("set-feature", "--feature", "users", "--enable", "true", *admin, environment=TOKEN)
    await metactl("user", "add", "--name", "app", *admin, given=b"one\n", environment=TOKEN)
    await metactl("user", "grant", "--name", "app", "--right", "read", "--prefix", "app/", *admin, environment=TOKEN)
    assert (await metactl("user", "list", *admin, environment=TOKEN)).out == 'app\n  read "app/"\n'

    async def read(password: str) -> None:
        async with AsyncClient([str(node.nodes[1].grpc)], username="app", password=password) as client:
            assert await client.get("app/a/b") is not None

    await read("one")
    await metactl("user", "set-password", "--name", "app", *admin, given=b"two\n", environment=TOKEN)
    with pytest.raises(InvalidRequestError, match="Wrong password"):
        await read("one")
    await read("two")
    async with AsyncClient([str(node.nodes[1].grpc)], username="app", password="two") as client:
        watch = client.watch("app/", "app0", initial_flush=True)
        await anext(watch)
        await metactl("user", "end-tokens", "--name", "app", *admin, environment=TOKEN)
        with pytest.raises(RequestError, match="the tokens of user app were ended"):
            await asyncio.wait_for(to_its_end(watch), 20)
    await metactl("user", "revoke", "--name", "app", "--prefix", "app/", *admin, environment=TOKEN)
    with pytest.raises(InvalidRequestError, match="no right to read"):
        await read("two")
    assert (await metactl("user", "rotate-key", *admin, environment=TOKEN)).out == "rotate-key: done\n"
    await metactl("user", "remove", "--name", "app", *admin, environment=TOKEN)
    assert (await metactl("user", "list", *admin, environment=TOKEN)).out == ""


async def test_what_a_node_does_and_says_is_seen(node: ProcessCluster, tmp_path: Path) -> None:
    admin = admin_of(node)
    async with AsyncClient([str(node.nodes[1].grpc)], password=PASSWORD) as client:
        await client.upsert("large", b"x" * 10_000)
    graph = tmp_path / "cpu.svg"
    profiled = await metactl("profile", "cpu", "--seconds", 1, "-o", graph, *admin, environment=TOKEN)
    assert f"{graph} is written" in profiled.err
    assert graph.read_text().startswith("<?xml") or "<svg" in graph.read_text()[:500]
    printed = await metactl("profile", "memory", "--seconds", 1, *admin, environment=TOKEN)
    assert re.match(r"[\d,]+ bytes\n", printed.out)
    capture = re.search(r"--base (\S+)", printed.err)
    assert capture is not None
    assert capture[1] in (await metactl("profile", "captures", *admin, environment=TOKEN)).out
    assert (await metactl("profile", "history", *admin, environment=TOKEN)).out.startswith("minute (UTC)")

    await metactl("log-level", "--logger", "metasrv.raft", "--level", "debug", "--for", 60, *admin, environment=TOKEN)
    levels = json.loads((await metactl("log-level", "-o", "json", *admin, environment=TOKEN)).out)["levels"]
    assert [level["level"] for level in levels if level["logger"] == "metasrv.raft"] == ["debug"]
    writes = json.loads((await metactl("slow-writes", "--largest", "-o", "json", *admin, environment=TOKEN)).out)
    assert writes["largest"][0]["size_bytes"] >= 10_000
    bundle = tmp_path / "bundle.tar.gz"
    await metactl("diagnose", "-o", bundle, *admin, environment=TOKEN)
    with tarfile.open(bundle) as archive:
        assert any(name.endswith("summary.md") for name in archive.getnames())


async def test_help_and_the_configuration_of_a_node(node: ProcessCluster) -> None:
    assert (await metactl("help", "snapshot")).out.startswith("Usage: metactl snapshot")
    config = node.nodes[1].config_file
    assert (await metasrv("config", "check", config)).code == 0
    shown = (await metasrv("config", "show", "-c", config)).out
    assert str(node.nodes[1].raft_dir) in shown

"""Users beyond root in a cluster of real processes, managed by metactl: docs/operating.md has the same steps."""

from __future__ import annotations

import asyncio
import io
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from metasrv.cli import ctl
from metasrv.client import AsyncClient
from metasrv.model.errors import InvalidRequestError, RequestError
from metasrv.model.types import SeqV
from metasrv.testing.processes import ProcessCluster

SECRETS = {"METASRV_GRPC_PASSWORD": "sesame", "METASRV_ADMIN_TOKEN": "admin token"}


class Ctl:
    """Runs metactl in this process, with the secrets of the cluster."""

    def __init__(
        self, cluster: ProcessCluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self._cluster, self._monkeypatch, self._capsys = cluster, monkeypatch, capsys
        for name, value in SECRETS.items():
            monkeypatch.setenv(name, value)

    async def __call__(self, node_id: int, *arguments: str, stdin: str = "", code: int = 0) -> str:
        """What it prints on stdout, or on stderr when it is to fail."""
        self._capsys.readouterr()
        self._monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        address = str(self._cluster.nodes[node_id].admin)
        assert await asyncio.to_thread(ctl.main, [*arguments, "--admin-api-address", address]) == code
        printed = self._capsys.readouterr()
        return printed.err if code else printed.out


async def watch_until_it_ends(client: AsyncClient) -> RequestError:
    try:
        async for _ in client.watch("app/", "app0", initial_flush=True):
            pass
    except RequestError as error:
        return error
    raise AssertionError("the watch ended without an error")


async def ended(watch: asyncio.Task[RequestError]) -> str:
    """Why the watch ended; within the second or so that the page promises, with room for a loaded machine."""
    begun = time.monotonic()
    error = await asyncio.wait_for(watch, 10)
    assert time.monotonic() - begun < 10
    return str(error)


async def listed_once_granted(client: AsyncClient, prefix: str) -> list[tuple[str, SeqV]]:
    """The records, once the follower, or its gateways, have applied the grant that the leader has acknowledged."""
    async with asyncio.timeout(5):
        while True:
            try:
                return await client.list_prefix(prefix)
            except InvalidRequestError as error:
                if "has no right to read" not in str(error):
                    raise
            await asyncio.sleep(0.01)


async def until_says(metactl: Ctl, arguments: tuple[str, ...], expected: Callable[[str], bool]) -> None:
    """Until every node prints what is expected: each answers from what it has applied."""
    deadline = time.monotonic() + 10
    for node_id in (1, 2, 3):
        while not expected(text := await metactl(node_id, *arguments)):
            assert time.monotonic() < deadline, f"node {node_id} still says {text}"
            await asyncio.sleep(0.05)


async def test_users_are_the_same_on_every_node_and_end_at_once(
    start_cluster: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster: ProcessCluster = start_cluster(3)
    for node_id in (1, 2, 3):
        cluster.start(node_id, **SECRETS)
    leader = await cluster.wait_for_leader(members=3)
    follower = next(node_id for node_id in (1, 2, 3) if node_id != leader)
    metactl = Ctl(cluster, monkeypatch, capsys)

    refused = await metactl(follower, "user", "add", "--name", "app", stdin="open\n", code=1)
    assert "set-feature --feature users --enable true" in refused
    await metactl(leader, "set-feature", "--feature", "users", "--enable", "true")
    await until_says(metactl, ("list-features",), lambda text: "users" in text.partition("enabled")[2])
    await metactl(follower, "user", "add", "--name", "app", stdin="open\n")
    await metactl(follower, "user", "grant", "--name", "app", "--right", "write", "--prefix", "app/")
    await metactl(leader, "user", "grant", "--name", "app", "--right", "read", "--prefix", "shared/")
    listed = 'app\n  write "app/"\n  read "shared/"\n'
    await until_says(metactl, ("user", "list"), lambda text: text == listed)

    for node_id in (1, 2, 3):
        async with AsyncClient([str(cluster.nodes[node_id].grpc)], username="app", password="open") as client:
            await client.upsert(f"app/{node_id}", b"1")
            assert await client.get("shared/x") is None
            with pytest.raises(InvalidRequestError, match="user app has no right to write the key 'shared/x'"):
                await client.upsert("shared/x", b"1")
    async with AsyncClient([str(cluster.nodes[follower].grpc)], username="app", password="open") as client:
        await client.get("app/1")
        watch = asyncio.create_task(watch_until_it_ends(client))
        await metactl(leader, "user", "revoke", "--name", "app", "--prefix", "shared/")
        await client.upsert("app/1", b"2")
        assert not watch.done()
        await metactl(leader, "user", "revoke", "--name", "app", "--prefix", "app/")
        assert "user app has no right to read the keys from 'app/' to 'app0'" in await ended(watch)
        await metactl(leader, "user", "grant", "--name", "app", "--right", "read", "--prefix", "")
        assert len(await listed_once_granted(client, "app/")) == 3
        watch = asyncio.create_task(watch_until_it_ends(client))
        lines = [line async for line in client.export()]
        assert lines
        assert not [line for line in lines if "scrypt" in line]
        await metactl(follower, "user", "set-password", "--name", "app", stdin="closed\n")
        assert "the tokens of user app were ended" in await ended(watch)
        with pytest.raises(InvalidRequestError, match="Wrong password of user: app"):
            await client.get("app/1")

    # What a node has in its files and in snapshots is there after a restart.
    await metactl(follower, "trigger-snapshot")
    assert await cluster.stop(follower) == 0
    cluster.start(follower, **SECRETS)
    await cluster.wait_for_leader(members=3)
    await cluster.wait_for_ready(follower)
    async with AsyncClient([str(cluster.nodes[follower].grpc)], username="app", password="closed") as client:
        assert await client.get("app/1") is not None
        await metactl(leader, "user", "rotate-key")
        assert await client.get("app/1") is not None, "the client logs in again by itself"
        await metactl(leader, "user", "remove", "--name", "app")
        await until_says(metactl, ("user", "list"), lambda text: text == "")
        with pytest.raises(InvalidRequestError, match="Unknown user: app"):
            await client.get("app/1")


EARLIER_RELEASE = """
from metasrv.model import commands
from metasrv.raft import forwarding, member_features

commands.KNOWN_FEATURES = forwarding.KNOWN_FEATURES = tuple(sorted(member_features.EARLIER_FEATURES))
if {refuses}:
    forwarding.FEATURES = "a question of another release"
"""
"""Python runs this before the node: one that knows no users, and perhaps not the question either."""


async def test_users_stay_off_until_every_member_knows_them(
    start_cluster: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster: ProcessCluster = start_cluster(3)

    def earlier(refuses: bool) -> dict[str, str]:
        site = cluster.directory / f"earlier-{refuses}"
        site.mkdir()
        (site / "sitecustomize.py").write_text(EARLIER_RELEASE.format(refuses=refuses), encoding="utf-8")
        return {**SECRETS, "PYTHONPATH": f"{site}:{Path.cwd()}"}

    for node_id in (1, 2):
        cluster.start(node_id, **SECRETS)
    await cluster.wait_for_leader(members=2)
    cluster.start(3, **earlier(refuses=False))
    leader = await cluster.wait_for_leader(members=3)
    metactl = Ctl(cluster, monkeypatch, capsys)
    turn_on = ("set-feature", "--feature", "users", "--enable", "true")

    assert "users stays off: the release of node 3 does not know it;" in await metactl(leader, *turn_on, code=1)
    await cluster.stop(3)
    assert "users stays off: node 3 could not be asked;" in await metactl(leader, *turn_on, code=1)
    assert "users" not in (await metactl(leader, "list-features")).partition("enabled")[2]
    cluster.start(3, **SECRETS)
    await cluster.wait_for_ready(3)
    leader = await cluster.wait_for_leader(members=3)
    await metactl(leader, *turn_on)
    await metactl(leader, "user", "add", "--name", "app", stdin="open\n")

    late = cluster.add_node()
    cluster.start(late, **earlier(refuses=True))
    text = f"node {late} cannot join: its release does not know what is on in this cluster (users)"
    await cluster.wait_until(lambda: text in cluster.nodes[late].output(), "the joining node to be refused")
    await cluster.kill(late)

    await metactl(leader, "set-feature", "--feature", "users", "--enable", "false")
    assert "feature users is off" in await metactl(leader, "user", "remove", "--name", "app", code=1)
    async with AsyncClient([str(cluster.nodes[leader].grpc)], username="app", password="open") as client:
        with pytest.raises(InvalidRequestError, match="user app has no right to read"):
            await client.get("app/1")
    cluster.pause(3)
    try:
        assert "node 3 could not be asked" in await metactl(leader, *turn_on, code=1)
        await metactl(leader, *turn_on, "--force")
    finally:
        cluster.send_signal(3, signal.SIGCONT)

"""Users beyond root in a cluster of real processes, managed by metactl: docs/operating.md has the same steps."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Callable
from typing import Any

import pytest

from metasrv.cli import ctl
from metasrv.client import AsyncClient
from metasrv.model.errors import InvalidRequestError, RequestError
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
        assert len(await client.list_prefix("app/")) == 3
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

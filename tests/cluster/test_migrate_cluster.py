"""`metactl migrate` between real clusters: docs/runbooks/migrate.md, under a load whose every answer is remembered."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from metasrv.client import AsyncClient
from metasrv.model.errors import InvalidRequestError, NotDoneError, UnknownOutcomeError
from metasrv.model.types import SeqV
from metasrv.testing.processes import ProcessCluster
from tests.conftest import StartCluster
from tests.support.metactl import metactl

VALUES = {
    "large": b"x" * 5000,
    "\u00e4/\n": bytes(range(256)),
    **{f"d{number % 3}/k{number}": b"v" * number for number in range(300)},
}
DEADLINE_SECONDS = 60.0


def addresses(cluster: ProcessCluster) -> str:
    return ",".join(str(node.grpc) for node in cluster.nodes.values())


async def turn_on(cluster: ProcessCluster) -> None:
    node = next(iter(cluster.nodes.values()))
    await metactl("set-feature", "--feature", "migration", "--enable", "true", "--admin-api-address", node.admin)


async def records(cluster: ProcessCluster) -> dict[str, SeqV]:
    async with cluster.client() as client:
        return dict(await client.list_prefix(""))


class Migrating:
    """`metactl migrate` as a process whose notes a test reads."""

    def __init__(self, directory: Path, *arguments: object) -> None:
        self._notes = directory / "migrate.txt"
        with self._notes.open("w") as notes:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "metasrv.cli.ctl", "migrate", *map(str, arguments)],
                stdout=subprocess.PIPE,
                stderr=notes,
                text=True,
            )

    @property
    def notes(self) -> str:
        return self._notes.read_text()

    async def wait_for_note(self, text: str) -> None:
        until = time.monotonic() + DEADLINE_SECONDS
        while text not in self.notes:
            assert time.monotonic() < until, f"{text!r} is not in {self.notes}"
            assert self._process.poll() is None, self.notes
            await asyncio.sleep(0.1)

    async def output(self) -> str:
        """What it printed, once it has ended well."""
        out, _ = await asyncio.to_thread(self._process.communicate, timeout=DEADLINE_SECONDS)
        assert self._process.returncode == 0, self.notes
        return str(out)

    async def interrupt(self) -> None:
        self._process.send_signal(signal.SIGINT)
        await asyncio.to_thread(self._process.wait, DEADLINE_SECONDS)

    def __enter__(self) -> Migrating:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()


class Load:
    """Writers of the source, and what each key must hold in the end: the last value that was acknowledged, or unknown."""

    def __init__(self, cluster: ProcessCluster, keys: int) -> None:
        self._cluster = cluster
        self._keys = keys
        self._tasks: list[asyncio.Task[None]] = []
        self.acknowledged: dict[str, bytes | None] = {}
        self.writes = 0

    def start(self, writers: int = 4) -> None:
        self._tasks = [asyncio.create_task(self._write(number)) for number in range(writers)]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        for ended in await asyncio.gather(*self._tasks, return_exceptions=True):
            assert isinstance(ended, asyncio.CancelledError), ended

    async def _write(self, writer: int) -> None:
        """Each writer has keys of its own, so the last acknowledged value is what must be there."""
        source = random.Random(writer)
        async with self._cluster.client() as client:
            while True:
                key = f"load/{writer}/{source.randrange(self._keys)}"
                self.acknowledged.pop(key, None)  # open until it is answered
                try:
                    if source.random() < 0.3:
                        await client.delete(key)
                        self.acknowledged[key] = None
                    else:
                        value = b"%d " % self.writes + b"x" * source.randrange(1000)
                        ttl_ms = 300 if source.random() < 0.1 else None
                        await client.upsert(key, value, ttl_ms=ttl_ms)
                        if ttl_ms is None:
                            self.acknowledged[key] = value
                    self.writes += 1
                except (NotDoneError, UnknownOutcomeError):
                    continue

    def check(self, found: dict[str, SeqV]) -> None:
        for key, value in self.acknowledged.items():
            record = found.get(key)
            assert (None if record is None else record.data) == value, key


async def check_equal(source: ProcessCluster, target: ProcessCluster, load: Load | None = None) -> None:
    """Both hold the same under the same numbers; the target gives out larger ones."""
    theirs, ours = await records(source), await records(target)
    assert ours == theirs
    assert ours
    if load is not None:
        assert load.writes > 200
        load.check(ours)
    async with target.client() as client:
        reply = await client.upsert("after", b"")
        assert reply.result is not None
        assert reply.result.seq > max(record.seq for record in theirs.values())


async def test_a_cluster_moves_while_it_serves_and_its_leader_is_killed(
    start_cluster: StartCluster, cluster: ProcessCluster
) -> None:
    target: ProcessCluster = start_cluster(1)
    await target.boot()
    async with cluster.client() as client:
        for key, value in VALUES.items():
            await client.upsert(key, value)
        await client.upsert("leased", b"later", ttl_ms=3_600_000)
    between = ("--from", addresses(cluster), "--to", addresses(target))
    refused = await metactl("migrate", *between, code=1)
    assert "metactl set-feature --feature migration --enable true" in refused.err
    await turn_on(target)
    load = Load(cluster, 60)
    load.start()
    with Migrating(cluster.directory, *between) as following:
        await following.wait_for_note("level: ")
        with pytest.raises(InvalidRequestError, match=r"takes the records of cluster .* and no other writes"):
            async with target.client() as client:
                await client.upsert("a", b"")
        leader = await cluster.wait_for_leader()
        await cluster.kill(leader)
        await asyncio.sleep(1.5)
        cluster.start(leader)
        await following.interrupt()
    assert "Traceback" not in following.notes
    with Migrating(cluster.directory, *between, "--cut-over", "--quiet-seconds", 1) as cutting:
        await cutting.wait_for_note("level: stop the writers of the source now")
        assert "going on with a migration: the target has" in cutting.notes
        await load.stop()
        printed = await cutting.output()
    assert "keys, compared one by one" in printed
    assert f"let clients use {next(iter(target.nodes.values())).grpc}" in printed
    await check_equal(cluster, target, load)


async def test_a_migration_is_aborted_and_the_target_is_empty_again(start_cluster: StartCluster) -> None:
    source: ProcessCluster = start_cluster(1)
    target: ProcessCluster = start_cluster(1)
    await source.boot()
    await target.boot()
    await turn_on(target)
    async with source.client() as client:
        for number in range(600):
            await client.upsert(f"k{number}", b"v")
    to = ("--to", addresses(target))
    with Migrating(source.directory, "--from", addresses(source), *to) as following:
        await following.wait_for_note("level: ")
        await following.interrupt()
    aborted = await metactl("migrate", *to, "--abort")
    assert aborted.out == "the migration is aborted; 600 keys that were copied are deleted\n"
    again = await metactl("migrate", *to, "--abort", code=1)
    assert "no migration is under way" in again.err
    assert await records(target) == {}
    async with target.client() as client:
        await client.upsert("a", b"")
    full = await metactl("migrate", "--from", addresses(source), *to, code=1)
    assert "only an empty cluster takes the records of another" in full.err
    same = await metactl("migrate", "--from", addresses(source), "--to", addresses(source), code=1)
    assert "name the same cluster" in same.err
    nowhere = await metactl("migrate", *to, code=1)
    assert "--from is missing" in nowhere.err


@pytest.mark.long
async def test_many_keys_move_to_three_nodes_under_load(start_cluster: StartCluster, cluster: ProcessCluster) -> None:
    target: ProcessCluster = start_cluster(3)
    await target.boot()
    await turn_on(target)
    clients = [AsyncClient([str(node.grpc)]) for node in cluster.nodes.values() for _ in range(8)]

    async def fill(number: int, client: AsyncClient) -> None:
        async with client:
            for key in range(number, 20_000, len(clients)):
                await client.upsert(f"many/{key}", b"v" * (key % 700))

    await asyncio.gather(*(fill(number, client) for number, client in enumerate(clients)))
    load = Load(cluster, 500)
    load.start(8)
    between = ("--from", addresses(cluster), "--to", addresses(target))
    with Migrating(cluster.directory, *between, "--cut-over", "--quiet-seconds", 1) as cutting:
        await asyncio.sleep(2)
        leader = await cluster.wait_for_leader()
        await cluster.kill(leader)
        await asyncio.sleep(1)
        cluster.start(leader)
        await target.kill(await target.wait_for_leader())
        await cutting.wait_for_note("level: stop the writers of the source now")
        await load.stop()
        assert "keys, compared one by one" in await cutting.output()
    await check_equal(cluster, target, load)

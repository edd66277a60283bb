"""`metactl migrate` as a process between real clusters, and a load whose every answer is remembered."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Protocol

from metasrv.client import AsyncClient
from metasrv.model.errors import NotDoneError, UnknownOutcomeError, WriteRefusedError
from metasrv.model.types import SeqV
from metasrv.testing.processes import ProcessCluster
from tests.support.metactl import metactl

DEADLINE_SECONDS = 60.0


def addresses(cluster: ProcessCluster) -> str:
    return ",".join(str(node.grpc) for node in cluster.nodes.values())


async def turn_on(cluster: ProcessCluster) -> None:
    node = next(iter(cluster.nodes.values()))
    await metactl("set-feature", "--feature", "migration", "--enable", "true", "--admin-api-address", node.admin)


class Clients(Protocol):
    """A cluster, of whichever kind, that a client can be made for."""

    def client(self) -> AsyncClient: ...


async def records(cluster: Clients) -> dict[str, SeqV]:
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

    async def interrupt(self, with_signal: signal.Signals = signal.SIGINT) -> int:
        """How it ended: its exit code, or the signal's number below 0."""
        self._process.send_signal(with_signal)
        return await asyncio.to_thread(self._process.wait, DEADLINE_SECONDS)

    def __enter__(self) -> Migrating:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()


class Load:
    """Writers of the source, and what each key must hold in the end: the last value that was acknowledged, or unknown."""

    def __init__(self, cluster: Clients, keys: int) -> None:
        self._cluster = cluster
        self._keys = keys
        self._tasks: list[asyncio.Task[None]] = []
        self.acknowledged: dict[str, bytes | None] = {}
        self.writes = 0
        self.refused = 0
        """Writes that a read-only source did not take."""

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
                before = {name: self.acknowledged.pop(name) for name in (key,) if name in self.acknowledged}
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
                except WriteRefusedError:
                    self.acknowledged.update(before)
                    self.refused += 1
                    await asyncio.sleep(0.05)
                except (NotDoneError, UnknownOutcomeError):
                    continue  # the key is open

    def check(self, found: dict[str, SeqV]) -> None:
        for key, value in self.acknowledged.items():
            record = found.get(key)
            assert (None if record is None else record.data) == value, key


async def check_equal(source: Clients, target: Clients, load: Load | None = None) -> None:
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

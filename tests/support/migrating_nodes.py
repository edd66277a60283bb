"""Migrations between two nodes over the real wire, in the process of the test: the nodes, their records, what is told."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from metasrv.client.answers import WatchEvent
from metasrv.client.connection import Credentials
from metasrv.migration.changes import Pending
from metasrv.migration.following import Migration
from metasrv.migration.source import Source
from metasrv.migration.standstill import Standstill
from metasrv.migration.target import MigrationRefusedError, Target
from metasrv.model import commands as c
from metasrv.model.migration import MIGRATION_NAME
from metasrv.model.types import Membership, SeqV
from tests.support.grpc_node import RunningNode, StartNode

DEADLINE_SECONDS = 30.0


class Notes:
    """What an operator would read."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.noted = asyncio.Event()

    def progress(self, text: str) -> None:
        assert text

    def note(self, text: str) -> None:
        self.notes.append(text)
        self.noted.set()

    async def wait_for(self, text: str) -> None:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not any(text in note for note in self.notes):
                self.noted.clear()
                await self.noted.wait()


class OddSource(Source):
    """`mangle` gets each event and gives those that arrive; `exported` is called behind each export."""

    def __init__(
        self,
        address: str,
        mangle: Callable[[WatchEvent], list[WatchEvent]] = lambda event: [event],
        exported: Callable[[int], None] = lambda number: None,
    ) -> None:
        super().__init__([address], Credentials())
        self._mangle = mangle
        self._exported = exported
        self.exports = 0

    @asynccontextmanager
    async def watching(self, pending: Pending) -> AsyncIterator[asyncio.Task[None]]:
        mangle = self._mangle

        class Mangled:
            @staticmethod
            def event(event: WatchEvent) -> None:
                for each in mangle(event):
                    pending.event(each)

        async with super().watching(Mangled()) as task:  # type: ignore[arg-type]
            yield task

    async def export(self, path: str) -> None:
        await super().export(path)
        self.exports += 1
        self._exported(self.exports)


async def start_alone(start_node: StartNode, cluster_id: str, **settings: Any) -> RunningNode:
    node = await start_node(**settings)
    own = node.consensus.current.membership.voters[1]
    node.consensus.change(membership=Membership({1: own}, {}), nodes={})
    node.context.machine.set_cluster_id(cluster_id)
    return node


async def filled_source(start_node: StartNode) -> RunningNode:
    """Cluster `old`, with 90 keys."""
    node = await start_alone(start_node, "old")
    for number in range(300):
        await put(node, f"key/{number % 90:03}", b"%d" % number)
    return node


async def open_target(start_node: StartNode) -> RunningNode:
    """Cluster `new`, empty, which takes the records of another."""
    node = await start_alone(start_node, "new")
    await node.consensus.propose(c.SetFeature(c.MIGRATION_FEATURE, True), 1000)
    return node


async def put(node: RunningNode, key: str, value: bytes, expire_at: int | None = None) -> None:
    any_seq = c.MatchSeq(c.MatchKind.ANY)
    await node.consensus.propose(c.Upsert(key, any_seq, c.Operation.UPDATE, value, expire_at), 1000)


async def delete(node: RunningNode, key: str) -> None:
    await node.consensus.propose(c.Upsert(key, c.MatchSeq(c.MatchKind.ANY), c.Operation.DELETE), 1000)


async def write_at_random(node: RunningNode, writes: int) -> None:
    choices = random.Random(7)
    for number in range(writes):
        key = f"key/{choices.randrange(120):03}"
        if choices.random() < 0.4:
            await delete(node, key)
        else:
            await put(node, key, b"later %d" % number)
        if number % 20 == 0:
            await asyncio.sleep(0.005)


def records(node: RunningNode) -> list[tuple[str, SeqV]]:
    return node.context.machine.list_prefix("", None, 0)


def check_equal(source: RunningNode, target: RunningNode) -> None:
    assert records(target) == records(source)
    assert MIGRATION_NAME not in target.context.machine.secrets
    assert target.context.machine.last_seq >= source.context.machine.last_seq
    assert target.context.machine.rows_fit()


@asynccontextmanager
async def migrating(
    source: Source, target: Target, notes: Notes, *, cut_over: bool = True, standstill: Standstill | None = None
) -> AsyncIterator[asyncio.Task[Any]]:
    migration = Migration(source, target, notes, quiet_seconds=0.2, standstill=standstill)
    task = asyncio.create_task(migration.run(cut_over=cut_over))
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, MigrationRefusedError):
            await task
        await source.close()

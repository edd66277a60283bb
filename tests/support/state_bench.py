"""A state machine on a bench: entries in, replies out, positions counted for the test."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

from metasrv.model import commands as c
from metasrv.model.entries import RegularEntry
from metasrv.model.types import LogId, SeqV
from metasrv.state.machine import StateMachine
from metasrv.state.snapshot import SnapshotInfo, SnapshotTail, SnapshotWriter
from metasrv.state.watch import Watcher, WatchItem

NOW_MS = 1_700_000_000_000
"""Log time of entries that do not say another."""


class Bench:
    """One machine in a directory of its own."""

    def __init__(self, directory: Path, name: str = "state.db") -> None:
        self.directory = directory
        self.path = str(directory / name)
        self.machine = StateMachine.open(self.path)

    def apply(self, *commands: c.Command, at_ms: int = NOW_MS, term: int | None = None) -> tuple[c.Reply, ...]:
        """One entry with these commands, at the next position."""
        last = self.machine.last_applied
        log_id = LogId(max(last.term, 1) if term is None else term, last.index + 1, 1)
        return self.machine.apply_entry(log_id, RegularEntry(at_ms, 1, commands))

    def run(self, *operations: c.TransactionOperation, at_ms: int = NOW_MS) -> tuple[c.OperationResponse, ...]:
        """One transaction without conditions; its responses."""
        (reply,) = self.apply(c.Transaction((), (), operations, ()), at_ms=at_ms)
        assert isinstance(reply, c.TransactionReply), reply
        return reply.responses

    def put(self, key: str, value: bytes = b"v", at_ms: int = NOW_MS, **options: int) -> c.PutResponse:
        (response,) = self.run(c.Put(key, value, **options), at_ms=at_ms)
        assert isinstance(response, c.PutResponse)
        return response

    def current(self, key: str, value: bytes = b"v", at_ms: int = NOW_MS, **options: int) -> SeqV:
        """Write a record that does not expire at once; what was stored."""
        current = self.put(key, value, at_ms, **options).current
        assert current is not None
        return current

    def value(self, key: str, now_ms: int = NOW_MS) -> bytes:
        """The bytes of a record that is there."""
        record = self.machine.get(key, now_ms)
        assert record is not None, key
        return record.data

    def keys(self, now_ms: int = NOW_MS) -> list[str]:
        return [key for key, _ in self.machine.list_prefix("", None, now_ms)]

    def tail(self) -> SnapshotTail:
        term, index, _ = self.machine.last_applied
        return SnapshotTail((b"previous", index - 1, term), (b"last", index, term))

    def snapshot(self, name: str = "copy.snap") -> SnapshotInfo:
        writer = SnapshotWriter(self.path)
        writer.pin()
        return writer.write(str(self.directory / name), self.tail())

    def reopen(self) -> StateMachine:
        self.machine.close()
        self.machine = StateMachine.open(self.path)
        return self.machine


def dump(path: str) -> str:
    """Everything the file holds, as SQL text."""
    connection = sqlite3.connect(path)
    try:
        return "\n".join(connection.iterdump())
    finally:
        connection.close()


async def everything_of(watcher: Watcher) -> list[WatchItem]:
    """Everything that a watcher has without another change."""
    items: list[WatchItem] = []
    while True:
        read = asyncio.ensure_future(watcher.next_batch())
        for _ in range(3):
            await asyncio.sleep(0)
        if not read.done():
            read.cancel()
            return items
        items += read.result()

"""What giving the raft log's free space back costs the appends beside it, on one node's log without a network.

Large entries (16 of 15 MB) are written and purged, which leaves their pages free. Then one small entry after the other is
appended at a steady pace, by the thread that a node has for it; slices of free space come between them, as in a node.
Prints how long appends took, from the call to the result on the loop, without and with something to give back, and how
long slices and copies of the write-ahead log held the thread. Its processor time leaves out what waited for the disk and
for other programs.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from metasrv.raft.log.storage_thread import StorageThread
from metasrv.raft.log.store import LogStore

FIRST = (b"\x01", 1, 0)
LARGE_ENTRIES = 16
LARGE_SIZE_BYTES = 15_000_000
SMALL_SIZE_BYTES = 300
WAIT_SECONDS_MAX = 0.025


class Piece(NamedTuple):
    """What held the thread between two appends."""

    seconds: float
    processor_seconds: float
    sliced: bool
    copied: bool


class Log:
    """A log, its thread, and what was measured of both."""

    def __init__(self, directory: str) -> None:
        self.path = os.path.join(directory, "raft.db")
        self.store = LogStore.open(self.path, create_entries=[FIRST])
        self.store.take_pending()
        self.writer = self.store.open_writer()
        self.thread = StorageThread(
            "raft-log",
            after_each=self._upkeep,
            when_idle=lambda: self._measured(self.writer.give_back),
        )
        self.pieces: list[Piece] = []
        self.appends: list[float] = []
        self.syncs: list[float] = []
        """The part of each append in which the thread wrote and synced it."""

    def _upkeep(self) -> None:
        self._measured(self.writer.upkeep)

    def _measured(self, work: Callable[[], bool | None]) -> bool:
        writer = self.writer
        before = (writer._wal_used_bytes, writer._shortened_bytes)
        started, processor_started = time.perf_counter(), time.thread_time()
        more = bool(work())
        seconds, processor_seconds = time.perf_counter() - started, time.thread_time() - processor_started
        copied = writer._wal_used_bytes < before[0] or (
            writer._wal_used_bytes == 0 and writer._shortened_bytes < before[1]
        )
        sliced = writer._giving or writer._shortened_bytes != before[1]
        if copied or writer._shortened_bytes != before[1]:
            self.pieces.append(Piece(seconds, processor_seconds, sliced, copied))
        return more

    def _write(self, pending: object) -> None:
        started = time.perf_counter()
        self.writer.write(pending)  # type: ignore[arg-type]
        self.syncs.append(time.perf_counter() - started)

    async def write(self) -> None:
        pending = self.store.take_pending()
        assert pending is not None
        await self.thread.run(self._write, pending)

    async def append(self, size_bytes: int) -> None:
        self.store.add(os.urandom(size_bytes), self.store.last_index + 1, 1)
        started = time.perf_counter()
        await self.write()
        self.appends.append(time.perf_counter() - started)

    async def append_for(self, seconds: float, pause_seconds: float) -> None:
        self.forget()
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            await self.append(SMALL_SIZE_BYTES)
            await asyncio.sleep(pause_seconds)

    def forget(self) -> None:
        self.pieces, self.appends, self.syncs = [], [], []

    async def close(self) -> None:
        await self.thread.stop()
        self.writer.close()

    def show(self, title: str) -> None:
        print(f" {title}")
        show("appends", self.appends)
        show("of that writing and syncing", self.syncs)
        slices = [piece for piece in self.pieces if piece.sliced and not piece.copied]
        show("slices", [piece.seconds for piece in slices])
        show("their processor time", [piece.processor_seconds for piece in slices])
        copies = [piece for piece in self.pieces if piece.copied]
        show("copies of the write-ahead log", [piece.seconds for piece in copies])
        show("their processor time", [piece.processor_seconds for piece in copies])


def show(name: str, seconds: Sequence[float]) -> None:
    if not seconds:
        return
    in_order = sorted(seconds)
    p50, p99, p999 = (in_order[int(len(in_order) * share)] * 1000 for share in (0.5, 0.99, 0.999))
    over = sum(one > WAIT_SECONDS_MAX for one in seconds)
    print(
        f"  {name:30} {len(seconds):6}   p50 {p50:6.2f}   p99 {p99:6.2f}   p99.9 {p999:6.2f}"
        f"   longest {in_order[-1] * 1000:6.2f} ms   over 25 ms: {over}",
        flush=True,
    )


async def measure(directory: str, pause_seconds: float, seconds: float) -> None:
    log = Log(directory)
    await log.append_for(seconds, pause_seconds)
    log.show("nothing to give back")
    log.forget()
    for _ in range(LARGE_ENTRIES):
        await log.append(LARGE_SIZE_BYTES)
        await asyncio.sleep(pause_seconds)
    log.show(f"entries of {LARGE_SIZE_BYTES / 1e6:.0f} MB")
    log.store.purge_to(log.store.last_index)
    await log.write()
    for _ in range(LARGE_ENTRIES):  # what copies the large entries is none of the slices
        await log.append(SMALL_SIZE_BYTES)
    before = os.stat(log.path).st_size
    await log.append_for(seconds, pause_seconds)
    log.show(f"giving back: {before / 1e6:.1f} MB became {os.stat(log.path).st_size / 1e6:.1f} MB")
    await log.close()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", help="where the files are made; a temporary directory by default")
    parser.add_argument("--seconds", type=float, default=15.0, help="of small appends, for each line")
    options = parser.parse_args(arguments)
    for pause_seconds in (0.0, 0.004, 0.03):
        with tempfile.TemporaryDirectory(dir=options.directory) as directory:
            print(f"an append {pause_seconds * 1000:.0f} ms after the other:")
            asyncio.run(measure(directory, pause_seconds, options.seconds))
    return 0


if __name__ == "__main__":
    sys.exit(main())

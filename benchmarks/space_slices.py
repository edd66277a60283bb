"""What giving free space back costs the event loop: the length of each slice, on one node's state without a network.

Two states are built and mostly deleted: large values (20 of 15 MB), and many small keys (200,000). Then slices are given
back as a node does it, beside a put every few milliseconds, with the state's write-ahead log moved by its thread. Prints
how long slices and puts took, how large the files became, and what the slices wrote to that log beside the estimate that
decides when it is moved.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from metasrv.model import commands as c
from metasrv.model.entries import RegularEntry
from metasrv.model.errors import FatalError
from metasrv.model.types import LogId
from metasrv.process.clock import SystemClock
from metasrv.raft.log.storage_thread import StorageThread
from metasrv.raft.observer import RaftObserver
from metasrv.raft.state_log import StateLog, StateLogLimits
from metasrv.raft.state_space import StateSpace
from metasrv.state.durability import checkpoint, restart_log
from metasrv.state.machine import StateMachine

NOW_MS = 1_700_000_000_000
STEP_SECONDS = 0.004
LARGE_VALUE_SIZE_BYTES = 15_000_000
STEP_SECONDS_MAX = 0.005


class Observer:
    """Hears of pauses; the only thing that the state's log reports."""

    def __init__(self) -> None:
        self.pauses: list[float] = []

    def applying_paused(self, seconds: float) -> None:
        self.pauses.append(seconds)


class Watched(StateMachine):
    """Remembers how long each slice and each look took, and what the slices added to the write-ahead log."""

    slices: list[float]
    processor: list[float]
    """The part of each slice in which this thread ran: the rest went to other programs and to the disk."""
    looks: list[float]

    def give_back_space(self, pages: int) -> None:
        started, processor_started = time.perf_counter(), time.thread_time()
        super().give_back_space(pages)
        self.processor.append(time.thread_time() - processor_started)
        self.slices.append(time.perf_counter() - started)

    def free_size_bytes(self) -> tuple[int, int]:
        started = time.perf_counter()
        found = super().free_size_bytes()
        self.looks.append(time.perf_counter() - started)
        return found


def apply(machine: StateMachine, *operations: c.TransactionOperation) -> None:
    last = machine.last_applied
    transaction = c.Transaction((), (), operations, ())
    machine.apply_entry(LogId(1, last.index + 1, 1), RegularEntry(NOW_MS, 1, (transaction,)))


def with_large_values(machine: StateMachine) -> None:
    """Every fourth value stays, so that pages have to be moved; those at the front go, those at the end stay."""
    for at in range(20):
        apply(machine, c.Put(f"large/{at:02}", os.urandom(1000) * (LARGE_VALUE_SIZE_BYTES // 1000)))
    for at in range(20):
        if at % 4 != 3:
            apply(machine, c.Delete(f"large/{at:02}", None))


def with_small_keys(machine: StateMachine, count: int = 200_000) -> None:
    """Keys in scattered order; a tenth of them stays."""
    for start in range(0, count, 100):
        keys = [(at * 7_919) % count for at in range(start, start + 100)]
        apply(machine, *(c.Put(f"key/{key:06}/{'x' * 20}", b"v" * 256) for key in keys))
    for tens in range(0, count, 1000):
        apply(machine, c.DeleteByPrefix(f"key/{tens // 1000:03}")) if tens // 1000 % 10 else None


def show(name: str, seconds: list[float]) -> None:
    in_order = sorted(seconds)
    print(
        f"  {name:20} {len(seconds):6}   p50 {in_order[len(in_order) // 2] * 1000:6.3f} ms"
        f"   p99 {in_order[len(in_order) * 99 // 100] * 1000:6.3f} ms   longest {in_order[-1] * 1000:6.3f} ms"
        f"   over 5 ms: {sum(one > STEP_SECONDS_MAX for one in seconds)}"
    )


async def give_back(path: str, puts: bool) -> None:
    machine = Watched.open(path)
    assert isinstance(machine, Watched)
    machine.slices, machine.processor, machine.looks = [], [], []
    thread = StorageThread("state")
    observer = Observer()
    held = False
    failures: list[FatalError] = []

    def hold(on: bool) -> None:
        nonlocal held
        held = on

    log = StateLog(
        machine=machine,
        thread=thread,
        clock=SystemClock(),
        observer=cast(RaftObserver, observer),
        limits=StateLogLimits(),
        hold=hold,
        failed=failures.append,
    )
    space = StateSpace(machine=machine, clock=SystemClock(), state_log=log)
    before = machine.file_sizes().database_bytes
    took: list[float] = []
    log_bytes_max = 0
    started = time.perf_counter()
    quiet_since = started
    while time.perf_counter() - quiet_since < 3:
        seen = len(machine.slices)
        space.consider()
        log.consider()
        if len(machine.slices) > seen:
            quiet_since = time.perf_counter()
        if puts and not held:
            put_started = time.perf_counter()
            apply(machine, c.Put(f"beside/{len(took) % 500:03}", b"v" * 256))
            took.append(time.perf_counter() - put_started)
            log.applied(400, 1)
        log_bytes_max = max(log_bytes_max, machine.file_sizes().log_bytes)
        await asyncio.sleep(STEP_SECONDS)
    assert not failures, failures
    seconds = quiet_since - started
    after = machine.file_sizes().database_bytes
    print(f"  {before / 1e6:.1f} MB became {after / 1e6:.1f} MB in {seconds:.1f} s; log {log_bytes_max / 1e6:.1f} MB")
    show("slices", machine.slices)
    show("their processor time", machine.processor)
    show("looks", machine.looks)
    show("puts", took or [0.0])
    show("pauses", observer.pauses or [0.0])
    log.close()
    await thread.stop()
    machine.close()


def measure(name: str, build: Callable[[StateMachine], None], directory: str, puts: bool) -> None:
    path = os.path.join(directory, f"{name.replace(' ', '-')}.db")
    machine = StateMachine.open(path)
    build(machine)
    machine.close()
    print(f"{name}:")
    asyncio.run(give_back(path, puts))
    os.unlink(path)


def without_auto_vacuum(path: str) -> None:
    """Make the closed file one that cannot be shortened in slices."""
    tool = sqlite3.connect(path, isolation_level=None)
    tool.execute("PRAGMA auto_vacuum = NONE")
    tool.execute("VACUUM")
    tool.close()


def compare(directory: str, value_size_bytes: int, turns: int = 5, entries: int = 1500) -> None:
    """Entries of ten puts with and without the page map that giving back needs, in alternating turns."""
    machines: dict[str, StateMachine] = {}
    for name in ("with", "without"):
        path = os.path.join(directory, f"{name}-{value_size_bytes}.db")
        StateMachine.open(path).close()
        if name == "without":
            without_auto_vacuum(path)
        machines[name] = StateMachine.open(path)
    took: dict[str, list[float]] = {name: [] for name in machines}
    count = 40_000 * 256 // value_size_bytes
    for turn in range(turns):
        for name, machine in machines.items():
            started = time.thread_time()
            for entry in range(entries):
                keys = (((turn * entries + entry) * 10 + at) * 7_919 % count for at in range(10))
                apply(machine, *(c.Put(f"key/{key:06}", b"v" * value_size_bytes) for key in keys))
            took[name].append((time.thread_time() - started) / entries * 1000)
            checkpoint(machine.path)
            restart_log(machine.path)
    medians = {name: sorted(each)[turns // 2] for name, each in took.items()}
    sizes = {name: machine.file_sizes().database_bytes / 1e6 for name, machine in machines.items()}
    print(
        f"ten puts of {value_size_bytes} bytes in one entry, processor time: {medians['with']:.3f} ms with the page map,"
        f" {medians['without']:.3f} ms without, ratio {medians['with'] / medians['without']:.2f};"
        f" files of {sizes['with']:.1f} and {sizes['without']:.1f} MB"
    )
    for machine in machines.values():
        machine.close()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", help="where the files are made; a temporary directory by default")
    parser.add_argument("--without-puts", action="store_true")
    parser.add_argument("--slices-only", action="store_true", help="leave out what the page map costs each put")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        for value_size_bytes in () if options.slices_only else (256, 2_000, 100_000):
            compare(directory, value_size_bytes)
        measure("large values", with_large_values, directory, not options.without_puts)
        measure("small keys", with_small_keys, directory, not options.without_puts)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Snapshot files, as a node gets them from a leader: a changed one is refused as damaged, or is the same state."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from metasrv.model import commands as c
from metasrv.model.entries import RegularEntry, encode_noop_entry, encode_regular_entry
from metasrv.model.errors import DataDamagedError, StorageError
from metasrv.model.types import LogId
from metasrv.state.machine import StateMachine
from metasrv.state.snapshot import SnapshotTail, SnapshotWriter, read_snapshot_tail, verify_snapshot
from verification.fuzz.target import Target
from verification.fuzz.targets.files import change, changed

_directory = tempfile.TemporaryDirectory(prefix="metasrv-fuzz-")
_PATH = os.path.join(_directory.name, "snapshot.snap")


def _good_snapshot() -> bytes:
    machine = StateMachine.open(os.path.join(_directory.name, "state.db"))
    try:
        for index in range(1, 6):
            entry = RegularEntry(index, 1, (c.SetFeature(f"feature-{index}", True),))
            machine.apply_entry(LogId(1, index, 1), entry)
        writer = SnapshotWriter(os.path.join(_directory.name, "state.db"))
        writer.pin()
        tail = SnapshotTail((encode_noop_entry(1), 4, 1), (encode_regular_entry(5, 1, []), 5, 1))
        writer.write(_PATH, tail)
    finally:
        machine.close()
    return Path(_PATH).read_bytes()


_GOOD = _good_snapshot()


def _run(data: bytes) -> None:
    Path(_PATH).write_bytes(changed(_GOOD, data))
    for check in (verify_snapshot, read_snapshot_tail):
        try:
            check(_PATH)
        except (DataDamagedError, StorageError):
            continue


TARGET = Target(
    "snapshot_files",
    _run,
    (
        b"",
        change(0, b"SQLite format 4"),
        change(18, b"\2\2"),
        change(28, b"\xff\xff\xff\xff"),
        change(100, b"\x05"),
        change(4096, b"\x0d\xff\xff"),
        change(8000, b"\0" * 40),
        change(len(_GOOD) // 2, b""),
    ),
    input_size_bytes_max=1024,
)

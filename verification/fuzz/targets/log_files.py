"""The files of the raft log at a start: whatever their bytes are, the log is good, or its damage is named."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from metasrv.model.entries import encode_noop_entry
from metasrv.model.errors import DataDamagedError, StorageError
from metasrv.raft.log.checks import check_log
from metasrv.raft.log.format import mark_path, wal_path
from metasrv.raft.log.mark import decode_mark
from metasrv.raft.log.store import LogStore
from verification.fuzz.target import Target
from verification.fuzz.targets.files import change, changed

_directory = tempfile.TemporaryDirectory(prefix="metasrv-fuzz-")
_PATH = os.path.join(_directory.name, "raft.db")


def _good_files() -> tuple[bytes, bytes, bytes]:
    store = LogStore.open(_PATH, create_entries=[(encode_noop_entry(1), index, 1) for index in range(1, 9)])
    writer = store.open_writer()
    store.add(encode_noop_entry(1), 9, 1)
    pending = store.take_pending()
    if pending is not None:
        writer.write(pending)
    files = [Path(path).read_bytes() for path in (_PATH, wal_path(_PATH), mark_path(_PATH))]
    writer.close()
    return files[0], files[1], files[2]


_DATABASE, _WAL, _MARK = _good_files()


def _run(data: bytes) -> None:
    which, changes = (data[0] % 3, data[1:]) if data else (0, b"")
    database, wal, mark = (
        changed(good, changes) if which == number else good for number, good in enumerate((_DATABASE, _WAL, _MARK))
    )
    try:
        check_log(_PATH, bytearray(database), wal, decode_mark(mark_path(_PATH), mark))
    except (DataDamagedError, StorageError):
        return


TARGET = Target(
    "log_files",
    _run,
    (
        b"\0",
        b"\0" + change(18, b"\1\1"),
        b"\0" + change(28, b"\xff\xff\xff\xff"),
        b"\0" + change(len(_DATABASE) // 2, b""),
        b"\1" + change(0, b"\0"),
        b"\1" + change(8, b"\xff\xff\xff\xff"),
        b"\1" + change(len(_WAL) - 100, b""),
        b"\2" + change(20, b"\xff"),
    ),
    input_size_bytes_max=1024,
)

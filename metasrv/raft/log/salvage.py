"""What can still be read of a damaged log: each entry that is sound, and what is wrong with the others.

For people who look at the damage; a node refuses such a log (`files.py`). Nothing on the disk is changed. Runs in a
program of its own.
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing
from typing import NamedTuple

from metasrv.model.errors import DataDamagedError
from metasrv.raft.log.checks import WalPages, put_together, read_wal
from metasrv.raft.log.files import read_file, read_wal_file
from metasrv.raft.log.format import SELECT_ENTRIES, LogEntry, entry_checksum, wal_path


class BadEntry(NamedTuple):
    """A row, or a gap, that holds no entry any more."""

    log_index: int | None
    """None where even that cannot be read."""
    size_bytes: int
    what: str


def salvage(path: str) -> Iterator[LogEntry | BadEntry]:
    """Every entry of the log at `path` that can be read. Raises StorageError."""
    database = read_file(path)
    try:
        pages = read_wal(wal_path(path), bytes(read_wal_file(path)))
    except DataDamagedError as error:
        yield BadEntry(None, 0, f"what follows is without the write-ahead log: {error}")
        pages = WalPages({}, None)
    try:
        put_together(path, database, pages)
    except DataDamagedError as error:
        yield BadEntry(None, 0, str(error))
    database[18:20] = b"\x01\x01"  # as in `checks.py`: a database in memory has no write-ahead log
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        try:
            connection.deserialize(database)
            yield from _entries(connection)
        except (sqlite3.Error, OverflowError) as error:
            yield BadEntry(None, 0, f"SQLite cannot read further: {error}")


def _entries(connection: sqlite3.Connection) -> Iterator[LogEntry | BadEntry]:
    expected: int | None = None
    for index, term, written, checksum, content in connection.execute(SELECT_ENTRIES):
        size_bytes = len(content) if isinstance(content, bytes) else 0
        if expected is not None and index != expected:
            yield BadEntry(expected, 0, f"entries {expected} to {index - 1} are missing")
        expected = index + 1
        try:
            sound = checksum == entry_checksum(content, index, term, written)
        except (TypeError, struct.error) as error:
            yield BadEntry(index, size_bytes, f"a column has a value of the wrong type: {error}")
            continue
        yield (content, index, term) if sound else BadEntry(index, size_bytes, "its checksum does not match")

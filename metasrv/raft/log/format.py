"""The raft log on disk: tables, row checksums, the identification in the file's header, and the values in between.

One SQLite file holds the entries and one `meta` row (term, vote). Each row carries the number of the transaction that
wrote it; together with the mark (`mark.py`) that tells a complete log from one that lost its end. Knows neither
threads nor the engine; pure functions, run anywhere.
"""

from __future__ import annotations

import os
import sqlite3
import struct
import zlib
from collections.abc import Sequence
from typing import Final, NamedTuple

from metasrv.model.errors import IdentityError, InvariantError, StorageError

APPLICATION_ID = 0x4D53524C
"""`MSRL`, in the header of each log file, where `file` and `checks.py` look for it."""
FORMAT_VERSION = 1
PAGE_SIZE_BYTES = 4096
STORE_ID_SIZE_BYTES = 16
NUMBER_MAX = 2**63 - 1
"""SQLite's largest integer: bounds indexes and terms."""

CREATE_TABLES = (
    "CREATE TABLE entries (log_index INTEGER PRIMARY KEY, term INTEGER NOT NULL, written INTEGER NOT NULL,"
    " checksum INTEGER NOT NULL, content BLOB NOT NULL)",
    "CREATE TABLE meta (id INTEGER PRIMARY KEY CHECK (id = 1), store_id BLOB NOT NULL, first_index INTEGER NOT NULL,"
    " written INTEGER NOT NULL, term INTEGER NOT NULL, voted_for TEXT, checksum INTEGER NOT NULL)",
)
INSERT_ENTRY = "INSERT INTO entries VALUES (?, ?, ?, ?, ?)"
SELECT_ENTRIES = "SELECT log_index, term, written, checksum, content FROM entries ORDER BY log_index"
SELECT_META = "SELECT store_id, first_index, written, term, voted_for, checksum FROM meta"
UPDATE_META = "UPDATE meta SET first_index = ?, written = ?, term = ?, voted_for = ?, checksum = ?"
INSERT_META = "INSERT INTO meta VALUES (1, ?, ?, ?, ?, ?, ?)"

ADVICE = (
    "keep the files for analysis, remove this node from the cluster and let it join again with an empty data"
    " directory, or put back a complete copy of the directory"
)

LogEntry = tuple[bytes, int, int]
"""Content, index and term of one entry, at the positions below: the engine's own shape.

A plain tuple, because a log holds very many of them: a NamedTuple takes half as long again to decode, and the garbage
collector visits each one in every full pass, while it lets go of plain tuples of bytes and numbers.
"""
CONTENT: Final = 0
INDEX: Final = 1
TERM: Final = 2

_THREE_NUMBERS = struct.Struct("<QQQ")


class MetaRow(NamedTuple):
    """The one row beside the entries."""

    store_id: bytes
    first_index: int
    written: int
    """Number of the transaction that last changed this row."""
    term: int
    voted_for: str | None

    @property
    def checksum(self) -> int:
        vote = b"\x00" if self.voted_for is None else b"\x01" + self.voted_for.encode()
        return zlib.crc32(self.store_id + _THREE_NUMBERS.pack(self.first_index, self.written, self.term) + vote)


class PendingWrite(NamedTuple):
    """What one transaction has to do, in this order: delete, insert, update the meta row."""

    delete_all: bool
    delete_from: int | None
    """Rows with this index and above go (a follower's tail that the leader does not have)."""
    delete_before: int | None
    """Rows below this index go (applied and no longer needed)."""
    entries: Sequence[LogEntry]
    first_index: int
    """Lowest index in the file afterwards."""
    last_index: int
    """Highest index in the file afterwards."""
    term: int
    voted_for: str | None
    changes_meta: bool
    """False for plain appends, the hot path: they leave the meta row alone."""


class LogContents(NamedTuple):
    """A log as it was read and checked."""

    entries: list[LogEntry]
    meta: MetaRow
    written: int
    """Number of the last transaction in it."""


class LogFileSizes(NamedTuple):
    """Bytes on disk, as of the last write."""

    database_bytes: int = 0
    wal_bytes: int = 0


def entry_checksum(content: bytes, index: int, term: int, written: int) -> int:
    return zlib.crc32(content, zlib.crc32(_THREE_NUMBERS.pack(index, term, written)))


def kind_of(entry: LogEntry) -> int:
    """What the entry is: one of the kinds of `model/entries.py`, which stands in the first byte of its content."""
    return entry[CONTENT][0]


def entry_row(entry: LogEntry, written: int) -> tuple[int, int, int, int, bytes]:
    content, index, term = entry
    return index, term, written, entry_checksum(content, index, term, written), content


def meta_size_bytes(row: MetaRow) -> int:
    """How many bytes of content the row has."""
    return len(row.store_id) + _THREE_NUMBERS.size + len((row.voted_for or "").encode())


def meta_parameters(row: MetaRow) -> tuple[int, int, int, str | None, int]:
    return row.first_index, row.written, row.term, row.voted_for, row.checksum


def wal_path(path: str) -> str:
    return path + "-wal"


def mark_path(path: str) -> str:
    return path + "-mark"


def disk_error(path: str, doing: str, error: sqlite3.Error | OSError) -> StorageError | IdentityError | InvariantError:
    """The fault in an operator's words: another process's lock, a mistake of metasrv, or a fault of the disk."""
    if isinstance(error, OSError):
        reason = os.strerror(error.errno) if error.errno else str(error)
        return StorageError(f"{path}: {doing} failed: {reason}")
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return IdentityError(f"{path}: another process uses this file; is this node already running?")
    if code in (sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISUSE, sqlite3.SQLITE_RANGE):
        return InvariantError(f"{path}: {doing} contradicts what is in the file: {error}")
    reasons = {
        sqlite3.SQLITE_FULL: "the disk is full",
        sqlite3.SQLITE_READONLY: "the file or its file system is read-only",
        sqlite3.SQLITE_IOERR: "input/output error",
        sqlite3.SQLITE_CORRUPT: "the file was damaged while it was in use",
        sqlite3.SQLITE_CANTOPEN: "the file cannot be opened",
    }
    name = getattr(error, "sqlite_errorname", "unknown")
    return StorageError(f"{path}: {doing} failed: {reasons.get(code, str(error))} ({name})")

"""The raft log's files at start: create them durably, or read and check the ones that are there.

Runs before the event loop is busy; the only place of the log that reads whole files.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from typing import NamedTuple

from metasrv.model.errors import DataDamagedError, InvariantError
from metasrv.process.operating_system import make_syncs_full, sync_file
from metasrv.raft.log.checks import check_log
from metasrv.raft.log.format import (
    ADVICE,
    APPLICATION_ID,
    CREATE_TABLES,
    FORMAT_VERSION,
    INDEX,
    INSERT_ENTRY,
    INSERT_META,
    PAGE_SIZE_BYTES,
    STORE_ID_SIZE_BYTES,
    TERM,
    LogContents,
    LogEntry,
    MetaRow,
    disk_error,
    entry_row,
    mark_path,
    meta_parameters,
    wal_path,
)
from metasrv.raft.log.mark import MarkValue, SyncMark, decode_mark

_FIRST_TRANSACTION = 1


class OpenedLog(NamedTuple):
    """A checked log and its mark, which holds the lock."""

    contents: LogContents
    mark: SyncMark


def open_log(path: str, create_entries: Sequence[LogEntry] | None) -> OpenedLog:
    """Read and check the log at `path`, or create it with `create_entries` when it does not exist.

    Raises DataDamagedError for anything that is not a complete log, also for a missing one when `create_entries` is
    None; IdentityError when another process has it open; StorageError when the disk refuses.
    """
    exists = os.path.lexists(path)
    if not exists and create_entries is None:
        raise DataDamagedError(path, "file", "missing, although this data directory was in use before", ADVICE)
    mark = SyncMark(mark_path(path), create=not exists)
    try:
        if not exists and create_entries is not None:
            _check_never_used(path, mark)
            _create(path, list(create_entries), mark)
        value = decode_mark(mark.path, mark.read())
        return OpenedLog(check_log(path, read_file(path), bytes(read_wal_file(path)), value), mark)
    except BaseException:
        mark.close()
        raise


def _check_never_used(path: str, mark: SyncMark) -> None:
    """A crash during creation leaves a mark and nothing else; a log that was in use leaves more."""
    if os.path.lexists(wal_path(path)):
        raise DataDamagedError(path, "file", f"missing, although {wal_path(path)} exists", ADVICE)
    data = mark.read()
    if not data.strip(b"\x00"):
        return
    value = decode_mark(mark.path, data)
    if value.written > _FIRST_TRANSACTION:
        what = f"missing, although {value.written} transactions had been synced to it"
        raise DataDamagedError(path, "file", what, ADVICE)


def _create(path: str, entries: list[LogEntry], mark: SyncMark) -> None:
    """Build the file beside its place, then rename: at any moment it is whole or not there."""
    if not entries:
        raise InvariantError("a raft log is never empty: create it with at least one entry")
    meta = MetaRow(
        secrets.token_bytes(STORE_ID_SIZE_BYTES), entries[0][INDEX], _FIRST_TRANSACTION, entries[-1][TERM], None
    )
    building = path + "-new"
    try:
        for leftover in (building, wal_path(building), building + "-journal"):
            if os.path.lexists(leftover):
                os.unlink(leftover)
        os.close(os.open(building, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with closing(sqlite3.connect(building, isolation_level=None)) as connection:
            make_syncs_full(connection)
            _fill(connection, entries, meta)
        _sync(building)
        mark.initialise(MarkValue(meta.store_id, meta.written, entries[-1][INDEX], meta.written))
        os.rename(building, path)
        _sync(os.path.dirname(os.path.abspath(path)))
    except (sqlite3.Error, OSError) as error:
        raise disk_error(path, "creating", error) from error


def _fill(connection: sqlite3.Connection, entries: list[LogEntry], meta: MetaRow) -> None:
    connection.execute(f"PRAGMA page_size = {PAGE_SIZE_BYTES}")
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute("PRAGMA encoding = 'UTF-8'")
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("BEGIN")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {FORMAT_VERSION}")
    for statement in CREATE_TABLES:
        connection.execute(statement)
    connection.execute(INSERT_META, (meta.store_id, *meta_parameters(meta)))
    connection.executemany(INSERT_ENTRY, (entry_row(entry, meta.written) for entry in entries))
    connection.execute("COMMIT")


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        sync_file(descriptor)
    finally:
        os.close(descriptor)


def read_file(path: str) -> bytearray:
    # Closing a descriptor of a database drops the locks SQLite holds on it in this process: only ever read it before
    # SQLite has it open.
    try:
        with open(path, "rb", buffering=0) as file:
            data = bytearray(os.fstat(file.fileno()).st_size)
            size_bytes = 0
            while count := file.readinto(memoryview(data)[size_bytes:]):
                size_bytes += count
            if size_bytes != len(data):
                raise DataDamagedError(path, f"byte {size_bytes}", "the file shrank while it was read", ADVICE)
            return data
    except OSError as error:
        raise disk_error(path, "reading", error) from error


def read_wal_file(path: str) -> bytearray:
    if os.path.lexists(path + "-journal"):
        raise DataDamagedError(path + "-journal", "file", "a raft log never has a rollback journal", ADVICE)
    return read_file(wal_path(path)) if os.path.lexists(wal_path(path)) else bytearray()

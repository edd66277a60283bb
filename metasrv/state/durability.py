"""Making the state file durable and keeping its write-ahead log short, in a helper thread: the loop never syncs it.

The state is a cache of the raft log until `sync_state` has returned; the raft log is purged only up to what it made
durable. Nothing here opens the state file's own descriptor outside SQLite: closing one would drop the locks of the
loop's connection. The write-ahead log carries no locks.

SQLite starts the write-ahead log over only when a writer begins, no reader is on an older instant, and every frame has
been moved at that very moment. While the loop keeps writing that moment never comes: each pass moves all that it saw,
but a frame has been added meanwhile. So there are two steps. `checkpoint` moves what is there, beside the writer.
`restart_log` moves the few frames that came meanwhile and begins the log anew; the loop does not touch the file while it
runs (`raft/state_log.py`).
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from metasrv.model.errors import StorageError
from metasrv.model.limits import STATE_LOG_SIZE_BYTES_KEPT
from metasrv.process.operating_system import sync_data
from metasrv.state.damage import WAL_FRAME_HEADER_SIZE_BYTES
from metasrv.state.format import FORMAT_VERSION
from metasrv.state.storage_faults import fault
from metasrv.state.store import FILE_SWAP, connect, sync_directory

SHORTEN_STEP_SIZE_BYTES = 8 * 1024 * 1024
"""Freed in one step. A file system takes about a third of a millisecond for each MiB, and the next entry waits for it."""


class LogPasses(NamedTuple):
    """What `checkpoint` found in the write-ahead log, and what it moved."""

    frames: int
    """In the log since it last began anew, as the last pass saw it."""
    moved: int
    """How many of these are in the state file and synced; fewer only when a reader is on an older instant."""
    size_bytes: int
    """The frames on disk; the file may be longer, with remains of what was there before."""
    seconds: float
    """Duration of the last pass, which had little to move; a restart takes about as long."""


class LogRestart(NamedTuple):
    """What `restart_log` did."""

    restarted: bool
    """False when a reader is in the way."""
    file_size_bytes: int


def sync_state(path: str) -> None:
    """Make everything that was committed before the call durable. Raises StorageError."""
    if sync_log(path):
        sync_directory(path)


def sync_log(path: str) -> bool:
    """Sync the write-ahead log, so that later syncs find less; False when there is none. Raises StorageError."""
    try:
        descriptor = os.open(f"{path}-wal", os.O_RDONLY)
    except FileNotFoundError:
        return False  # no connection is open: the last one to close moved all of it into the synced file
    except OSError as error:
        raise StorageError(f"{path}-wal: the state could not be synced: {error.strerror}") from error
    try:
        sync_data(descriptor)
    except OSError as error:
        raise StorageError(f"{path}-wal: the state could not be synced: {error}") from error
    finally:
        os.close(descriptor)
    return True


def checkpoint(path: str) -> LogPasses:
    """Move the write-ahead log into the state file, synced, while the loop goes on writing.

    The second pass moves what was written during the first, so that little is left for `restart_log`.
    Raises StorageError or DataDamagedError.
    """
    sync_log(path)  # the passes sync while they hold a lock: leave little for that
    with _helper_connection(path) as connection:
        frames, moved = _pass(connection, "PASSIVE")
        started = time.perf_counter()
        if moved == frames > 0:
            frames, moved = _pass(connection, "PASSIVE")
        seconds = time.perf_counter() - started
        (page_size,) = connection.execute("PRAGMA page_size").fetchone()
    return LogPasses(frames, moved, frames * (page_size + WAL_FRAME_HEADER_SIZE_BYTES), seconds)


def restart_log(path: str, size_bytes_kept: int = STATE_LOG_SIZE_BYTES_KEPT) -> LogRestart:
    """Move the rest of the write-ahead log and begin it anew, in place; a file longer than the limit loses a piece.

    The loop must not begin a transaction before this has returned: it would wait for the write lock. Never waits for
    readers. Raises StorageError or DataDamagedError.
    """
    with _helper_connection(path) as connection:
        connection.execute("PRAGMA busy_timeout = 0")
        busy, _, _ = connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
        if not busy:
            # This writes the first frame of the new log. Whoever does that syncs the file, so it must not be the loop.
            # While this frame is not moved, the loop's next frame cannot be the first of yet another log.
            connection.execute(f"PRAGMA user_version = {FORMAT_VERSION}")
            _shorten(connection, f"{path}-wal", size_bytes_kept)
        return LogRestart(not busy, os.stat(f"{path}-wal").st_size)


def _shorten(connection: sqlite3.Connection, wal_path: str, size_bytes_kept: int) -> None:
    """Cut a piece off the end of a write-ahead log that has just begun anew; only remains of the old log are there."""
    size_bytes = os.stat(wal_path).st_size
    if size_bytes <= size_bytes_kept:
        return
    connection.execute("BEGIN IMMEDIATE")  # nobody may write while the file gets shorter
    try:
        os.truncate(wal_path, max(size_bytes_kept, size_bytes - SHORTEN_STEP_SIZE_BYTES))
    finally:
        connection.execute("ROLLBACK")


@contextmanager
def _helper_connection(path: str) -> Iterator[sqlite3.Connection]:
    """A connection for one call; SQLite's errors become StorageError or DataDamagedError."""
    connection: sqlite3.Connection | None = None
    try:
        with FILE_SWAP:
            connection = connect(path)
            # SQLite opens the write-ahead log with the first read, not with the connection.
            connection.execute("SELECT 1 FROM meta").fetchall()
        yield connection
    except sqlite3.Error as error:
        raise fault(path, error) from error
    except OSError as error:
        raise StorageError(f"{path}-wal: {error.strerror}") from error
    finally:
        if connection is not None:
            connection.close()


def _pass(connection: sqlite3.Connection, mode: str) -> tuple[int, int]:
    _, frames, moved = connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
    return max(0, int(frames)), max(0, int(moved))

"""Making the state file durable, in a helper thread: the loop itself never syncs it.

The state is a cache of the log until one of these functions has returned; the log is purged only up to what they
made durable. Neither opens the state file's own descriptor outside SQLite: closing one would drop the locks of the
loop's connection. The write-ahead log carries no locks.
"""

from __future__ import annotations

import os
import sqlite3

from metasrv.model.errors import StorageError
from metasrv.process.operating_system import sync_data
from metasrv.state.store import FILE_SWAP, connect, fault, sync_directory

PASSES_MAX = 3
WAL_SIZE_BYTES_RESTART = 64 * 1024 * 1024
"""A write-ahead log of this size is emptied even while writes go on."""


def sync_state(path: str) -> None:
    """Make everything that was committed before the call durable. Raises StorageError."""
    try:
        descriptor = os.open(f"{path}-wal", os.O_RDONLY)
    except FileNotFoundError:
        return  # no connection is open: the last one to close moved all of it into the synced file
    except OSError as error:
        raise StorageError(f"{path}-wal: the state could not be synced: {error}") from error
    try:
        sync_data(descriptor)
    except OSError as error:
        raise StorageError(f"{path}-wal: the state could not be synced: {error}") from error
    finally:
        os.close(descriptor)
    sync_directory(path)


def checkpoint(path: str) -> tuple[int, int]:
    """Move the write-ahead log into the state file, synced; returns (frames in the log, frames moved).

    The log starts over only when every frame has been moved at the moment of a write. Under steady writing that
    moment never comes by itself, so past WAL_SIZE_BYTES_RESTART a last pass holds the write lock: everything but
    what was written during the passes before is on disk by then, and the loop waits for two short syncs.
    Raises StorageError or DataDamagedError.
    """
    try:
        with FILE_SWAP:
            connection = connect(path)
            # SQLite opens the write-ahead log with the first read, not with the connection.
            connection.execute("SELECT 1 FROM meta").fetchall()
    except sqlite3.Error as error:
        raise fault(path, error) from error
    try:
        frames, moved = _checkpoint(connection, "PASSIVE")
        passes = 1
        while moved < frames and passes < PASSES_MAX:
            frames, moved = _checkpoint(connection, "PASSIVE")
            passes += 1
        if moved < frames and os.stat(f"{path}-wal").st_size > WAL_SIZE_BYTES_RESTART:
            # Without a busy wait: readers that are in the way must not keep the write lock taken.
            connection.execute("PRAGMA busy_timeout = 0")
            frames, moved = _checkpoint(connection, "FULL")
        return frames, moved
    except sqlite3.Error as error:
        raise fault(path, error) from error
    except OSError as error:
        raise StorageError(f"{path}-wal: {error}") from error
    finally:
        connection.close()


def _checkpoint(connection: sqlite3.Connection, mode: str) -> tuple[int, int]:
    _, frames, moved = connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
    return max(0, int(frames)), max(0, int(moved))

"""The writing end of the raft log: one transaction and one sync for each pending write; checkpoints, free space between.

Runs in the storage thread only (`storage_thread.py`), except for being opened and closed. Knows nothing of the
engine. Plain appends, the hot path, are a single statement that is its own transaction: each statement gives the
interpreter lock away and has to win it back from a busy event loop, so fewer of them is faster.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Sequence
from time import perf_counter

from metasrv.model.errors import DataDamagedError, MetasrvError, StorageError
from metasrv.model.limits import DISK_SLOW_SECONDS
from metasrv.process.operating_system import make_syncs_full
from metasrv.raft.log.format import (
    ADVICE,
    CONTENT,
    INSERT_ENTRY,
    PAGE_SIZE_BYTES,
    SELECT_META,
    UPDATE_META,
    LogEntry,
    LogFileSizes,
    MetaRow,
    PendingWrite,
    disk_error,
    entry_row,
    meta_parameters,
    wal_path,
)
from metasrv.raft.log.mark import MarkValue, SyncMark

logger = logging.getLogger(__name__)

CHECKPOINT_SIZE_BYTES = 4 * 1024 * 1024
"""Write-ahead log at which it is copied into the database."""
WAL_SIZE_KEPT_BYTES = 2 * CHECKPOINT_SIZE_BYTES
"""The write-ahead log is reused in place, which syncs faster than a growing file, unless it is larger than this."""
_BUSY_TIMEOUT_MS = 1_000
_ROWS_PER_STATEMENT_MAX = 64
_PAGES_PER_TRANSACTION = 2
FREE_PAGES_PER_SLICE = 16
"""Given back in one transaction, with its own sync: what a write waits at most, about 2 ms and the sync."""
SHORTENED_SIZE_BYTES_MAX = 8 * 1024 * 1024
"""Given back and not yet cut off the file, which takes a checkpoint a third of a millisecond for each MiB."""
_WRITES_BETWEEN_SLICES = 8
_WRITES_BETWEEN_LOOKS = 16
"""Asking for file sizes is kept off most writes."""


class LogWriter:
    """Owns the connection. After any failed write it is dead, because what is on the disk is not known any more."""

    def __init__(
        self,
        path: str,
        mark: SyncMark,
        expected_written: int,
        checkpoint_size_bytes: int = CHECKPOINT_SIZE_BYTES,
    ) -> None:
        """Open the checked log at `path`, whose last transaction is `expected_written`; takes over `mark`.

        Raises IdentityError when another process has it open, DataDamagedError when SQLite sees another log than the
        check did, StorageError.
        """
        self.path = path
        self.file_sizes = LogFileSizes()
        """Replaced as a whole every few writes, so that any thread may read it."""
        self._mark = mark
        self._checkpoint_size_bytes = checkpoint_size_bytes
        self._failure: str | None = None
        self._closed = False
        self._wal_used_bytes = 0
        self._wal_seen_bytes = 0
        self._looked_at = self._sliced_at = expected_written
        self._purged = True
        """Pages may have become free since they were counted last."""
        self._giving = False
        self.gives_back = False
        """All free pages are asked for, and not yet given back; set in the thread, read by any."""
        self._shortened_bytes = 0
        self._inserts: dict[int, str] = {}
        self._connection = sqlite3.connect(
            path, isolation_level=None, check_same_thread=False, timeout=_BUSY_TIMEOUT_MS / 1000
        )
        try:
            self._meta, self._written = self._prepare(expected_written)
            self._measure()
            self.appended_bytes = sum(self.file_sizes)
            """What the files held at the start, and roughly what was written since; read by any thread."""
        except (sqlite3.Error, OSError) as error:
            self._connection.close()
            raise disk_error(path, "opening", error) from error
        except DataDamagedError:
            self._connection.close()
            raise

    def _prepare(self, expected_written: int) -> tuple[MetaRow, int]:
        execute = self._connection.execute
        # Exclusive: no shared memory file, no locks per transaction, and no stray reader that keeps the write-ahead
        # log from being reused. It has to be set before the first access.
        execute("PRAGMA locking_mode = EXCLUSIVE")
        execute("PRAGMA journal_mode = WAL")
        execute("PRAGMA synchronous = FULL")
        execute("PRAGMA wal_autocheckpoint = 0")
        make_syncs_full(self._connection)
        # Some builds overwrite what is deleted with zeros, which makes every purge as expensive as writing it.
        execute("PRAGMA secure_delete = OFF")
        execute(f"PRAGMA journal_size_limit = {WAL_SIZE_KEPT_BYTES}")
        # Takes the lock now rather than at the first write.
        execute("BEGIN EXCLUSIVE")
        *values, _ = execute(SELECT_META).fetchone()
        meta = MetaRow(*values)
        (written,) = execute("SELECT written FROM entries ORDER BY log_index DESC LIMIT 1").fetchone()
        execute("COMMIT")
        written = max(meta.written, written)
        if written != expected_written:
            what = f"SQLite finds transaction {written} as the last one instead of {expected_written}"
            raise DataDamagedError(self.path, "tables", what, ADVICE)
        if not execute("PRAGMA auto_vacuum").fetchone()[0]:
            # A file of an earlier release. What is live is no more than what was just read into memory.
            execute("PRAGMA temp_store = MEMORY")
            execute("PRAGMA auto_vacuum = INCREMENTAL")
            execute("VACUUM")
        execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return meta, written

    # ------------------------------------------------------------------ writing

    def write(self, pending: PendingWrite) -> None:
        """Execute everything in one transaction and sync it; returns when it is on the disk.

        Raises StorageError or InvariantError; each later call raises StorageError.
        """
        self._check_alive()
        written = self._written + 1
        started = perf_counter()
        try:
            self._execute(pending, written)
            self._mark.write(MarkValue(self._meta.store_id, written, pending.last_index, self._meta.written))
        except (sqlite3.Error, OSError) as error:
            raise self._fail("writing", error) from error
        except BaseException as error:
            self._failure = str(error)
            raise
        self._written = written
        seconds = perf_counter() - started
        if seconds > DISK_SLOW_SECONDS:
            logger.warning("a write and sync of %s took %.1f s", self.path, seconds)

    def _execute(self, pending: PendingWrite, written: int) -> None:
        execute = self._connection.execute
        rows = [entry_row(entry, written) for entry in pending.entries]
        size_bytes = _estimate_wal_bytes(pending.entries)
        self._wal_used_bytes += size_bytes
        self.appended_bytes += size_bytes
        if not pending.changes_meta and len(rows) <= _ROWS_PER_STATEMENT_MAX:
            self._insert(rows)
            return
        meta = MetaRow(self._meta.store_id, pending.first_index, written, pending.term, pending.voted_for)
        execute("BEGIN IMMEDIATE")
        if pending.delete_all:
            execute("DELETE FROM entries")
        if pending.delete_from is not None:
            execute("DELETE FROM entries WHERE log_index >= ?", (pending.delete_from,))
        if pending.delete_before is not None:
            execute("DELETE FROM entries WHERE log_index < ?", (pending.delete_before,))
        for start in range(0, len(rows), _ROWS_PER_STATEMENT_MAX):
            self._insert(rows[start : start + _ROWS_PER_STATEMENT_MAX])
        execute(UPDATE_META, meta_parameters(meta))
        execute("COMMIT")
        self._purged = True
        self._meta = meta

    def _insert(self, rows: Sequence[tuple[int, int, int, int, bytes]]) -> None:
        count = len(rows)
        statement = self._inserts.get(count)
        if statement is None:
            statement = INSERT_ENTRY + ", (?, ?, ?, ?, ?)" * (count - 1)
            self._inserts[count] = statement
        values = rows[0] if count == 1 else [value for row in rows for value in row]
        # `execute` would ask for the last row id too, which gives the interpreter lock away once more.
        self._connection.executemany(statement, (values,))

    # ------------------------------------------------------------------ checkpoints

    def checkpoint_if_due(self) -> None:
        """Copy a grown write-ahead log into the database; called between writes, once a result was handed over.

        Never raises: a fault makes the writer dead and the next write says why.
        """
        # Large entries are not waited with: sixteen of 15 MB together would hold the next write for most of a second.
        used = self._wal_used_bytes >= self._checkpoint_size_bytes
        if self._failure is not None or not (used or self._written >= self._looked_at + _WRITES_BETWEEN_LOOKS):
            return
        self._looked_at = self._written
        try:
            self._measure()
            grown = self.file_sizes.wal_bytes > max(self._wal_seen_bytes, self._checkpoint_size_bytes)
            if grown or used:
                self._checkpoint()
        except (sqlite3.Error, OSError) as error:
            self._fail("copying the write-ahead log into the database", error)
        except MetasrvError as error:
            self._failure = str(error)

    def _checkpoint(self, mode: str = "PASSIVE") -> None:
        self._connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        self._mark.sync()
        self._measure()
        self._wal_used_bytes = self._shortened_bytes = 0
        self._wal_seen_bytes = self.file_sizes.wal_bytes

    # ------------------------------------------------------------------ space

    def upkeep(self) -> None:
        """What is due after a write whose result was handed over: a checkpoint, or now and then a slice of free space.

        Never raises, as `checkpoint_if_due`.
        """
        self.checkpoint_if_due()
        if self._written >= self._sliced_at + _WRITES_BETWEEN_SLICES:
            self._sliced_at = self._written
            self.give_back()

    def give_back_all(self) -> None:
        """Have all free pages, and the write-ahead log, given back from now on while the thread is idle.

        By itself the node gives back only what is worth the work.
        """
        self._giving = self.gives_back = True

    def give_back(self) -> bool:
        """Give a slice of the file's free pages back, if it has many; whether there may be more to give.

        Begins once more than a checkpoint's size, and half of the file, is free, because what is purged is usually
        written again; ends at half a checkpoint's size. Never raises, as `checkpoint_if_due`.
        """
        if self._failure is not None or self._closed or not (self._purged or self._giving):
            return False
        try:
            return self._give_back()
        except (sqlite3.Error, OSError) as error:
            self._fail("giving free space back", error)
        except MetasrvError as error:
            self._failure = str(error)
        return False

    def _give_back(self) -> bool:
        execute = self._connection.execute
        free, pages = (int(execute(f"PRAGMA {name}").fetchone()[0]) for name in ("freelist_count", "page_count"))
        free_bytes, kept_bytes = free * PAGE_SIZE_BYTES, self._checkpoint_size_bytes
        self._purged = False
        if self._giving and free_bytes <= (0 if self.gives_back else kept_bytes // 2):
            self._checkpoint("TRUNCATE" if self.gives_back else "PASSIVE")
            self._giving = self.gives_back = False
            return False
        self._giving = self._giving or (free_bytes > kept_bytes and 2 * free > pages)
        if not self._giving:
            return False
        # A transaction of its own, synced as every other: what is torn at the end of the log is then always the last one.
        # SQLite frees one page a step, and `execute` takes only the first step of a statement without columns.
        self._connection.executescript(f"BEGIN IMMEDIATE; PRAGMA incremental_vacuum({FREE_PAGES_PER_SLICE}); COMMIT")
        size_bytes = FREE_PAGES_PER_SLICE * PAGE_SIZE_BYTES
        self._wal_used_bytes += size_bytes
        self._shortened_bytes += size_bytes
        if self._shortened_bytes >= SHORTENED_SIZE_BYTES_MAX or self._wal_used_bytes >= self._checkpoint_size_bytes:
            self._checkpoint()
        return True

    def _measure(self) -> None:
        wal = wal_path(self.path)
        wal_bytes = os.stat(wal).st_size if os.path.exists(wal) else 0
        self.file_sizes = LogFileSizes(os.stat(self.path).st_size, wal_bytes)

    # ------------------------------------------------------------------ end

    def close(self) -> None:
        """Copy everything into the database, sync the mark, release the lock; again is no harm. Raises StorageError."""
        if self._closed:
            return
        self._closed = True
        try:
            self._connection.close()
            self._mark.sync()
        except (sqlite3.Error, OSError) as error:
            raise self._fail("closing", error) from error
        finally:
            self._mark.close()

    def _check_alive(self) -> None:
        if self._failure is not None:
            raise StorageError(f"{self.path}: not written, because an earlier write failed: {self._failure}")

    def _fail(self, doing: str, error: sqlite3.Error | OSError) -> MetasrvError:
        fault = disk_error(self.path, doing, error)
        self._failure = str(fault)
        return fault


def _estimate_wal_bytes(entries: Sequence[LogEntry]) -> int:
    """Roughly what a transaction adds to the write-ahead log, whose used part SQLite does not tell."""
    content_bytes = sum(len(entry[CONTENT]) for entry in entries)
    return content_bytes + _PAGES_PER_TRANSACTION * PAGE_SIZE_BYTES

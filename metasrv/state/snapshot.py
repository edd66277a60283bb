"""Snapshot files: what is live in the state at one instant, written, checked and read in a helper thread.

A snapshot is a state file in one piece (no write-ahead log) that also carries the log's last two entries, so that
the engine can continue from it. Never touches the loop's connection.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from typing import NamedTuple
from urllib.parse import quote

from metasrv.model.errors import DataDamagedError, StorageError
from metasrv.model.limits import STATE_LOG_COPY_FACTOR, STATE_LOG_PINNED_SIZE_BYTES_MAX
from metasrv.model.sizes import size_text
from metasrv.model.types import LogId
from metasrv.process.operating_system import sync_file
from metasrv.state.copying import copy_live
from metasrv.state.damage import check_file, damaged
from metasrv.state.digest import UNKNOWN_DIGEST, UNKNOWN_SIZE
from metasrv.state.first_format import FIRST_FORMAT_VERSION, FIRST_SCHEMA, LARGE_NOWHERE
from metasrv.state.format import META_TAIL, Applied, SnapshotTail, tail_in, tail_out
from metasrv.state.reader import READER_PAGE_RECORDS, read_cluster_id, read_membership
from metasrv.state.registry import load_registry
from metasrv.state.state_file import check_schema, remove_draft
from metasrv.state.storage_faults import fault
from metasrv.state.store import FILE_SWAP, READER_CACHE_SIZE_KIB, Store, connect, set_cache_size, sync_directory

__all__ = [
    "SnapshotInfo",
    "SnapshotTail",
    "SnapshotWriter",
    "open_snapshot",
    "read_snapshot_tail",
    "verify_snapshot",
]

_READ_SIZE_BYTES = 1024 * 1024


class SnapshotInfo(NamedTuple):
    """A finished snapshot file."""

    path: str
    log_id: LogId
    """Last entry whose effects are in it."""
    key_count: int
    expire_count: int
    size_bytes: int
    sha256: str


class SnapshotWriter:
    """Writes one snapshot in two steps, so that the log's entries at the pinned position can be read in between."""

    def __init__(self, state_path: str) -> None:
        self._state_path = state_path
        self._store: Store | None = None
        self._applied = Applied()

    def pin(self) -> LogId:
        """Fix the instant that will be copied; returns its last applied entry. Raises StorageError."""
        try:
            with FILE_SWAP:
                self._store = Store(self._state_path, connect(self._state_path, shared=True))
                self._store.execute("BEGIN")
                self._applied = self._store.applied()
        except sqlite3.Error as error:
            self.close()
            raise fault(self._state_path, error) from error
        return self._applied.log_id

    def write(self, destination: str, tail: SnapshotTail) -> SnapshotInfo:
        """Copy the pinned instant to `destination`, which appears complete and synced or not at all.

        The file is as large as what is live. The instant is pinned until it is copied. Raises StorageError, also when
        the write-ahead log grows past its bound meanwhile, or DataDamagedError when the state file proves damaged.
        """
        store = self._store
        if store is None:
            raise StorageError(f"{self._state_path}: nothing is pinned to write a snapshot of")
        draft = f"{destination}.tmp"
        try:
            meta = ((META_TAIL, tail_out(tail)),)
            copy_live(store, draft, values_inside=False, meta=meta, copied=lambda _records: self._check_log())
            self.close()  # the rest needs only the copy; the write-ahead log may begin anew
            sha256, size_bytes = digest_of(draft, sync=True)
            os.replace(draft, destination)
            sync_directory(destination)
        except sqlite3.Error as error:
            raise fault(self._state_path, error) from error
        except OSError as error:
            raise StorageError(f"{destination}: the snapshot could not be written: {error}") from error
        finally:
            self.close()
            remove_draft(draft)
        applied = self._applied
        return SnapshotInfo(destination, applied.log_id, applied.key_count, applied.expire_count, size_bytes, sha256)

    def close(self) -> None:
        """Unpin without writing; safe to call again."""
        if self._store is not None:
            self._store.close()
            self._store = None

    def _check_log(self) -> None:
        """Called between two slices of the copy: a copy that is far slower than the writes must not fill the disk."""
        log_size_bytes = os.stat(f"{self._state_path}-wal").st_size
        limit = STATE_LOG_PINNED_SIZE_BYTES_MAX + STATE_LOG_COPY_FACTOR * os.stat(self._state_path).st_size
        if log_size_bytes > limit:
            raise StorageError(
                f"{self._state_path}: the snapshot was given up, because the write-ahead log grew to"
                f" {size_text(log_size_bytes)} while the state was copied, and the limit is {size_text(limit)}"
            )


def verify_snapshot(path: str, sha256: str | None = None, cluster_id: str | None = None) -> SnapshotInfo:
    """Check a snapshot file from end to end, which is slow; raises DataDamagedError naming what is wrong.

    `sha256` and `cluster_id` are compared when given. Raises StorageError when the file cannot be read.
    """
    try:
        check_file(path)
        digest, size_bytes = digest_of(path, sync=False)
        if sha256 is not None and digest != sha256:
            raise damaged(path, "whole file", f"its SHA-256 is {digest}, not {sha256}")
        store = open_snapshot(path)
    except OSError as error:
        raise StorageError(f"{path}: the snapshot could not be read: {error}") from error
    except sqlite3.Error as error:
        raise fault(path, error) from error
    try:
        check_snapshot_schema(path, store)
        problem = store.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if problem != "ok":
            raise damaged(path, "inside the file", f"SQLite's integrity check says: {problem}")
        applied = _check_content(path, store, cluster_id)
        # Also when the file is what was sent: the sender copies its rows without looking at them.
        _check_records(store)
    except sqlite3.Error as error:
        raise fault(path, error) from error
    finally:
        store.close()
    return SnapshotInfo(path, applied.log_id, applied.key_count, applied.expire_count, size_bytes, digest)


def read_snapshot_tail(path: str) -> SnapshotTail:
    """The tail stored in a snapshot file; raises DataDamagedError when there is none."""
    try:
        store = open_snapshot(path)
        try:
            return stored_tail(store)
        finally:
            store.close()
    except sqlite3.Error as error:
        raise fault(path, error) from error


def stored_tail(store: Store) -> SnapshotTail:
    """The tail in an open file, checked against its last applied entry."""
    applied = store.applied()
    tail: SnapshotTail = store.parsed("meta tail", tail_in, store.meta(META_TAIL))
    if not tail_fits(tail, applied.log_id):
        raise damaged(store.path, "meta tail", f"the log entries it carries do not end at {applied.log_id}")
    return tail


def tail_fits(tail: SnapshotTail, log_id: LogId) -> bool:
    """Whether the tail ends at `log_id`."""
    previous, last = tail
    return last[1] == log_id.index and last[2] == log_id.term and previous[1] == last[1] - 1 and previous[2] <= last[2]


def _check_content(path: str, store: Store, cluster_id: str | None) -> Applied:
    applied = store.applied()
    stored_tail(store)
    read_membership(store)
    load_registry(store)
    sums = store.sums()
    counted = applied.sums if applied.digest != UNKNOWN_DIGEST else applied.sums._replace(digest=sums.digest)
    if sums != counted or not store.large_values_fit():
        raise damaged(path, "table kv", f"it holds {sums}, its counters say otherwise")
    if applied.data_size_bytes not in (UNKNOWN_SIZE, store.data_size_bytes()):
        raise damaged(path, "table kv", f"its records take other than the {applied.data_size_bytes} bytes they should")
    own = read_cluster_id(store)
    if cluster_id is not None and own != cluster_id:
        raise DataDamagedError(
            path, "meta cluster_id", f"it is of cluster {own}, this node is of cluster {cluster_id}", "use the right file"
        )
    return applied


def _check_records(store: Store) -> None:
    after: str | None = None
    last = False
    while not last:
        page, last = store.scan_page("", None, after, READER_PAGE_RECORDS)
        after = page[-1][0] if page else after


def open_snapshot(path: str, *, shared: bool = False) -> Store:
    """Read-only and without side files: nobody writes to a snapshot. Reads both formats.

    `shared` when several threads use it in turn. Raises as `connect` does.
    """
    uri = f"file:{quote(os.path.abspath(path))}?mode=ro&immutable=1"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=not shared)
    try:
        set_cache_size(path, connection, READER_CACHE_SIZE_KIB)
        if connection.execute("PRAGMA user_version").fetchone()[0] == FIRST_FORMAT_VERSION:
            connection.execute(LARGE_NOWHERE)
    except BaseException:
        connection.close()
        raise
    return Store(path, connection)


def check_snapshot_schema(path: str, store: Store) -> None:
    """As `check_schema`, for a file that `open_snapshot` opened: one of format 1 is good too."""
    if store.execute("PRAGMA user_version").fetchone()[0] == FIRST_FORMAT_VERSION:
        check_schema(path, store.connection, FIRST_FORMAT_VERSION, FIRST_SCHEMA)
    else:
        check_schema(path, store.connection)


def digest_of(path: str, *, sync: bool) -> tuple[str, int]:
    digest = hashlib.sha256()
    size_bytes = 0
    with open(path, "rb", buffering=0) as file:
        if sync:
            sync_file(file.fileno())
        while chunk := file.read(_READ_SIZE_BYTES):
            digest.update(chunk)
            size_bytes += len(chunk)
    return digest.hexdigest(), size_bytes

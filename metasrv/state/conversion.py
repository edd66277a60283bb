"""Turns state and snapshot files of format 1 (builds before 0.2.0) into the present format.

Format 1 had every value in its record, in a table whose rows SQLite reads whole to compare a key: a few large values
made every operation on small keys slow. A state file is converted when it is opened, a snapshot when it arrives from a
node of that release. Either is copied beside and takes the old place by a rename, so a kill leaves one or the other.
Runs before the loop's work begins, or in a helper thread.
"""

from __future__ import annotations

import logging
import os
import sqlite3

from metasrv.model.errors import StorageError
from metasrv.process.operating_system import sync_file
from metasrv.state.copying import copy_live
from metasrv.state.damage import damaged
from metasrv.state.first_format import FIRST_FORMAT_VERSION, FIRST_SCHEMA
from metasrv.state.format import META_APPLIED, applied_out
from metasrv.state.install import begin_install, finish_install
from metasrv.state.snapshot import SnapshotInfo, digest_of, open_snapshot, verify_snapshot
from metasrv.state.state_file import check_schema, remove_draft
from metasrv.state.storage_faults import fault
from metasrv.state.store import Store, connect

logger = logging.getLogger(__name__)

_PROGRESS_RECORDS = 100_000
_VERSION_OFFSET = 60
"""Place of `user_version` in SQLite's header."""


def convert_state(path: str) -> bool:
    """Convert the closed state file at `path` if it has format 1; returns whether it had.

    Needs as much space on the disk as the live data takes. Raises DataDamagedError or StorageError, and then the old
    file is still there.
    """
    draft = f"{path}.new"
    try:
        # The header is enough, and leaves a write-ahead log alone: this number changes only together with the whole file.
        with open(path, "rb") as file:
            if int.from_bytes(file.read(_VERSION_OFFSET + 4)[_VERSION_OFFSET:], "big") != FIRST_FORMAT_VERSION:
                return False
        # Closing the last connection moves the write-ahead log into the file.
        store = Store(path, connect(path))
        try:
            check_schema(path, store.connection, FIRST_FORMAT_VERSION, FIRST_SCHEMA)
            _copy(store, draft)
        finally:
            store.close()
        descriptor = os.open(draft, os.O_RDONLY)
        try:
            sync_file(descriptor)
        finally:
            os.close(descriptor)
    except sqlite3.Error as error:
        raise fault(path, error) from error
    except OSError as error:
        raise StorageError(f"{draft}: the state file could not be converted to the present format: {error}") from error
    begin_install(draft, path)
    finish_install(path)
    logger.info("%s has the present format now", path)
    return True


def accept_snapshot(path: str, sha256: str, cluster_id: str | None) -> SnapshotInfo:
    """Verify a received snapshot, as `verify_snapshot` does; one of format 1 is replaced by its conversion.

    Raises DataDamagedError or StorageError.
    """
    info = verify_snapshot(path, sha256, cluster_id)
    draft = f"{path}.tmp"
    try:
        store = open_snapshot(path)
        try:
            if store.execute("PRAGMA user_version").fetchone()[0] != FIRST_FORMAT_VERSION:
                return info
            _copy(store, draft)
        finally:
            store.close()
        os.replace(draft, path)
        converted_sha256, size_bytes = digest_of(path, sync=True)
    except sqlite3.Error as error:
        raise fault(path, error) from error
    except OSError as error:
        raise StorageError(f"{path}: the snapshot could not be converted to the present format: {error}") from error
    finally:
        remove_draft(draft)
    return info._replace(sha256=converted_sha256, size_bytes=size_bytes)


def _copy(store: Store, draft: str) -> None:
    applied = store.applied()
    logger.info(
        "%s has format 1, of builds before 0.2.0: its %d records are copied to a new file", store.path, applied.key_count
    )
    records = 0

    def copied(count: int) -> None:
        nonlocal records
        if (records + count) // _PROGRESS_RECORDS > records // _PROGRESS_RECORDS:
            logger.info("%s: %d of %d records are copied", store.path, records + count, applied.key_count)
        records += count

    store.execute("BEGIN")
    meta = ((META_APPLIED, applied_out(applied._replace(digest=store.sums().digest))),)
    copy_live(store, draft, values_inside=True, meta=meta, copied=copied)
    if records != applied.key_count:
        raise damaged(store.path, "table kv", f"it holds {records} records, its counters say {applied.key_count}")

"""Reads every record of a closed state file and compares all of it with what the entries left.

Runs in a program of its own, or before a restored file is used.
"""

from __future__ import annotations

import sqlite3

from metasrv.model.errors import DataDamagedError
from metasrv.process.clock import SystemClock
from metasrv.state.damage import check_file, damaged
from metasrv.state.scrubbing import check_slice, check_sums
from metasrv.state.storage_faults import fault
from metasrv.state.store import connect

_SLICE_SECONDS = 60.0


def verify_state(path: str) -> int:
    """The number of records, all of them sound. Raises DataDamagedError naming the place, StorageError."""
    check_file(path)
    try:
        connection = connect(path)
        try:
            problem = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise fault(path, error) from error
    if problem != "ok":
        raise damaged(path, "inside the file", f"SQLite's check says: {problem}")
    records, after, clock = 0, None, SystemClock()
    while True:
        found = check_slice(path, after, _SLICE_SECONDS, clock)
        records += found.records
        after = found.last_key
        if after is None:
            break
    sums = check_sums(path)
    if sums is not None and sums.keys != records:
        raise DataDamagedError(path, "table kv", f"{records} records were read, {sums.keys} counted", "check again")
    return records

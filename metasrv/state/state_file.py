"""Making and recognising state files: an empty one, an unfinished one, and whether metasrv wrote a file in this format.

Knows the tables, not what is in them. Runs before the loop's work begins, or in a helper thread.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from metasrv.model.errors import DataDamagedError
from metasrv.process.operating_system import make_syncs_full
from metasrv.process.private_files import open_private
from metasrv.state.damage import damaged
from metasrv.state.format import APPLICATION_ID, FORMAT_VERSION, META_APPLIED, SCHEMA, Applied, applied_out
from metasrv.state.store import SET_META, sync_directory


class StateFileSizes(NamedTuple):
    """The two files of the state, in bytes."""

    database_bytes: int
    log_bytes: int
    """The write-ahead log: what was applied and is not yet moved into the database, and remains of earlier entries."""


def create_draft(path: str) -> sqlite3.Connection:
    """A new file with empty tables in the place of an unfinished one, not synced under its name; the caller closes it."""
    remove_draft(path)
    os.close(open_private(path, os.O_CREAT | os.O_EXCL))  # SQLite would give it to everybody; side files get its rights
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        make_syncs_full(connection)
        # Chosen once, when the file is made: free pages can be given back in slices (`Store.give_back`).
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {FORMAT_VERSION}")
        connection.execute("BEGIN")
        for statement in SCHEMA:
            connection.execute(statement)
        connection.execute("COMMIT")
    except BaseException:
        connection.close()
        raise
    return connection


def remove_draft(path: str) -> None:
    """Remove an unfinished file and what SQLite left beside it."""
    for suffix in ("", "-journal", "-wal", "-shm"):
        if os.path.exists(path + suffix):
            os.unlink(path + suffix)


def create_file(path: str) -> None:
    """Write an empty state file; it appears under `path` complete or not at all."""
    draft = f"{path}.new"
    connection = create_draft(draft)
    try:
        connection.execute(SET_META, (META_APPLIED, applied_out(Applied())))
    finally:
        connection.close()
    os.replace(draft, path)
    sync_directory(path)


def check_schema(
    path: str, connection: sqlite3.Connection, expected: int = FORMAT_VERSION, schema: Sequence[str] = SCHEMA
) -> None:
    """Raise DataDamagedError unless metasrv wrote the file, in the expected format."""
    application_id = connection.execute("PRAGMA application_id").fetchone()[0]
    if application_id != APPLICATION_ID:
        raise damaged(path, "application id", "this SQLite file was not written by metasrv")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version != expected:
        raise DataDamagedError(
            path,
            "user version",
            f"the file has format {version}, this version of metasrv reads format {FORMAT_VERSION}",
            "start the version of metasrv that wrote it",
        )
    found = sorted(row[0] for row in connection.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL"))
    if found != sorted(schema):
        raise damaged(path, "schema", "the tables are not those of this format")


def file_sizes(path: str) -> StateFileSizes:
    """What is on disk at this moment; 0 for what cannot be looked at, which `node/files_in_place.py` notices."""
    return StateFileSizes(_size_of(path), _size_of(f"{path}-wal"))


def _size_of(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0

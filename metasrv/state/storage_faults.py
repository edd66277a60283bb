"""What SQLite's errors about a state file mean for the node: a damaged file, or a disk that refuses.

Runs wherever the file is used.
"""

from __future__ import annotations

import sqlite3
from typing import Protocol

from metasrv.model.errors import DataDamagedError, StorageError
from metasrv.state.damage import damaged

_NO_TEXT = "Could not decode to UTF-8"
"""How Python's error begins when a text column holds bytes that are not UTF-8; the error has no name of its own."""


def fault(path: str, error: sqlite3.Error) -> DataDamagedError | StorageError:
    """What an error of SQLite means for the node."""
    name = getattr(error, "sqlite_errorname", "") or ""
    if str(error).startswith(_NO_TEXT) or name.startswith(
        ("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_SCHEMA", "SQLITE_ERROR")
    ):
        return damaged(path, "inside the file", f"SQLite says: {error}")
    return StorageError(f"{path}: the state file could not be read or written: {error}")


class Faulty(Protocol):
    """What may have lost what it held: a `Store`."""

    path: str
    lost: bool

    def lost_error(self) -> StorageError: ...


class Faults:
    """See `Store.faults`. A class, because every read of one key enters it, and a generator costs as much as the read."""

    __slots__ = ("_store",)

    def __init__(self, store: Faulty) -> None:
        self._store = store

    def __enter__(self) -> None:
        if self._store.lost:
            raise self._store.lost_error()

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, sqlite3.Error):
            raise fault(self._store.path, error) from error

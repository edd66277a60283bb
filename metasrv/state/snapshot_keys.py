"""The keys of a finished snapshot file, in order.

Nobody writes to such a file, but a newer snapshot or an operator may remove it at any time; once it is open that does
not matter. Opened, read and closed in helper threads, by one at a time.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator

from metasrv.model.errors import DataDamagedError
from metasrv.state.snapshot import check_snapshot_schema, open_snapshot
from metasrv.state.storage_faults import fault
from metasrv.state.store import Store

PAGE_KEYS = 512
"""Keys of one page: about half a millisecond."""


class SnapshotKeys:
    """One walk over the keys of the file at `path`, which is opened when the first page is asked for."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._store: Store | None = None

    def close(self) -> None:
        """Close the file; safe to call again."""
        if self._store is not None:
            self._store.close()
            self._store = None

    def open(self) -> bool:
        """False when the file is no longer there; raises DataDamagedError or StorageError when it cannot be used."""
        try:
            self._store = open_snapshot(self._path, shared=True)
            check_snapshot_schema(self._path, self._store)
        except sqlite3.Error as error:
            self.close()
            if not os.path.exists(self._path):
                return False
            raise fault(self._path, error) from error
        except DataDamagedError:
            self.close()
            raise
        return True

    def pages(self) -> Iterator[list[str]]:
        """Every key, without the records; nothing before `open`."""
        after: str | None = None
        while self._store is not None:
            with self._store.faults():
                keys = self._store.scan_keys(after, PAGE_KEYS)
            if not keys:
                return
            yield keys
            after = keys[-1]

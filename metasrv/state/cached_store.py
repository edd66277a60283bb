"""The loop's connection to the state file: caches recently used records, and puts several entries in one transaction.

A write needs the record it replaces, and clients read what they have just written; from memory either costs a tenth.
Coherent because the loop's connection is the only one that writes. A change that does not name its keys, and every
rollback, clears the cache.

A commit costs SQLite several system calls a page, and nobody waits for it: the raft log is what is durable. So the
transaction of an entry stays open for the next ones, each behind a savepoint, until `flush`. This connection sees what
it has written; whoever is to see it through another one flushes first. Runs on the event loop.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from metasrv.model.errors import StorageError
from metasrv.model.types import SeqV
from metasrv.state.digest import Removed
from metasrv.state.store import CACHE_SIZE_KIB, Store, connect

CACHE_SIZE_BYTES_MAX = 8 * 1024 * 1024
"""Records in memory, keys and values, both generations together. Small, because a generation is freed in one step."""
CACHED_RECORD_SIZE_BYTES_MAX = 64 * 1024
"""A larger value is read from the file each time."""
_ENTRY_SIZE_BYTES = 300
"""What a record takes beside its key and value."""


class CachedStore(Store):
    """A store that remembers records, and which keys have no record.

    Two generations: when the young one has filled half of the budget it becomes the old one, and the old one is dropped.
    A record that is used moves to the young one, so records in use stay.
    """

    __slots__ = ("_old", "_young", "_young_size_bytes", "uncommitted")

    _young: dict[str, SeqV | None]
    _old: dict[str, SeqV | None]
    _young_size_bytes: int

    def __init__(self, path: str, connection: sqlite3.Connection) -> None:
        super().__init__(path, connection)
        self.uncommitted = 0
        """Entries in the open transaction."""

    def begin(self) -> None:
        if self.lost:
            raise self.lost_error()
        if self.uncommitted:
            self.execute("SAVEPOINT entry")
        else:
            super().begin()

    def commit(self) -> None:
        """End the entry; it is in the file after the next `flush`."""
        if self.uncommitted:
            self.execute("RELEASE entry")
        self.uncommitted += 1

    def flush(self) -> bool:
        """Commit what is open, False for nothing. When the disk refuses, those entries are lost: nothing can be read."""
        if not self.uncommitted:
            return False
        try:
            super().commit()
        except BaseException:
            self._lose()
            raise
        self.uncommitted = 0
        return True

    def read(self, key: str) -> SeqV | None:
        if key in self._young:
            return self._young[key]
        record = self._old[key] if key in self._old else super().read(key)
        self._remember(key, record)
        return record

    def read_seq(self, key: str) -> int:
        record = self.read(key)
        return 0 if record is None else record.seq

    def put(self, key: str, record: SeqV, replaced: SeqV | None) -> int:
        gain = super().put(key, record, replaced)
        self._remember(key, record)
        return gain

    def put_many(self, written: Mapping[str, tuple[SeqV, SeqV | None]]) -> int:
        gain = super().put_many(written)
        for key, (record, _replaced) in written.items():
            self._remember(key, record)
        return gain

    def delete(self, key: str, record: SeqV) -> int:
        share = super().delete(key, record)
        self._remember(key, None)
        return share

    def delete_range(self, start: str, end: str | None, may_expire: bool = True) -> Removed:
        removed = super().delete_range(start, end, may_expire)
        if removed.keys:
            self.forget()
        return removed

    def delete_expired(self, time_ms: int) -> Removed:
        removed = super().delete_expired(time_ms)
        if removed.keys:
            self.forget()
        return removed

    def rollback(self) -> None:
        """End the entry without effect, but not those before it."""
        if not self.uncommitted:
            self.forget()
            super().rollback()
        elif self.connection.in_transaction:
            self.forget()
            self.execute("ROLLBACK TO entry")
            self.execute("RELEASE entry")
        else:
            self._lose()  # SQLite ended the transaction by itself, as it does after some faults

    def _lose(self) -> None:
        self.lost = True
        self.forget()
        super().rollback()

    def forget(self) -> None:
        """Drop every record from memory."""
        self._young = {}
        self._old = {}
        self._young_size_bytes = 0

    def _remember(self, key: str, record: SeqV | None) -> None:
        size_bytes = len(key) + _ENTRY_SIZE_BYTES
        if record is not None:
            if len(record.data) > CACHED_RECORD_SIZE_BYTES_MAX:
                self._young.pop(key, None)
                self._old.pop(key, None)
                return
            size_bytes += len(record.data)
        # A key written again is counted again: the generation only ends a little earlier.
        self._young[key] = record
        self._young_size_bytes += size_bytes
        if self._young_size_bytes > CACHE_SIZE_BYTES_MAX // 2:
            self._old = self._young
            self._young = {}
            self._young_size_bytes = 0


def open_cached_store(path: str) -> CachedStore:
    """The one connection that writes; raises StorageError where SQLite offers no write-ahead log."""
    connection = connect(path, cache_size_kib=CACHE_SIZE_KIB)
    try:
        mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise StorageError(f"{path}: SQLite offers no write-ahead log on this file system (mode {mode})")
        return CachedStore(path, connection)
    except BaseException:
        connection.close()
        raise


@contextmanager
def closed_on_error(store: CachedStore) -> Iterator[CachedStore]:
    """Close the store when what is done with it first raises."""
    try:
        yield store
    except BaseException:
        store.close()
        raise

"""One connection to the state file: its tables as typed reads and writes.

Knows rows, not rules: `command_rules.py` says what a command means. A connection belongs to the thread that uses it. The
loop's connection writes, all others only read. SQLite's errors leave this module as they are inside an entry, and as
`StorageError` or `DataDamagedError` everywhere else.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from typing import Any

from metasrv.model.errors import CodecError, StorageError
from metasrv.model.types import I64_MAX, KVMeta, SeqV
from metasrv.process import operating_system
from metasrv.process.operating_system import make_syncs_full
from metasrv.state.damage import damaged
from metasrv.state.digest import RangeSums, Removed, record_share
from metasrv.state.expiry import TIME_MS_MAX, expire_ms_of
from metasrv.state.format import (
    INLINE_SIZE_BYTES_MAX,
    META_APPLIED,
    META_SIZE,
    Applied,
    applied_in,
    prefix_end,
    record_checksum,
    size_in,
    size_out,
)
from metasrv.state.storage_faults import Faults
from metasrv.state.sums import LARGE_OF, data_size_of, large_size_of, sums_of, sums_to_remove

BUSY_TIMEOUT_SECONDS = 10.0
"""How long a write waits for a checkpoint that holds the write lock; only a failing disk takes as long."""
PAGE_SIZE_BYTES_TARGET = 1024 * 1024
"""Values of one page of a scan, unless its first record alone is larger."""
CHECKSUM_AGAIN_SIZE_BYTES_MAX = 4 * 1024
"""The checksum of a larger value that goes is read from the file instead of computed again."""
CACHE_SIZE_KIB = 64 * 1024
READER_CACHE_SIZE_KIB = 4 * 1024

# The statements below are put together from constants of this module; values are always bound (S608).
_RECORD = (
    "seq, expire_at, proposed_at_ms, checksum, ifnull(data, (SELECT large.data FROM large WHERE large.seq = kv.seq))"
)
_READ = f"SELECT {_RECORD} FROM kv WHERE key = ?"  # noqa: S608
_READ_SEQ = "SELECT seq FROM kv WHERE key = ?"
_READ_CHECKSUM = "SELECT checksum FROM kv WHERE key = ?"
_PUT = "INSERT OR REPLACE INTO kv VALUES(?, ?, ?, ?, ?, ?, ?)"
_DELETE = "DELETE FROM kv WHERE key = ?"
_PUT_LARGE = "INSERT INTO large VALUES(?, ?)"
_DELETE_LARGE = "DELETE FROM large WHERE seq = ?"
_DELETE_LARGE_OF = f"DELETE FROM large WHERE {LARGE_OF}"  # noqa: S608
_COUNT = "SELECT count(*) FROM (SELECT 1 FROM kv WHERE key >= ? LIMIT ?)"
_COUNT_TO = "SELECT count(*) FROM (SELECT 1 FROM kv WHERE key >= ? AND key < ? LIMIT ?)"
_DELETE_EXPIRED = "DELETE FROM kv WHERE expire_ms < ?"
_EXPIRED = f"SELECT key, {_RECORD} FROM kv WHERE expire_ms < ? ORDER BY expire_ms, seq"  # noqa: S608
SET_META = "INSERT OR REPLACE INTO meta VALUES(?, ?)"


class Store:
    """Reads and writes of one open state file."""

    __slots__ = ("connection", "execute", "lost", "path")

    def __init__(self, path: str, connection: sqlite3.Connection) -> None:
        self.path = path
        self.connection = connection
        self.lost = False
        """Entries that were answered are no longer here, because the disk refused them: nothing may be read."""
        # One cursor for all statements: every read below fetches all its rows before the next statement starts.
        self.execute: Callable[..., sqlite3.Cursor] = connection.cursor().execute
        self.forget()

    def forget(self) -> None:
        """Clear the cache; a plain store has none."""

    def close(self) -> None:
        self.connection.close()

    # ------------------------------------------------------------------------- transactions

    def begin(self) -> None:
        """Take the write lock; waits for a checkpoint that holds it."""
        self.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        self.execute("COMMIT")

    def rollback(self) -> None:
        """End a transaction without effect; SQLite has already done so after some faults."""
        if self.connection.in_transaction:
            self.execute("ROLLBACK")

    def lost_error(self) -> StorageError:
        return StorageError(f"{self.path}: the last entries could not be written")

    def faults(self) -> Faults:
        """A context that turns SQLite's errors into StorageError or DataDamagedError."""
        return Faults(self)

    # ------------------------------------------------------------------------- space

    def free_size_bytes(self) -> tuple[int, int]:
        """Bytes of the file that hold nothing, and of the whole file as the last commit left it."""
        free, pages, size_bytes = (
            int(self.execute(f"PRAGMA {name}").fetchone()[0]) for name in ("freelist_count", "page_count", "page_size")
        )
        return free * size_bytes, pages * size_bytes

    def give_back(self, pages: int) -> None:
        """Move up to `pages` of the file's end into its free pages and shorten it, in one transaction."""
        try:
            # SQLite frees one page a step, and `execute` takes only the first step of a statement without columns.
            self.connection.executescript(f"BEGIN IMMEDIATE; PRAGMA incremental_vacuum({pages}); COMMIT")
        except BaseException:
            self.rollback()
            raise

    # ------------------------------------------------------------------------- records

    def read(self, key: str) -> SeqV | None:
        """The stored record, expired or not."""
        row = self.execute(_READ, (key,)).fetchone()
        return None if row is None else self.record(key, *row)

    def read_seq(self, key: str) -> int:
        """The record's sequence number, 0 when there is none."""
        row = self.execute(_READ_SEQ, (key,)).fetchone()
        return 0 if row is None else int(row[0])

    def put(self, key: str, record: SeqV, replaced: SeqV | None) -> int:
        """Store a record over `replaced`, which is what is there; returns what the digest of the records gains."""
        seq, data, meta = record
        expire_at, proposed_at_ms = meta or KVMeta()
        checksum = record_checksum(key, seq, expire_at, proposed_at_ms or 0, data)
        expire_ms: int | None = None
        stored: int | str | None = expire_at
        if expire_at is not None:
            expire_ms = expire_ms_of(expire_at)
            stored = expire_at if expire_at <= I64_MAX else str(expire_at)
        gain = record_share(seq, checksum)
        if replaced is not None:
            gain -= self._share(key, replaced)
            if len(replaced.data) > INLINE_SIZE_BYTES_MAX:
                self.execute(_DELETE_LARGE, (replaced.seq,))
        if len(data) > INLINE_SIZE_BYTES_MAX:
            self.execute(_PUT_LARGE, (seq, data))
            self.execute(_PUT, (key, seq, expire_ms, stored, proposed_at_ms, checksum, None))
        else:
            self.execute(_PUT, (key, seq, expire_ms, stored, proposed_at_ms, checksum, data))
        return gain

    def put_many(self, written: Mapping[str, tuple[SeqV, SeqV | None]]) -> int:
        """As `put` for (record, replaced) by key; all values stand in their records, and none has an expiry."""
        gain, rows = 0, list[tuple[Any, ...]]()
        for key, (record, replaced) in written.items():
            seq, data, meta = record
            proposed_at_ms = 0 if meta is None else meta.proposed_at_ms or 0
            checksum = record_checksum(key, seq, None, proposed_at_ms, data)
            gain += record_share(seq, checksum)
            if replaced is not None:
                gain -= self._share(key, replaced)
            rows.append((key, seq, None, None, proposed_at_ms, checksum, data))
        self.connection.executemany(_PUT, rows)
        return gain

    def delete(self, key: str, record: SeqV) -> int:
        """Delete the record that is there; returns what the digest of the records loses."""
        share = self._share(key, record)
        if len(record.data) > INLINE_SIZE_BYTES_MAX:
            self.execute(_DELETE_LARGE, (record.seq,))
        self.execute(_DELETE, (key,))
        return share

    def _share(self, key: str, record: SeqV) -> int:
        """The share in the digest of a record that is there."""
        seq, data, meta = record
        if len(data) > CHECKSUM_AGAIN_SIZE_BYTES_MAX:
            return record_share(seq, int(self.execute(_READ_CHECKSUM, (key,)).fetchone()[0]))
        expire_at, proposed_at_ms = meta or KVMeta()
        return record_share(seq, record_checksum(key, seq, expire_at, proposed_at_ms or 0, data))

    def count_prefix(self, prefix: str, limit: int) -> int:
        """Keys that start with `prefix`; counting stops at `limit`."""
        end, limit = prefix_end(prefix), min(limit, I64_MAX)
        if end is None:
            return int(self.execute(_COUNT, (prefix, limit)).fetchone()[0])
        return int(self.execute(_COUNT_TO, (prefix, end, limit)).fetchone()[0])

    def scan(
        self, start: str, end: str | None, after_key: str | None, limit: int | None, now_ms: int | None
    ) -> list[tuple[str, SeqV]]:
        """Records in [start, end) after `after_key`, in key order; `now_ms` hides what has expired by then."""
        condition, parameters = _range("key >= ?", start, end)
        if after_key is not None and after_key >= start:
            condition, parameters = _range("key > ?", after_key, end)
        if now_ms is not None:
            condition += " AND (expire_ms IS NULL OR expire_ms >= ?)"
            parameters.append(min(now_ms, TIME_MS_MAX))
        parameters.append(-1 if limit is None else min(limit, I64_MAX))
        rows = self.execute(f"SELECT key, {_RECORD} FROM kv WHERE {condition} ORDER BY key LIMIT ?", parameters)  # noqa: S608
        return self._records(rows)

    def scan_page(
        self, start: str, end: str | None, after_key: str | None, limit: int
    ) -> tuple[list[tuple[str, SeqV]], bool]:
        """As `scan` with nothing hidden, but a page ends early when it grows large; also whether it is the last page."""
        condition, parameters = _range("key >= ?", start, end)
        if after_key is not None:
            condition, parameters = _range("key > ?", after_key, end)
        query = f"SELECT key, {_RECORD} FROM kv WHERE {condition} ORDER BY key LIMIT ?"  # noqa: S608
        page, size_bytes = list[tuple[str, SeqV]](), 0
        with closing(self.connection.execute(query, (*parameters, limit + 1))) as rows:
            for row in rows:
                if len(page) == limit or size_bytes > PAGE_SIZE_BYTES_TARGET:
                    return page, False
                page.append((row[0], self.record(*row)))
                size_bytes += len(row[5])
        return page, True

    def scan_keys(self, after_key: str | None, limit: int) -> list[str]:
        """Keys in order, without their records."""
        condition = "" if after_key is None else "WHERE key > ?"
        parameters = (limit,) if after_key is None else (after_key, limit)
        return [row[0] for row in self.execute(f"SELECT key FROM kv {condition} ORDER BY key LIMIT ?", parameters)]  # noqa: S608

    def sums(self, start: str = "", end: str | None = None) -> RangeSums:
        """The records in the range, added up."""
        condition, parameters = _range("key >= ?", start, end)
        return sums_of(self.execute, condition, parameters)

    def data_size_bytes(self) -> int:
        """All keys and values; reads every key."""
        return data_size_of(self.execute)

    def large_values_fit(self) -> bool:
        """Whether as many values stand beside the records as records lack theirs; reads every key."""
        query = "SELECT (SELECT count(*) FROM large) = (SELECT count(*) FROM kv WHERE data IS NULL)"
        return bool(self.execute(query).fetchone()[0])

    def delete_range(self, start: str, end: str | None, may_expire: bool = True) -> Removed:
        """Delete them; returns what they added up to. `may_expire`: whether any record of the state has an expiry."""
        condition, parameters = _range("key >= ?", start, end)
        # Each count costs a tenth of the sums. The DELETE counts as well.
        removed = sums_to_remove(self.execute, condition, parameters, count=may_expire)
        removed = self._with_large_values(removed, condition, parameters)
        keys = self.execute(f"DELETE FROM kv WHERE {condition}", parameters).rowcount  # noqa: S608
        return removed._replace(keys=keys)

    def _with_large_values(self, removed: Removed, condition: str, parameters: Sequence[Any]) -> Removed:
        """Delete the values that stand beside these records; what both add up to."""
        if not self.has_large_values():  # looking for them reads every record of the range once more
            return removed
        large_bytes = large_size_of(self.execute, condition, parameters)
        self.execute(_DELETE_LARGE_OF.format(condition), parameters)
        return removed._replace(data_size_bytes=removed.data_size_bytes + large_bytes)

    def has_large_values(self) -> bool:
        """Whether any value stands beside its record."""
        return bool(self.execute("SELECT EXISTS(SELECT 1 FROM large)").fetchone()[0])

    def has_large_value(self, seq: int) -> bool:
        """Whether the value of the record with this number stands beside it."""
        return self.execute("SELECT 1 FROM large WHERE seq = ?", (seq,)).fetchone() is not None

    def expired(self, time_ms: int) -> list[tuple[str, SeqV]]:
        """Records that expired before `time_ms`, in the order of the sweep."""
        return self._records(self.execute(_EXPIRED, (time_ms,)))

    def earliest_expire_ms(self) -> int | None:
        """The smallest expiry in the state, None when no record has one."""
        earliest: int | None = self.execute("SELECT min(expire_ms) FROM kv WHERE expire_ms IS NOT NULL").fetchone()[0]
        return earliest

    def delete_expired(self, time_ms: int) -> Removed:
        """Delete them; returns what they added up to."""
        removed = sums_to_remove(self.execute, "expire_ms < ?", (time_ms,), count=True)
        if removed.keys:
            removed = self._with_large_values(removed, "expire_ms < ?", (time_ms,))
            self.execute(_DELETE_EXPIRED, (time_ms,))
        return removed

    def scan_expire(self, after: tuple[int, int] | None, limit: int) -> list[tuple[int, int, str]]:
        """The expire index: (expire_ms, seq, key) in order, after a pair of the first two."""
        parameters = (*(after or (-1, -1)), limit)
        query = (
            "SELECT expire_ms, seq, key FROM kv WHERE expire_ms IS NOT NULL AND (expire_ms, seq) > (?, ?)"
            " ORDER BY expire_ms, seq LIMIT ?"
        )
        return [(int(row[0]), int(row[1]), row[2]) for row in self.execute(query, parameters)]

    def _records(self, rows: Iterable[Any]) -> list[tuple[str, SeqV]]:
        """`_record` for many rows; the usual case is spelled out, because lists are long."""
        records: list[tuple[str, SeqV]] = []
        for row in rows:
            key, seq, expire_at, proposed_at_ms, checksum, data = row
            if expire_at is None and record_checksum(key, seq, None, proposed_at_ms, data) == checksum:
                records.append((key, SeqV(seq, data, KVMeta(None, proposed_at_ms))))
            else:
                records.append((key, self.record(*row)))
        return records

    def record(
        self, key: str, seq: int, expire_at: int | str | None, proposed_at_ms: int, checksum: int, data: bytes
    ) -> SeqV:
        try:
            expires = None if expire_at is None else int(expire_at)
            if record_checksum(key, seq, expires, proposed_at_ms, data) == checksum:
                return SeqV(seq, data, KVMeta(expires, proposed_at_ms))
        except (TypeError, ValueError, AttributeError) as error:
            raise damaged(self.path, f"key {key!r}", "a column of the stored record is of another kind") from error
        raise damaged(self.path, f"key {key!r}", "the stored record does not match its checksum")

    # ------------------------------------------------------------------------- meta

    def meta(self, name: str) -> bytes | None:
        row = self.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if row is None else row[0]

    def set_meta(self, name: str, value: bytes) -> None:
        self.execute(SET_META, (name, value))

    def applied(self) -> Applied:
        """What the last entry left; its size is `UNKNOWN_SIZE` where a build that does not count it wrote the file."""
        applied: Applied = self.parsed("meta applied", applied_in, self.meta(META_APPLIED))
        stored = self.meta(META_SIZE)
        if stored is not None:
            digest, size_bytes = self.parsed("meta size", size_in, stored)
            if digest == applied.digest:
                return applied._replace(data_size_bytes=size_bytes)
        return applied if applied.key_count else applied._replace(data_size_bytes=0)

    def set_size(self, applied: Applied) -> None:
        self.set_meta(META_SIZE, size_out(applied))

    def parsed(self, where: str, parse: Callable[[Any], Any], data: Any) -> Any:
        """`parse(data)`, or DataDamagedError naming `where`."""
        try:
            return parse(data)
        except (CodecError, TypeError, ValueError, AttributeError, LookupError) as error:
            raise damaged(self.path, where, f"the stored value is damaged ({error})") from error


def _range(lower: str, start: str, end: str | None) -> tuple[str, list[Any]]:
    return (lower, [start]) if end is None else (f"{lower} AND key < ?", [start, end])


# ----------------------------------------------------------------------------- opening


def connect(path: str, *, cache_size_kib: int = READER_CACHE_SIZE_KIB, shared: bool = False) -> sqlite3.Connection:
    """A connection in explicit-transaction mode; `shared` when one thread opens it and another uses it.

    The first statement reads the schema. Raises DataDamagedError when SQLite's message about it is not valid text.
    """
    connection = sqlite3.connect(
        path,
        timeout=BUSY_TIMEOUT_SECONDS,
        isolation_level=None,
        check_same_thread=not shared,
        cached_statements=64,
    )
    try:
        set_cache_size(path, connection, cache_size_kib)
        connection.execute("PRAGMA secure_delete = OFF")
        # Nobody else may checkpoint: it would sync on the event loop.
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("PRAGMA synchronous = NORMAL")
        make_syncs_full(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def set_cache_size(path: str, connection: sqlite3.Connection, size_kib: int) -> None:
    """Be the first statement, which reads the schema. Raises as `connect` does."""
    try:
        connection.execute(f"PRAGMA cache_size = -{size_kib}")
    except UnicodeDecodeError as error:
        raise damaged(path, "schema", "SQLite cannot read it and quotes bytes that are not text") from error


FILE_SWAP = threading.Lock()
"""Held while a helper thread opens the state file, and while the loop puts another file in its place.

A connection that opened between the removal of the old write-ahead log and the rename of
the new file would share the new file's log while it reads the old one.
"""


def sync_directory(path: str) -> None:
    """Make the name of `path` durable."""
    operating_system.sync_directory(os.path.dirname(path) or ".")

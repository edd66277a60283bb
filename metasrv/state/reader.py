"""A second, read-only connection that shows one committed instant of the state, whatever is written meanwhile.

Opened on the event loop between two entries, then used by one thread at a time (usually a helper thread) and closed by
whoever opened it. While it is open the write-ahead log cannot start over, so a view that pins too much of
it is revoked (`views.py`, `raft/state_log.py`): its next read raises ViewLostError.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from metasrv.model.errors import ViewLostError
from metasrv.model.types import LogId, Membership, SeqV
from metasrv.state.expiry import has_expired
from metasrv.state.format import META_CLUSTER_ID, META_MEMBERSHIP, membership_in, unseal
from metasrv.state.raw_rows import RawRow, raw_page, without_expired
from metasrv.state.registry import load_registry
from metasrv.state.storage_faults import fault
from metasrv.state.store import Store, connect
from metasrv.state.views import Views

READER_PAGE_RECORDS = 512
# The length of a value is in its header: the value itself is not read.
_VALUE_SIZE = "ifnull(length(data), (SELECT length(large.data) FROM large WHERE large.seq = kv.seq))"
_VISIBLE = "kv WHERE key >= ? AND (? IS NULL OR key < ?) AND (expire_ms IS NULL OR expire_ms >= ?)"


class StateReader:
    """A view of the whole state at one instant. A context manager."""

    def __init__(self, path: str, views: Views | None = None) -> None:
        """Pin the present state of the file, until `views` revokes it; raises StorageError or DataDamagedError."""
        self._views = views
        self._reading_now = threading.Lock()
        """Held during each read, so that a view is not closed in the middle of one."""
        self._lost = ""
        """Why it was revoked, in words for a client."""
        connection: sqlite3.Connection | None = None
        try:
            connection = connect(path, shared=True)
            connection.execute("PRAGMA query_only = ON")
            self._store = Store(path, connection)
            self._store.execute("BEGIN")
            applied = self._store.applied()
            self.last_applied: LogId = applied.log_id
            self.last_time_ms: int = applied.time_ms
            self.last_seq: int = applied.seq
            self.key_count: int = applied.key_count
            self.expire_count: int = applied.expire_count
            registry = load_registry(self._store)
            self.nodes = registry.nodes
            self.features = registry.features
            self.secrets = registry.secrets
            self.membership_log_id, self.membership = read_membership(self._store)
            self.cluster_id = read_cluster_id(self._store)
        except sqlite3.Error as error:
            if connection is not None:
                connection.close()
            raise fault(path, error) from error
        except BaseException:
            if connection is not None:
                connection.close()
            raise
        if views is not None:
            views.opened(self)

    def __enter__(self) -> StateReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the instant; safe to call again, and from another thread than the one that read."""
        self._store.close()
        if self._views is not None:
            self._views.closed(self)

    def revoke(self, reason: str) -> None:
        """Release the instant now, or at the end of the read under way; later reads raise ViewLostError(`reason`)."""
        self._lost = self._lost or reason
        if self._reading_now.acquire(blocking=False):
            try:
                self.close()
            finally:
                self._reading_now.release()

    def _raise_if_lost(self) -> None:
        if self._lost:
            self.close()
            raise ViewLostError(self._lost)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with self._reading_now:
            self._raise_if_lost()
            try:
                with self._store.faults():
                    yield
            finally:
                if self._lost:
                    self.close()

    def get(self, key: str, now_ms: int | None = None) -> SeqV | None:
        """One record; `now_ms` hides it when it has expired by then."""
        with self._reading():
            record = self._store.read(key)
        return None if record is None or (now_ms is not None and has_expired(record, now_ms)) else record

    def list_range(
        self, start: str, end: str | None, after_key: str | None, page_size: int, now_ms: int | None
    ) -> list[tuple[str, SeqV]]:
        """A page of [start, end) after `after_key`, in key order; shorter than `page_size` only at the end."""
        with self._reading():
            return self._store.scan(start, end, after_key, page_size, now_ms)

    def pages(
        self,
        start: str = "",
        end: str | None = None,
        now_ms: int | None = None,
        page_records: int = READER_PAGE_RECORDS,
    ) -> Iterator[list[tuple[str, SeqV]]]:
        """All records of [start, end) in key order, in pages bounded in count and in bytes."""
        after: str | None = None
        last = False
        while not last:
            with self._reading():
                page, last = self._store.scan_page(start, end, after, page_records)
            if page:
                after = page[-1][0]
                yield page if now_ms is None else [item for item in page if not has_expired(item[1], now_ms)]

    def raw_pages(self, start: str, end: str | None, now_ms: int) -> Iterator[list[RawRow]]:
        """As `pages`, as rows without an object for each record; a page may be empty."""
        after: str | None = None
        last = False
        while not last:
            with self._reading():
                page, last = raw_page(self._store, start, end, after, READER_PAGE_RECORDS)
            if page:
                after = page[-1][0].decode()
                yield without_expired(page, now_ms) if now_ms else page

    def records(self, page_records: int = READER_PAGE_RECORDS) -> Iterator[tuple[str, SeqV]]:
        """Every record in key order, expired or not; read `page_records` at a time."""
        for page in self.pages(page_records=page_records):
            yield from page

    def sizes_from(self, start: str, end: str | None, now_ms: int, limit: int) -> list[tuple[str, int, int, int | None]]:
        """(key, seq, bytes of the value, expire_ms) of the first records of [start, end); what has expired is hidden."""
        with self._reading():
            query = f"SELECT key, seq, {_VALUE_SIZE}, expire_ms FROM {_VISIBLE} ORDER BY key LIMIT ?"  # noqa: S608
            rows = self._store.execute(query, (start, end, end, now_ms, limit)).fetchall()
        return [(row[0], int(row[1]), int(row[2]), row[3]) for row in rows]

    def sums_from(self, start: str, end: str | None, now_ms: int, limit: int) -> tuple[int, int, str | None]:
        """The first `limit` records of [start, end): how many, bytes of keys and values together, the last key."""
        with self._reading():
            sizes = f"SELECT key, length(CAST(key AS BLOB)) + {_VALUE_SIZE} AS size FROM {_VISIBLE} ORDER BY key LIMIT ?"  # noqa: S608
            query = f"SELECT count(*), ifnull(sum(size), 0), max(key) FROM ({sizes})"  # noqa: S608
            keys, size_bytes, last = self._store.execute(query, (start, end, end, now_ms, limit)).fetchone()
        return int(keys), int(size_bytes), last

    def expire_index(self) -> Iterator[tuple[int, int, str]]:
        """(expire_ms, seq, key) of every record that carries an expiry, in the order of the sweep."""
        after: tuple[int, int] | None = None
        while True:
            with self._reading():
                page = self._store.scan_expire(after, READER_PAGE_RECORDS)
            if not page:
                return
            yield from page
            after = page[-1][:2]


def read_membership(store: Store) -> tuple[LogId, Membership]:
    """The last applied membership and where it stands in the log; zero and empty before the first."""
    data = store.meta(META_MEMBERSHIP)
    if data is None:
        return LogId(), Membership()
    log_id, membership = store.parsed("meta membership", membership_in, data)
    return log_id, membership


def read_cluster_id(store: Store) -> str | None:
    data = store.meta(META_CLUSTER_ID)
    return None if data is None else str(store.parsed("meta cluster_id", unseal, data))

"""Reads what is really in the state file, beside the loop, and says whether it is what the entries left.

`check_slice` compares some records with their checksums, `check_sums` all rows with the digest that the entries kept.
Each call has a connection of its own, so that pages come from the file and not from another one's memory, and holds its
view for as long as it runs. Runs in helper threads; what it finds raises DataDamagedError.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from metasrv.model.limits import STATE_LOG_PINNED_SIZE_BYTES_MAX
from metasrv.process.clock import Clock
from metasrv.state.damage import damaged
from metasrv.state.digest import DIGEST_MASK, UNKNOWN_DIGEST, RangeSums
from metasrv.state.reader import read_membership
from metasrv.state.registry import load_registry
from metasrv.state.state_file import file_sizes
from metasrv.state.storage_faults import fault
from metasrv.state.store import FILE_SWAP, Store, connect

_PAGE_RECORDS = 64
_SLICE_RECORDS = 20_000
_EXPIRIES = (
    "SELECT count(*), total(seq & 4294967295), total(expire_ms & 4294967295) FROM kv WHERE {}expire_ms IS NOT NULL"
)
"""Read from the index, or, with a plus before the column, from the rows."""


class Slice(NamedTuple):
    """What `check_slice` has looked at."""

    last_key: str | None
    """Where the next slice goes on; None at the end of the state."""
    records: int
    seconds: float


class RangeDigests(NamedTuple):
    """Ranges of keys at one position of the log, added up."""

    index: int  # type: ignore[assignment]  # the field's standard name hides tuple.index
    digests: tuple[int, ...]


def check_slice(path: str, after: str | None, seconds_max: float, clock: Clock) -> Slice:
    """Compare records after a key with their checksums, for about so long by `clock`; at least one page.

    Raises DataDamagedError naming the key, or StorageError.
    """
    started, records = clock.monotonic(), 0
    with _view(path) as store:
        while True:
            page, is_last = store.scan_page("", None, after, _PAGE_RECORDS)
            records += len(page)
            after = page[-1][0] if page else after
            seconds = clock.monotonic() - started
            if is_last or seconds > seconds_max:
                return Slice(None if is_last else after, records, seconds)


def check_sums(path: str) -> RangeSums | None:
    """Compare all rows, the expire index and the small tables with what the entries left; no value is read.

    None when it was given up, because the write-ahead log grew too long meanwhile. Raises DataDamagedError or
    StorageError.
    """
    with _view(path) as store:
        applied = store.applied()
        load_registry(store)
        read_membership(store)
        keys = expiring = digest = 0
        for start, end in _slices(store):
            part = store.sums(start, end)
            keys, expiring, digest = keys + part.keys, expiring + part.expiring, digest + part.digest
            if _log_is_long(path):
                return None
        found = RangeSums(keys, expiring, digest & DIGEST_MASK)
        left = applied.sums
        if left.digest == UNKNOWN_DIGEST:
            left = left._replace(digest=found.digest)
        if found != left:
            raise damaged(path, "table kv", f"its rows add up to {tuple(found)}, the entries left {tuple(left)}")
        by_index, by_row = (store.execute(_EXPIRIES.format(plus)).fetchone() for plus in ("", "+"))
        if by_index != by_row:
            raise damaged(path, "index expire", f"it holds {by_index}, the rows {by_row}")
        return found


def sample_keys(path: str, start: str, end: str | None, count: int) -> list[str]:
    """Up to `count` keys inside a range, apart by about as many records each: bounds of smaller ranges."""
    with _view(path) as store:
        every = max(1, store.sums(start, end).keys // (count + 1))
        keys: list[str] = []
        key: str | None = start
        while len(keys) < count and (key := _key_at(store, key or "", every)) is not None and (end is None or key < end):
            keys.append(key)
        return keys


def range_digests(path: str, bounds: Sequence[str]) -> RangeDigests:
    """The digest of each range between two neighbours of `bounds`, which ascend, and of what follows the last."""
    with _view(path) as store:
        ends = (*bounds[1:], None)
        digests = tuple(store.sums(start, end).digest for start, end in zip(bounds, ends, strict=True))
        return RangeDigests(store.applied().log_id.index, digests)


def _slices(store: Store) -> Iterator[tuple[str, str | None]]:
    start = ""
    while (end := _key_at(store, start, _SLICE_RECORDS)) is not None:
        yield start, end
        start = end
    yield start, None


def _key_at(store: Store, start: str, offset: int) -> str | None:
    row = store.execute("SELECT key FROM kv WHERE key >= ? ORDER BY key LIMIT 1 OFFSET ?", (start, offset)).fetchone()
    return None if row is None else str(row[0])


def _log_is_long(path: str) -> bool:
    """A view that is open for too long keeps the write-ahead log from beginning anew."""
    return file_sizes(path).log_bytes > STATE_LOG_PINNED_SIZE_BYTES_MAX // 2


@contextmanager
def _view(path: str) -> Iterator[Store]:
    store: Store | None = None
    try:
        with FILE_SWAP:
            store = Store(path, connect(path))
            store.execute("PRAGMA query_only = ON")
            store.execute("BEGIN")
            store.applied()
        yield store
    except sqlite3.Error as error:
        raise fault(path, error) from error
    finally:
        if store is not None:
            store.close()

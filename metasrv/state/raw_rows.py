"""Pages of rows for long lists: what the state file holds of each record, compared with its checksum.

A list of thousands of records becomes bytes for a client at once, so no object is made for a record in between. A row
that is not as usual takes the slow way of `Store.record`, which says what is wrong with it. Runs wherever the
connection is used, usually in a helper thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from operator import itemgetter
from typing import Any
from zlib import crc32

from metasrv.state.damage import damaged
from metasrv.state.expiry import is_expired
from metasrv.state.store import PAGE_SIZE_BYTES_TARGET, Store

RawRow = tuple[bytes, int, int | str | None, int, int, bytes]
"""(key in UTF-8, seq, expire_at, proposed_at_ms, checksum, value); an expiry past 2**63 is a text of digits."""
ROWS_AT_ONCE = 32
"""Rows that are fetched together."""
VALUE_SIZE_BYTES_MAX = 64 * 1024
"""A larger value is read alone, so that the rows that are fetched together stay small."""

# Values are always bound; the rest are constants of this module (S608).
_SMALL_VALUE = f"SELECT large.data FROM large WHERE large.seq = kv.seq AND length(large.data) <= {VALUE_SIZE_BYTES_MAX}"  # noqa: S608
_ROW = f"CAST(key AS BLOB), seq, expire_at, proposed_at_ms, checksum, ifnull(data, ({_SMALL_VALUE}))"
_PAGE = f"SELECT {_ROW} FROM kv WHERE {{}} ORDER BY key LIMIT ?"  # noqa: S608
_LARGE = "SELECT data FROM large WHERE seq = ?"
_value_of = itemgetter(5)


def raw_page(store: Store, start: str, end: str | None, after_key: str | None, limit: int) -> tuple[list[RawRow], bool]:
    """The records of [start, end) after `after_key`, at most `limit`, expired or not; True if nothing follows.

    A page ends early once its values are larger than `PAGE_SIZE_BYTES_TARGET`, by no more than the rows that were
    fetched together or one large value; then nothing may follow either. Raises DataDamagedError for a row that is not
    what was written.
    """
    condition, parameters = ("key >= ?", [start]) if after_key is None else ("key > ?", [after_key])
    if end is not None:
        condition, parameters = f"{condition} AND key < ?", [*parameters, end]
    page: list[RawRow] = []
    size_bytes = 0
    with closing(store.connection.execute(_PAGE.format(condition), (*parameters, limit + 1))) as rows:
        while fetched := rows.fetchmany(ROWS_AT_ONCE):
            for part in _parts(store, fetched):
                page += _checked(store, part)
                size_bytes += sum(map(len, map(_value_of, part)))
                if size_bytes > PAGE_SIZE_BYTES_TARGET:
                    return page[:limit], False
    return page[:limit], len(page) <= limit


def without_expired(page: list[RawRow], now_ms: int) -> list[RawRow]:
    """The rows that a read at this time shows."""
    return [row for row in page if row[2] is None or not is_expired(int(row[2]), now_ms)]


def _parts(store: Store, fetched: list[Any]) -> Iterator[list[RawRow]]:
    """The rows in order, each large value read when it is its turn."""
    if None not in map(_value_of, fetched):
        yield fetched
        return
    for row in fetched:
        if row[5] is None:
            large = store.execute(_LARGE, (row[1],)).fetchone()
            yield [row if large is None else (*row[:5], large[0])]
        else:
            yield [row]


def _checked(store: Store, rows: list[RawRow]) -> list[RawRow]:
    """The same rows, once each has what was written. The usual case is spelled out, because lists are long."""
    try:
        doubtful = [
            row
            for row in rows
            if row[2] is not None
            or crc32(row[5], crc32(row[0], ((mixed := row[1] ^ row[3]) ^ (mixed >> 32)) & 0xFFFFFFFF)) != row[4]
        ]
    except TypeError:  # a column of another kind
        doubtful = rows
    for row in doubtful:
        try:
            key = row[0].decode()
        except UnicodeDecodeError as error:
            raise damaged(store.path, f"key {row[0]!r}", "the stored key is not text") from error
        store.record(key, *row[1:])
    return rows

"""What records add up to: queries over one open state file, for `store.py`.

The digest of records needs no value to be read, and neither does their size: SQLite knows the length of a value without
its bytes. Knows rows, not rules. Runs wherever the connection is used.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

from metasrv.state.digest import SHARE, SHARE_SUMS, RangeSums, Removed, digest_of_sums

Execute = Callable[..., sqlite3.Cursor]

# The statements below are put together from constants of this module; values are always bound (S608).
# The LIMIT keeps SQLite from putting the inner columns into the outer ones, which would compute each share twice.
_SHARES = f"(SELECT expire_ms, {SHARE} FROM kv WHERE {{}} LIMIT -1)"  # noqa: S608
_SUMS = f"SELECT count(*), count(expire_ms), {SHARE_SUMS} FROM {_SHARES}"  # noqa: S608
# `length` of a text ends at its first NUL. Values that stand beside their records are added separately.
_SIZE = "length(CAST(key AS BLOB)) + ifnull(length(data), 0)"
_SIZED_SHARES = f"(SELECT expire_ms, {_SIZE} AS size, {SHARE} FROM kv WHERE {{}} LIMIT -1)"  # noqa: S608
_SIZED_SUMS = f"SELECT {{}}, {SHARE_SUMS}, ifnull(sum(size), 0) FROM {_SIZED_SHARES}"  # noqa: S608
_COUNTS = "count(*), count(expire_ms)"
_NO_COUNTS = "0, 0"
LARGE_OF = "seq IN (SELECT seq FROM kv WHERE data IS NULL AND {})"
_LARGE_SIZES = f"SELECT ifnull(sum(length(data)), 0) FROM large WHERE {LARGE_OF}"  # noqa: S608
_DATA_SIZE = f"SELECT (SELECT ifnull(sum({_SIZE}), 0) FROM kv) + (SELECT ifnull(sum(length(data)), 0) FROM large)"  # noqa: S608


def sums_of(execute: Execute, condition: str, parameters: Sequence[Any]) -> RangeSums:
    """The records that meet the condition, added up."""
    keys, expiring, low, high = execute(_SUMS.format(condition), parameters).fetchone()
    return RangeSums(keys, expiring, digest_of_sums(low, high))


def sums_to_remove(execute: Execute, condition: str, parameters: Sequence[Any], *, count: bool) -> Removed:
    """The same with their size, but for values that stand beside them; `count`: whether to count the records."""
    query = _SIZED_SUMS.format(_COUNTS if count else _NO_COUNTS, condition)
    keys, expiring, low, high, size_bytes = execute(query, parameters).fetchone()
    return Removed(keys, expiring, digest_of_sums(low, high), size_bytes)


def large_size_of(execute: Execute, condition: str, parameters: Sequence[Any]) -> int:
    """Bytes of the values that stand beside these records; reads every record of the condition."""
    return int(execute(_LARGE_SIZES.format(condition), parameters).fetchone()[0])


def data_size_of(execute: Execute) -> int:
    """Bytes of all keys and values; reads every key."""
    return int(execute(_DATA_SIZE).fetchone()[0])

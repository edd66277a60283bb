"""The keys under a prefix as a tree: groups up to the next delimiter with counts and sizes, and single records.

Steps from group to group instead of through all keys, and counts within a group by aggregates, thousands of rows at a
time, until a deadline. Reads sizes, never values. Runs in a helper thread, over a view that is pinned to one instant.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from metasrv.state.format import prefix_end
from metasrv.state.reader import StateReader

COUNT_PAGE_RECORDS = 20_000
"""Rows that are counted between two looks at the clock: a few milliseconds."""


class KeyGroup(NamedTuple):
    """All keys that begin with the same text up to a delimiter."""

    prefix: str
    keys: int
    size_bytes: int
    """Keys and values."""


class KeyRecord(NamedTuple):
    """One record, without its value."""

    key: str
    seq: int
    size_bytes: int
    """The value alone."""
    expires_at_ms: int | None


class KeyTree(NamedTuple):
    """One level of the tree."""

    groups: tuple[KeyGroup, ...]
    records: tuple[KeyRecord, ...]
    more: bool
    """There is more under the prefix than this, or a group was not counted to its end."""


def key_tree(
    reader: StateReader, prefix: str, delimiter: str, limit: int, seconds_left: Callable[[], float], now_ms: int
) -> KeyTree:
    """At most `limit` groups and records; an empty delimiter shows records alone. What has expired is not shown."""
    groups: list[KeyGroup] = []
    records: list[KeyRecord] = []
    position: str | None = prefix
    end = prefix_end(prefix)
    while position is not None:
        row = reader.sizes_from(position, end, now_ms, 1)
        if not row:
            return KeyTree(tuple(groups), tuple(records), False)
        if len(groups) + len(records) >= limit or seconds_left() <= 0:
            break
        key = row[0][0]
        rest = key[len(prefix) :]
        cut = rest.find(delimiter) if delimiter else -1
        if cut < 0:
            records.append(KeyRecord(*row[0]))
            position = key + "\0"
            continue
        group = prefix + rest[: cut + len(delimiter)]
        counted, is_whole = _count(reader, group, seconds_left, now_ms)
        groups.append(counted)
        if not is_whole:
            break
        position = prefix_end(group)
    return KeyTree(tuple(groups), tuple(records), position is not None)


def _count(reader: StateReader, prefix: str, seconds_left: Callable[[], float], now_ms: int) -> tuple[KeyGroup, bool]:
    """The group, and whether it was counted to its end."""
    end, position = prefix_end(prefix), prefix
    keys = size_bytes = 0
    while True:
        counted, counted_bytes, last = reader.sums_from(position, end, now_ms, COUNT_PAGE_RECORDS)
        keys, size_bytes = keys + counted, size_bytes + counted_bytes
        if last is None or counted < COUNT_PAGE_RECORDS:
            return KeyGroup(prefix, keys, size_bytes), True
        if seconds_left() <= 0:
            return KeyGroup(prefix, keys, size_bytes), False
        position = last + "\0"

"""A digest of the records: a sum over all of them, so that an entry changes it by what it writes and deletes.

Nothing has to be read again for it. Each record's share is made from its checksum, which covers key, value, expiry and
numbers, and its sequence number, which no other record has; SQLite can add shares up without reading a value. It finds
accidents, not forgers: one wrong record is missed once in 2**32 times, as its checksum would miss it. Pure functions;
run anywhere.
"""

from __future__ import annotations

from typing import NamedTuple

DIGEST_MASK = 2**64 - 1
UNKNOWN_DIGEST = -1
"""In a file that was written before there was a digest; it is added up when the file is opened."""
UNKNOWN_SIZE = -1
"""The same of the size of the data."""
_LOW_31 = 0x7FFFFFFF
_LOW_32 = 0xFFFFFFFF
_ODD = 625342609
"""Spreads consecutive sequence numbers over 31 bits."""
SHARE = f"(checksum * ((((seq & {_LOW_31}) * {_ODD}) & {_LOW_31}) | 1)) AS share"
"""A column of a SELECT from `kv`, for `SHARE_SUMS`. Every step stays below 2**63, where SQLite's numbers end."""
SHARE_SUMS = f"ifnull(sum(share & {_LOW_32}), 0), ifnull(sum(share >> 32), 0)"
"""Two columns of a SELECT from a SELECT of `SHARE`, for `digest_of_sums`."""


class RangeSums(NamedTuple):
    """The records of a range of keys, added up from what is stored."""

    keys: int
    expiring: int
    digest: int


class Removed(NamedTuple):
    """Records that were deleted together, added up."""

    keys: int
    expiring: int
    digest: int
    data_size_bytes: int


def record_share(seq: int, checksum: int) -> int:
    """What a record adds to the digest."""
    return checksum * (((seq & _LOW_31) * _ODD & _LOW_31) | 1)


def digest_of_sums(low: int, high: int) -> int:
    """The digest of the records that the columns `SHARE_SUMS` were read from."""
    return (low + (high << 32)) & DIGEST_MASK

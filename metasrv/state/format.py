"""The content of the state file: schema, constants and checksums (docs/file-formats.md).

One SQLite file holds the whole replicated state. Scalar values are msgpack behind a CRC, so that a flipped bit is
noticed when it is read. Knows nothing of Raft or of commands. Pure functions; runs anywhere.
"""

from __future__ import annotations

from typing import Any, NamedTuple
from zlib import crc32

from metasrv.model.entries import membership_from_tree, membership_to_tree
from metasrv.model.errors import CodecError
from metasrv.model.types import LogId, Membership, WriteLimits
from metasrv.model.wire import byte_string, pack, string, unpack, unsigned
from metasrv.state.digest import UNKNOWN_DIGEST, UNKNOWN_SIZE, RangeSums

APPLICATION_ID = 0x6D737276
"""`PRAGMA application_id` of every state and snapshot file: the letters `msrv`."""
FORMAT_VERSION = 2
"""`PRAGMA user_version`; raised when the schema changes. `conversion.py` reads what came before."""
INLINE_SIZE_BYTES_MAX = 512
"""A larger value stands in the table `large`. Part of the format: it says where a value is looked for when it goes.

SQLite reads a whole row to compare its key once the row is longer than about 1,000 bytes; a row with such a value and
a usual key is shorter."""

SCHEMA = (
    "CREATE TABLE meta(name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
    # A value that is larger than INLINE_SIZE_BYTES_MAX is NULL here and stands in `large`, under the sequence number of
    # its record. `expire_at` has no type, so that SQLite keeps a text (a number past 2**63) as it is.
    "CREATE TABLE kv(key TEXT PRIMARY KEY COLLATE BINARY, seq INTEGER NOT NULL, expire_ms INTEGER, expire_at,"
    " proposed_at_ms INTEGER NOT NULL, checksum INTEGER NOT NULL, data BLOB) WITHOUT ROWID",
    "CREATE TABLE large(seq INTEGER PRIMARY KEY, data BLOB NOT NULL)",
    "CREATE INDEX expire ON kv(expire_ms, seq) WHERE expire_ms IS NOT NULL",
    "CREATE TABLE nodes(node_id TEXT PRIMARY KEY, node BLOB NOT NULL) WITHOUT ROWID",
    "CREATE TABLE features(name TEXT PRIMARY KEY) WITHOUT ROWID",
    "CREATE TABLE secrets(name TEXT PRIMARY KEY, secret BLOB NOT NULL) WITHOUT ROWID",
)

META_APPLIED = "applied"
META_MEMBERSHIP = "membership"
META_CLUSTER_ID = "cluster_id"
META_REGISTRY = "registry"
"""What nodes, features and secrets add up to; absent until the first entry that changes them."""
META_LIMITS = "limits"
"""What the cluster refuses (`WriteLimits`); absent until a limit is set."""
META_SIZE = "size"
"""What keys and values take together, beside the digest of the records that were added up. Builds that do not know it
change the digest and leave this row alone, so that it no longer counts."""
META_TAIL = "tail"


class Applied(NamedTuple):
    """Every scalar that an entry changes, in one row, so that an entry needs one update for them."""

    log_id: LogId = LogId()
    time_ms: int = 0
    """Highest log time so far."""
    seq: int = 0
    """Last sequence number given out."""
    key_count: int = 0
    expire_count: int = 0
    """Records that carry an expiry."""
    digest: int = 0
    """What the records must add up to (`digest.py`)."""
    data_size_bytes: int = 0
    """Keys in UTF-8 and values, all records together; stored in a row of its own (`META_SIZE`)."""

    @property
    def sums(self) -> RangeSums:
        """What the rows must add up to."""
        return RangeSums(self.key_count, self.expire_count, self.digest)


class SnapshotTail(NamedTuple):
    """The log's entries at the index before last applied and at last applied, each (content, index, term)."""

    previous: tuple[bytes, int, int]
    last: tuple[bytes, int, int]


def seal(value: Any) -> bytes:
    """msgpack of `value` behind its CRC-32."""
    body = pack(value)
    return crc32(body).to_bytes(4, "big") + body


def unseal(data: Any) -> Any:
    """The inverse of `seal`; raises CodecError for anything else."""
    if type(data) is not bytes or len(data) < 5 or int.from_bytes(data[:4], "big") != crc32(data[4:]):
        raise CodecError("the checksum does not match")
    return unpack(data[4:])


def record_checksum(key: str, seq: int, expire_at: int | None, proposed_at_ms: int, data: bytes) -> int:
    """CRC-32 over a whole record."""
    scalars = seq ^ proposed_at_ms ^ ((expire_at or 0) << 7)
    return crc32(data, crc32(key.encode(), (scalars ^ (scalars >> 32)) & 0xFFFFFFFF))


def applied_out(applied: Applied) -> bytes:
    log_id, *scalars, _data_size_bytes = applied
    return seal((*log_id, *scalars))


def applied_in(data: Any) -> Applied:
    """Raises CodecError, TypeError or ValueError."""
    term, index, node_id, time_ms, seq, key_count, expire_count, *digest = map(unsigned, unseal(data))
    (known,) = digest or (UNKNOWN_DIGEST,)
    return Applied(LogId(term, index, node_id), time_ms, seq, key_count, expire_count, known, UNKNOWN_SIZE)


def size_out(applied: Applied) -> bytes:
    return seal((applied.digest, applied.data_size_bytes))


def size_in(data: Any) -> tuple[int, int]:
    """(digest, bytes). Raises CodecError, TypeError or ValueError."""
    digest, size_bytes = map(unsigned, unseal(data))
    return digest, size_bytes


def limits_out(limits: WriteLimits) -> bytes:
    return seal(limits)


def limits_in(data: Any) -> WriteLimits:
    """Raises CodecError, TypeError or ValueError."""
    read_only, since_ms, quota_bytes = unseal(data)
    return WriteLimits(None if read_only is None else string(read_only), unsigned(since_ms), unsigned(quota_bytes))


def membership_out(log_id: LogId, membership: Membership) -> bytes:
    return seal((*log_id, membership_to_tree(membership)))


def membership_in(data: Any) -> tuple[LogId, Membership]:
    """Raises CodecError, TypeError, ValueError or AttributeError."""
    term, index, node_id, tree = unseal(data)
    return LogId(unsigned(term), unsigned(index), unsigned(node_id)), membership_from_tree(tree)


def tail_out(tail: SnapshotTail) -> bytes:
    return seal((tail.previous, tail.last))


def tail_in(data: Any) -> SnapshotTail:
    """Raises CodecError, TypeError or ValueError."""
    previous, last = ((byte_string(content), unsigned(index), unsigned(term)) for content, index, term in unseal(data))
    return SnapshotTail(previous, last)


def prefix_end(prefix: str) -> str | None:
    """The first key after every key that starts with `prefix`; None when there is none.

    Surrogates have no UTF-8 form, so the code point after U+D7FF is U+E000.
    """
    stripped = prefix.rstrip("\U0010ffff")
    if not stripped:
        return None
    last = ord(stripped[-1])
    return stripped[:-1] + ("\ue000" if last == 0xD7FF else chr(last + 1))


def key_size_bytes(key: str) -> int:
    """In UTF-8."""
    return len(key) if key.isascii() else len(key.encode())

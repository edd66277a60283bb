"""When a record expires (docs/contract/grpc.md section d.4). Pure arithmetic; runs anywhere, reads no clock."""

from __future__ import annotations

from metasrv.model.types import I64_MAX, U64_MAX, SeqV

MILLISECONDS_ABOVE = 100_000_000_000
"""An absolute expiry above this is in milliseconds, one at or below it in seconds."""
TIME_MS_MAX = I64_MAX
"""Log times and read times are clamped here, so that clamping an expiry too never changes a comparison."""


def expire_at_of(expire_at: int | None, ttl_ms: int | None, time_ms: int) -> int | None:
    """What is stored as expiry: a time to live wins and counts from the log time, in milliseconds."""
    return expire_at if ttl_ms is None else min(time_ms + ttl_ms, U64_MAX)


def expire_ms_of(expire_at: int) -> int:
    """Milliseconds since the epoch of a stored expiry, clamped to what SQLite can order."""
    if expire_at <= MILLISECONDS_ABOVE:
        return expire_at * 1000
    return expire_at if expire_at < I64_MAX else I64_MAX


def is_expired(expire_at: int | None, now_ms: int) -> bool:
    """Strictly before `now_ms`; a record that expires this very millisecond is alive."""
    return expire_at is not None and expire_ms_of(expire_at) < min(now_ms, TIME_MS_MAX)


def has_expired(record: SeqV, now_ms: int) -> bool:
    """Whether a read at `now_ms` hides the record; the sweep of a later entry deletes it."""
    return record.meta is not None and is_expired(record.meta.expire_at, now_ms)


def unless_expired(record: SeqV | None, now_ms: int) -> SeqV | None:
    """What a read at `now_ms` shows of the record."""
    return None if record is None or has_expired(record, now_ms) else record

"""What one log entry does to the records while its transaction is open (docs/contract/grpc.md sections d.1 to d.4).

Sequence numbers, expiry, counters and watch events are kept here, so that the rules of commands need not care about
them. Nothing is visible outside before the entry commits: only then does the machine take over the new scalars. Runs on
the event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from metasrv.model.limits import ENTRY_REPLIES_SIZE_BYTES_MAX
from metasrv.model.types import KVMeta, LogId, SeqV
from metasrv.state.digest import DIGEST_MASK
from metasrv.state.expiry import expire_at_of, expire_ms_of
from metasrv.state.format import Applied, key_size_bytes, prefix_end
from metasrv.state.registry import Registry
from metasrv.state.store import Store

Change = tuple[str, SeqV | None, SeqV | None]
"""(key, previous, current) of one changed record."""

Range = tuple[str, str | None]
"""(start, end exclusive, None for no end)."""

Follows = Callable[[str, str | None], bool]
"""The start and end of a range -> whether anybody is to be told of a change there."""

SWEPT_KEYS_MAX = 64
"""When more records than this expire at once, they are not named one by one for `emptied`."""


class RefusedCommandError(Exception):
    """A command asks for something impossible; the entry is applied again without it."""


class Scalars(NamedTuple):
    """The effects of an entry up to a point."""

    seq: int
    key_count: int
    expire_count: int
    digest: int
    data_size_bytes: int
    changes: int
    earliest_expire_ms: int | None


class EntryEffects:
    """The open transaction of one entry at log time `time_ms`.

    `follows(start, end)` says whether anybody is to be told of changes in that range of keys; None when nobody is to be
    told of any. `is_held` says that somebody keeps copies of ranges: what the entry touches is collected for them.
    """

    __slots__ = (
        "_reply_size_bytes",
        "changes",
        "data_size_bytes",
        "digest",
        "earliest_expire_ms",
        "emptied",
        "expire_count",
        "follows",
        "key_count",
        "refused",
        "registry",
        "seq",
        "store",
        "time_ms",
        "watched",
    )

    def __init__(
        self,
        store: Store,
        applied: Applied,
        registry: Registry,
        time_ms: int,
        follows: Follows | None,
        is_held: bool,
    ) -> None:
        self.store = store
        self.seq = applied.seq
        self.key_count = applied.key_count
        self.expire_count = applied.expire_count
        self.digest = applied.digest
        self.data_size_bytes = applied.data_size_bytes
        self.registry = registry
        self.time_ms = time_ms
        self.follows = follows
        self.watched = is_held or follows is not None
        """Whether to collect the changes of single records."""
        self.changes: list[Change] = []
        self.emptied: list[Range] = []
        """Ranges in which records were deleted without being read; `restore` leaves them, which does no harm."""
        self.earliest_expire_ms: int | None = None
        """The smallest expiry of the records that this entry writes."""
        self._reply_size_bytes = 0
        self.refused = 0
        """Commands that were not taken because of the cluster's limits."""

    def applied(self, log_id: LogId) -> Applied:
        digest = self.digest & DIGEST_MASK
        return Applied(log_id, self.time_ms, self.seq, self.key_count, self.expire_count, digest, self.data_size_bytes)

    def scalars(self) -> Scalars:
        """What one command may change, for `restore`; the registry is not among it, since only writes are restored."""
        return Scalars(
            self.seq,
            self.key_count,
            self.expire_count,
            self.digest,
            self.data_size_bytes,
            len(self.changes),
            self.earliest_expire_ms,
        )

    def restore(self, scalars: Scalars) -> None:
        """Forget what happened since; the store has to be undone as well."""
        self.seq, self.key_count, self.expire_count, self.digest, self.data_size_bytes, changes, earliest = scalars
        self.earliest_expire_ms = earliest
        del self.changes[changes:]

    def read(self, key: str) -> SeqV | None:
        """The record as the earlier operations of this entry left it."""
        record = self.store.read(key)
        if record is not None:
            self._reply_size_bytes += len(record.data)
            if self._reply_size_bytes > ENTRY_REPLIES_SIZE_BYTES_MAX:
                raise RefusedCommandError(
                    f"the values that one log entry answers with are larger than {ENTRY_REPLIES_SIZE_BYTES_MAX} bytes"
                )
        return record

    def write(
        self, key: str, data: bytes, prev: SeqV | None, expire_at: int | None = None, ttl_ms: int | None = None
    ) -> SeqV | None:
        """Store a record over `prev`, the present one; returns it, or None when it expired before the log time.

        Takes a sequence number in either case.
        """
        self.seq += 1
        expire_at = expire_at_of(expire_at, ttl_ms, self.time_ms)
        had_expiry = prev is not None and prev.meta is not None and prev.meta.expire_at is not None
        if expire_at is not None:
            expire_ms = expire_ms_of(expire_at)
            if expire_ms < self.time_ms:
                if prev is not None:
                    self.remove(key, prev)
                return None
            if self.earliest_expire_ms is None or expire_ms < self.earliest_expire_ms:
                self.earliest_expire_ms = expire_ms
        current = SeqV(self.seq, data, KVMeta(expire_at, self.time_ms))
        self.digest += self.store.put(key, current, prev)
        self.key_count += prev is None
        self.data_size_bytes += len(data) + key_size_bytes(key) if prev is None else len(data) - len(prev.data)
        self.expire_count += (expire_at is not None) - had_expiry
        if self.watched:
            self.changes.append((key, prev, current))
        return current

    def write_many(self, written: Mapping[str, tuple[SeqV, SeqV | None]]) -> None:
        """Store small records without an expiry, numbered already, as (record, the present one) by key."""
        if not written:
            return
        self.digest += self.store.put_many(written)
        for key, (record, prev) in written.items():
            if prev is None:
                self.key_count += 1
                self.data_size_bytes += len(record.data) + key_size_bytes(key)
            else:
                self.data_size_bytes += len(record.data) - len(prev.data)
                self.expire_count -= prev.meta is not None and prev.meta.expire_at is not None
        if self.watched:
            self.changes += [(key, prev, record) for key, (record, prev) in written.items()]

    def place(self, key: str, record: SeqV, prev: SeqV | None) -> None:
        """Store a record over `prev`, the present one, as it is: with its number, and an expiry that may be over."""
        expire_at = None if record.meta is None else record.meta.expire_at
        had_expiry = prev is not None and prev.meta is not None and prev.meta.expire_at is not None
        if expire_at is not None:
            expire_ms = expire_ms_of(expire_at)
            if self.earliest_expire_ms is None or expire_ms < self.earliest_expire_ms:
                self.earliest_expire_ms = expire_ms
        self.seq = max(self.seq, record.seq)
        self.digest += self.store.put(key, record, prev)
        self.key_count += prev is None
        size_bytes = len(record.data)
        self.data_size_bytes += size_bytes + key_size_bytes(key) if prev is None else size_bytes - len(prev.data)
        self.expire_count += (expire_at is not None) - had_expiry
        if self.watched:
            self.changes.append((key, prev, record))

    def remove(self, key: str, prev: SeqV) -> None:
        """Delete a record that exists."""
        self.digest -= self.store.delete(key, prev)
        self.key_count -= 1
        self.data_size_bytes -= key_size_bytes(key) + len(prev.data)
        self.expire_count -= prev.meta is not None and prev.meta.expire_at is not None
        if self.watched:
            self.changes.append((key, prev, None))

    def remove_prefix(self, prefix: str) -> int:
        """Delete every record whose key starts with `prefix`, in key order; returns how many."""
        end = prefix_end(prefix)
        # Reading the records takes three times as long as everything else.
        if self.follows is not None and self.follows(prefix, end):
            records = self.store.scan(prefix, end, None, None, None)
            self.changes += [(key, record, None) for key, record in records]
        removed = self.store.delete_range(prefix, end, self.expire_count > 0)
        if removed.keys:
            self.emptied.append((prefix, end))
        self.key_count -= removed.keys
        self.expire_count -= removed.expiring
        self.digest -= removed.digest
        self.data_size_bytes -= removed.data_size_bytes
        return removed.keys

    def sweep(self) -> None:
        """Delete what expired before the log time, in (expire_ms, seq) order."""
        if self.expire_count == 0:
            return
        if self.follows is not None:
            self.changes += [(key, record, None) for key, record in self.store.expired(self.time_ms)]
        elif self.watched:
            self.emptied += self._to_be_swept()
        removed = self.store.delete_expired(self.time_ms)
        self.key_count -= removed.keys
        self.expire_count -= removed.keys
        self.digest -= removed.digest
        self.data_size_bytes -= removed.data_size_bytes

    def _to_be_swept(self) -> list[Range]:
        """Where records are about to expire; everywhere, when they are many."""
        if not any(expire_ms < self.time_ms for expire_ms, _, _ in self.store.scan_expire(None, 1)):
            return []
        first = self.store.scan_expire(None, SWEPT_KEYS_MAX + 1)
        keys = [key for expire_ms, _, key in first if expire_ms < self.time_ms]
        # The first key after `key` is `key` and a zero character.
        return [("", None)] if len(keys) > SWEPT_KEYS_MAX else [(key, key + "\0") for key in keys]


def follow_all(_start: str, _end: str | None) -> bool:
    """Somebody is to be told of every change."""
    return True

"""Reads of one instant while the state goes on changing: what a change replaced is kept for those who still need it.

A view of its own (`reader.py`) costs a connection and keeps the write-ahead log from beginning anew. Calls that read a
few keys each, and may be open in any number, share this instead: the loop's connection has the present records, and for
each change since the oldest open instant the record before it stands here. Memory is bounded: an instant that would need
more than the limit is lost, and its next read raises ViewLostError. Knows neither SQLite nor who reads. Runs on the
event loop only.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable

from metasrv.model.errors import ViewLostError
from metasrv.model.limits import INSTANTS_SIZE_BYTES_MAX
from metasrv.model.sizes import size_text
from metasrv.model.types import SeqV
from metasrv.state.effects import Change
from metasrv.state.expiry import has_expired

_RECORD_SIZE_BYTES = 400
"""What a kept record takes beside its key and value."""
_FORGOTTEN_AT_ONCE = 1024
"""Kept records that one entry frees: well under a millisecond on the loop."""


class Instant:
    """The records as they were after one entry, until `close`. A context manager."""

    __slots__ = ("_instants", "index", "lost", "on_lost", "size_bytes_before")

    def __init__(self, instants: Instants, index: int, size_bytes_before: int) -> None:
        self._instants = instants
        self.index = index
        """The last entry whose effects it shows."""
        self.size_bytes_before = size_bytes_before
        """What had ever been kept when it was opened."""
        self.lost = ""
        """Why it was given up, in words for a client."""
        self.on_lost: Callable[[], None] = _nothing
        """Called when it is given up."""

    def __enter__(self) -> Instant:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get(self, key: str, now_ms: int) -> SeqV | None:
        """The record at this instant, unless it has expired by `now_ms`; raises ViewLostError once it was given up."""
        if self.lost:
            raise ViewLostError(self.lost)
        return self._instants.read(self.index, key, now_ms)

    def close(self) -> None:
        """Nobody reads it any more; safe to call again."""
        self._instants.closed(self)


class Instants:
    """The open instants of one state, and the earlier records that they need.

    `read_present(key, now_ms)` reads the present state.
    """

    def __init__(self, read_present: Callable[[str, int], SeqV | None]) -> None:
        self._read_present = read_present
        self._open: dict[Instant, None] = {}
        """In the order of opening, which is that of their indexes."""
        self._kept: dict[str, list[tuple[int, SeqV | None]]] = {}
        """By key: (index of the entry that changed it, the record before that entry), ascending."""
        self._order: deque[tuple[int, str]] = deque()
        """(index, key) of every kept record, ascending."""
        self._size_bytes = 0
        """All records that were ever kept, together."""

    def __len__(self) -> int:
        """How many are open."""
        return len(self._open)

    @property
    def kept_count(self) -> int:
        """Earlier records in memory."""
        return len(self._order)

    def open(self, index: int) -> Instant:
        """The instant after the last applied entry, `index`."""
        instant = Instant(self, index, self._size_bytes)
        self._open[instant] = None
        return instant

    def closed(self, instant: Instant) -> None:
        self._open.pop(instant, None)

    def read(self, index: int, key: str, now_ms: int) -> SeqV | None:
        kept = self._kept.get(key)
        if kept is None or kept[-1][0] <= index:
            return self._read_present(key, now_ms)
        record = kept[bisect_right(kept, index, key=_index_of)][1]
        return None if record is None or has_expired(record, now_ms) else record

    def changed(self, index: int, changes: Iterable[Change]) -> None:
        """The entry at `index` took effect; called for each entry, with its changes in order."""
        if self._open:
            self._keep(index, changes)
            self._give_up_oldest()
        if self._order:
            self._forget()

    def lose_all(self, reason: str) -> None:
        """The state was replaced as a whole."""
        for instant in tuple(self._open):
            self._lose(instant, reason)
        self._kept, self._order = {}, deque()

    def _keep(self, index: int, changes: Iterable[Change]) -> None:
        for key, prev, _ in changes:
            kept = self._kept.setdefault(key, [])
            if kept and kept[-1][0] == index:
                continue  # changed twice by this entry: what counts is the record before the entry
            kept.append((index, prev))
            self._order.append((index, key))
            self._size_bytes += _RECORD_SIZE_BYTES + len(key) + (0 if prev is None else len(prev.data))

    def _give_up_oldest(self) -> None:
        while self._open:
            oldest = next(iter(self._open))
            size_bytes = self._size_bytes - oldest.size_bytes_before
            if size_bytes <= INSTANTS_SIZE_BYTES_MAX:
                return
            self._lose(
                oldest,
                f"since this read began records of {size_text(size_bytes)} were replaced; the limit is"
                f" {size_text(INSTANTS_SIZE_BYTES_MAX)}. Read again, with fewer keys or more quickly",
            )

    def _lose(self, instant: Instant, reason: str) -> None:
        instant.lost = reason
        self.closed(instant)
        instant.on_lost()

    def _forget(self) -> None:
        """Drop some of the records that no open instant needs."""
        order, kept = self._order, self._kept
        needed_after = next(iter(self._open)).index if self._open else order[-1][0]
        for _ in range(_FORGOTTEN_AT_ONCE):
            if not order or order[0][0] > needed_after:
                return
            _, key = order.popleft()
            records = kept[key]
            if len(records) == 1:
                del kept[key]
            else:
                del records[0]


def _index_of(kept: tuple[int, SeqV | None]) -> int:
    return kept[0]


def _nothing() -> None:
    """Nobody wants to hear of it."""

"""Watch streams: who is told of which change, in which order, and what a slow reader costs.

docs/contract/grpc.md section d.7 has the rules. The machine publishes the changes of an entry after its commit; every
watcher has its own bounded queue, so a slow one ends alone. A reader that waits may take a change in one call instead of
being woken, because waking a thousand readers is most of what telling them costs. Knows neither gRPC nor SQLite: the
records for an initial flush come through a function. Runs on the event loop only.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import NamedTuple

from metasrv.model.errors import InvalidRequestError, MetasrvError, OverloadedError, RequestError
from metasrv.model.limits import WATCH_QUEUE_EVENTS_MAX, WATCH_QUEUE_SIZE_BYTES_MAX, WATCHERS_MAX
from metasrv.model.types import SeqV
from metasrv.state.watch_index import RangeIndex

FLUSH_PAGE_RECORDS = 256
"""Records of one page of an initial flush: well under a millisecond on the loop."""
BATCH_ITEMS_MAX = 1024
"""Items of one batch."""
HANDED_OVER_AT_ONCE = 256
"""Watchers that are told in one step of the loop: about half a millisecond."""

ReadPage = Callable[[str, str | None, str | None, int], tuple[list[tuple[str, SeqV]], bool]]
"""(start, end exclusive, after this key, page size) -> records in key order, expired ones included; whether they are
the last. A page may be shorter than asked for when its records are large."""

Take = Callable[["WatchItem"], bool]
"""Takes a change at once and returns true, or does nothing and returns false."""


class WatcherOverflow(RequestError):  # noqa: N818 - named for what happened, like the stream's end it is
    """The watcher read too slowly; its stream ends, and the client starts anew."""


class WatchReset(RequestError):  # noqa: N818
    """The state was replaced as a whole, or the node stops; the stream ends and the client starts anew."""


class WatchFilter(IntEnum):
    """WatchRequest.FilterType: a change without a current record is a DELETE, every other an UPDATE."""

    ALL = 0
    UPDATE = 1
    DELETE = 2


class WatchItem(NamedTuple):
    """One message of a stream: a change, an existing record, or the marker after the last existing one."""

    key: str
    prev: SeqV | None
    current: SeqV | None
    is_initialization: bool = False
    marker: bool = False


_MARKER = WatchItem("", None, None, marker=True)


class _Flush:
    """The records of a range as they were at one instant, read page by page while the state goes on changing.

    A record that changes before its page was read is kept as it was (copy on write), so the flush is atomic with the
    registration, and no read transaction stays open while a slow client reads.
    """

    def __init__(self, read_page: ReadPage, start: str, end: str | None) -> None:
        self._read_page = read_page
        self._start = start
        self._end = end
        self._after: str | None = None
        self._kept: dict[str, SeqV | None] = {}
        self._kept_keys: list[str] = []
        self.kept_size_bytes = 0

    def keep(self, key: str, prev: SeqV | None) -> None:
        """Remember the record that the flush must still show for `key`."""
        if key in self._kept or (self._after is not None and key <= self._after):
            return
        self._kept[key] = prev
        insort(self._kept_keys, key)
        self.kept_size_bytes += _size_bytes(key, prev, None)

    @property
    def kept_count(self) -> int:
        return len(self._kept)

    def next_page(self) -> tuple[list[WatchItem], bool]:
        """The next records, and whether they are the last."""
        page, last = self._read_page(self._start, self._end, self._after, FLUSH_PAGE_RECORDS)
        passed = len(self._kept_keys)
        if not last:
            self._after = page[-1][0]
            passed = bisect_right(self._kept_keys, self._after)
        if passed:
            merged: dict[str, SeqV | None] = dict(page)
            for key in self._kept_keys[:passed]:
                prev = merged[key] = self._kept.pop(key)
                self.kept_size_bytes -= _size_bytes(key, prev, None)
            del self._kept_keys[:passed]
            page = [(key, record) for key, record in sorted(merged.items()) if record is not None]
        return [WatchItem(key, None, record, is_initialization=True) for key, record in page], last


class Watcher:
    """One stream; a single task reads it, by `next_batch` or by iteration, until it ends or `close` is called."""

    def __init__(self, hub: WatchHub, key: str, key_end: str | None, kind: WatchFilter, flush: _Flush | None) -> None:
        self.key = key
        self.key_end = key_end
        self._hub = hub
        self._filter = kind
        self._flush = flush
        self._queue: deque[WatchItem] = deque()
        self._queue_size_bytes = 0
        self._error: MetasrvError | None = None
        self._closed = False
        self._wakeup: asyncio.Future[None] | None = None
        self._take_now: Take | None = None
        """How the reader that waits takes a change."""
        self._iterated: deque[WatchItem] = deque()

    async def next_batch(self, take: Take | None = None) -> list[WatchItem]:
        """Wait for at least one item; empty after `close`. Raises WatcherOverflow or WatchReset once it has ended.

        A change that comes alone meanwhile is offered to `take`, in a step of the loop soon after. If that takes it, the
        call goes on waiting.
        """
        while True:
            if self._error is not None:
                raise self._error
            if self._closed:
                return []
            if self._flush is not None:
                # A long flush to a fast reader must not occupy the loop. Yield before the page is read: a reader that is
                # cancelled here has lost nothing.
                await asyncio.sleep(0)
                items = [] if self._flush is None else self._flush_page(self._flush)
                if items:
                    return items
                continue
            if self._queue:
                return self._take()
            self._wakeup, self._take_now = asyncio.get_running_loop().create_future(), take
            try:
                await self._wakeup
            finally:
                self._wakeup = self._take_now = None

    def __aiter__(self) -> Watcher:
        return self

    async def __anext__(self) -> WatchItem:
        if not self._iterated:
            self._iterated.extend(await self.next_batch())
            if not self._iterated:
                raise StopAsyncIteration
        return self._iterated.popleft()

    def close(self) -> None:
        """End the stream and forget the registration; safe to call again."""
        if not self._closed:
            self._closed = True
            self._hub._forget(self)
            self._drop()

    def _flush_page(self, flush: _Flush) -> list[WatchItem]:
        items, last = flush.next_page()
        if last:
            self._flush = None
            items.append(_MARKER)
        return items

    def _take(self) -> list[WatchItem]:
        queue = self._queue
        count = min(len(queue), BATCH_ITEMS_MAX)
        items = [queue.popleft() for _ in range(count)]
        self._queue_size_bytes -= sum(_size_bytes(item.key, item.prev, item.current) for item in items)
        return items

    def _publish(self, item: WatchItem, item_bytes: int) -> None:
        flush = self._flush
        if flush is not None:
            flush.keep(item.key, item.prev)
        if self._filter is WatchFilter.ALL or (self._filter is WatchFilter.DELETE) == (item.current is None):
            self._queue.append(item)
            self._queue_size_bytes += item_bytes
        elif flush is None:
            return
        count, size_bytes = len(self._queue), self._queue_size_bytes
        if flush is not None:
            count, size_bytes = max(count, flush.kept_count), size_bytes + flush.kept_size_bytes
        if count > WATCH_QUEUE_EVENTS_MAX:
            self._end(WatcherOverflow(f"more than {WATCH_QUEUE_EVENTS_MAX} changes wait for this watcher"))
        elif size_bytes > WATCH_QUEUE_SIZE_BYTES_MAX and count > 1:
            self._end(WatcherOverflow(f"more than {WATCH_QUEUE_SIZE_BYTES_MAX} bytes wait for this watcher"))
        elif self._wakeup is not None and not self._wakeup.done():
            if self._take_now is None:
                self._wakeup.set_result(None)
            elif count == 1:
                self._hub._hand_over_soon(self, self._wakeup)

    def _hand_over(self) -> None:
        """Give the reader what came, or wake it."""
        wakeup, take = self._wakeup, self._take_now
        if wakeup is None or wakeup.done() or not self._queue:
            return
        try:
            taken = take is not None and len(self._queue) == 1 and take(self._queue[0])
        except Exception as error:  # the reader's to handle; the other watchers are told nevertheless
            wakeup.set_exception(error)
            return
        if not taken:
            wakeup.set_result(None)
            return
        self._queue.clear()
        self._queue_size_bytes = 0

    def _end(self, error: MetasrvError) -> None:
        self._error = error
        if not self._closed:
            self._closed = True
            self._hub._forget(self)
        self._drop()

    def _drop(self) -> None:
        """Drop what waits: it is useless to a client that must start anew."""
        self._flush = None
        self._queue.clear()
        self._iterated.clear()
        self._queue_size_bytes = 0
        if self._wakeup is not None and not self._wakeup.done():
            self._wakeup.set_result(None)


class WatchHub:
    """All watchers of a node."""

    def __init__(self, read_page: ReadPage) -> None:
        self._read_page = read_page
        self._exact: dict[str, dict[Watcher, None]] = {}
        self._exact_keys: list[str] = []
        """The keys of `_exact`, ascending."""
        self._ranges: RangeIndex[Watcher] = RangeIndex()
        self._watchers: dict[Watcher, None] = {}
        self._handed_over: deque[Watcher] = deque()
        """Watchers for which a change came while their readers waited."""

    @property
    def count(self) -> int:
        """Streams that are open."""
        return len(self._watchers)

    def subscribe(
        self,
        key: str,
        key_end: str | None = None,
        filter: WatchFilter = WatchFilter.ALL,
        initial_flush: bool = False,
    ) -> Watcher:
        """Watch one key, or [key, key_end), from this instant on.

        With `initial_flush` the stream begins with every record as it is now, in key order and whatever the filter,
        then a marker. Raises InvalidRequestError for an empty range, OverloadedError past WATCHERS_MAX.
        """
        if key_end is not None and key >= key_end:
            raise InvalidRequestError("empty range")
        if len(self._watchers) >= WATCHERS_MAX:
            raise OverloadedError(f"this node already serves {WATCHERS_MAX} watch streams, the limit")
        # The first key after `key` is `key` and a zero character.
        flush = _Flush(self._read_page, key, key + "\0" if key_end is None else key_end) if initial_flush else None
        watcher = Watcher(self, key, key_end, WatchFilter(filter), flush)
        self._watchers[watcher] = None
        if key_end is None:
            if key not in self._exact:
                self._exact[key] = {}
                insort(self._exact_keys, key)
            self._exact[key][watcher] = None
        else:
            self._ranges.add(key, key_end, watcher)
        return watcher

    def concerns(self, start: str, end: str | None) -> bool:
        """Whether any watcher would be told of a change to a key in [start, end); None is no end."""
        keys = self._exact_keys
        place = bisect_left(keys, start)
        return (place < len(keys) and (end is None or keys[place] < end)) or self._ranges.overlaps(start, end)

    def publish(self, changes: Iterable[tuple[str, SeqV | None, SeqV | None]]) -> None:
        """Tell every watcher concerned, in order. A change that left a record as it was is not told."""
        for key, prev, current in changes:
            if prev == current:
                continue
            item, item_bytes = WatchItem(key, prev, current), _size_bytes(key, prev, current)
            for watcher in self._ranges.find(key):
                watcher._publish(item, item_bytes)
            exact = self._exact.get(key)
            if exact is not None:
                for watcher in tuple(exact):
                    watcher._publish(item, item_bytes)

    def _hand_over_soon(self, watcher: Watcher, wakeup: asyncio.Future[None]) -> None:
        if not self._handed_over:
            wakeup.get_loop().call_soon(self._hand_over)
        self._handed_over.append(watcher)

    def _hand_over(self) -> None:
        """Tell some of the watchers; the loop turns before the next ones."""
        waiting = self._handed_over
        for _ in range(min(len(waiting), HANDED_OVER_AT_ONCE)):
            waiting.popleft()._hand_over()
        if waiting:
            asyncio.get_running_loop().call_soon(self._hand_over)

    def reset(self, reason: str) -> None:
        """End every stream with WatchReset."""
        for watcher in tuple(self._watchers):
            watcher._end(WatchReset(reason))

    def _forget(self, watcher: Watcher) -> None:
        del self._watchers[watcher]
        if watcher.key_end is not None:
            self._ranges.remove(watcher.key, watcher.key_end, watcher)
            return
        exact = self._exact[watcher.key]
        del exact[watcher]
        if not exact:
            del self._exact[watcher.key]
            del self._exact_keys[bisect_left(self._exact_keys, watcher.key)]


def _size_bytes(key: str, prev: SeqV | None, current: SeqV | None) -> int:
    size_bytes = len(key)
    if prev is not None:
        size_bytes += len(prev.data)
    if current is not None:
        size_bytes += len(current.data)
    return size_bytes

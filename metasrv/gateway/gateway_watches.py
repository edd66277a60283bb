"""The watch streams of a gateway's clients: a watch hub of its own, which the node's one stream of changes feeds.

A watch begins where the node says so in that stream. Existing records, where a client wants them, are those of that very
instant: the node keeps them, and they are fetched page by page while the client takes them (`node_watches.py`).
Runs on the gateway's event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, NamedTuple

from metasrv.gateway.link import Link
from metasrv.gateway.messages import FromGateway, checked, record_in
from metasrv.model.errors import InvalidRequestError, InvariantError, RequestError, UnknownOutcomeError
from metasrv.model.types import SeqV
from metasrv.model.wire import string, unsigned
from metasrv.state.watch import Take, Watcher, WatchFilter, WatchHub, WatchItem

BEGIN_SECONDS_MAX = 10.0
"""The node answers at once, or the link is cut."""
MARKER = WatchItem("", None, None, marker=True)


class _Page(NamedTuple):
    records: list[tuple[str, SeqV]]
    last: bool


class GatewayWatches:
    """See the module."""

    def __init__(self, link: Link, numbers: Iterator[int]) -> None:
        """`numbers` are those of all requests of this gateway."""
        self._link = link
        self._loop = asyncio.get_running_loop()
        self._hub = WatchHub(_no_page)
        self._numbers = numbers
        self._beginning: dict[int, GatewayWatch] = {}
        self._fetching: dict[int, asyncio.Future[_Page]] = {}
        self._told = 0

    @property
    def count(self) -> int:
        """Open watch streams."""
        return self._hub.count

    async def open(self, key: str, key_end: str | None, kind: WatchFilter, initial_flush: bool) -> GatewayWatch:
        """Watch from an instant after the call on. Raises InvalidRequestError, OverloadedError, WatchReset."""
        if key_end is not None and key >= key_end:
            raise InvalidRequestError("empty range")
        number = next(self._numbers)
        watch = GatewayWatch(self, number, key, key_end, kind, existing=initial_flush)
        self._beginning[number] = watch
        self._link.send((FromGateway.WATCH, number, key, key_end, initial_flush))
        try:
            async with asyncio.timeout(BEGIN_SECONDS_MAX):
                await watch.begun
        except TimeoutError:
            watch.close()
            raise UnknownOutcomeError("the node did not begin the watch in time") from None
        except BaseException:
            watch.close()
            raise
        finally:
            self._beginning.pop(number, None)
        return watch

    # ------------------------------------------------------------------------- what the node says

    def changed(self, changes: Any) -> None:
        self._hub.publish(checked(lambda: [_change_in(change) for change in changes]))
        self.tell_count()  # one that fell behind has ended

    def watching(self, number: Any) -> None:
        """The watch begins here: what follows in the stream is its own."""
        watch = self._beginning.get(unsigned(number))
        if watch is None or watch.begun.done():
            self.end_existing(unsigned(number))  # its client has left
            return
        try:
            watch.watcher = self._hub.subscribe(watch.key, watch.key_end, watch.kind)
        except RequestError as error:
            watch.begun.set_exception(error)
            return
        watch.begun.set_result(None)
        self.tell_count()

    def page(self, number: Any, records: Any, last: Any) -> None:
        future = self._fetching.pop(unsigned(number), None)
        if future is not None and not future.done():
            found = [(string(key), record) for key, tree in records if (record := record_in(tree)) is not None]
            future.set_result(_Page(found, bool(last)))

    def failed(self, number: int, error: RequestError) -> None:
        watch = self._beginning.get(number)
        if watch is not None and not watch.begun.done():
            watch.begun.set_exception(error)
        future = self._fetching.pop(number, None)
        if future is not None and not future.done():
            future.set_exception(error)

    def reset(self, reason: Any) -> None:
        """Every watch ends."""
        self._hub.reset(string(reason))
        self.tell_count()

    def lost(self, error: RequestError) -> None:
        """The link has ended; every watch ends, and the next node knows of none."""
        for watch in tuple(self._beginning.values()):
            if not watch.begun.done():
                watch.begun.set_exception(error)
        for future in self._fetching.values():
            if not future.done():
                future.set_exception(error)
        self._hub.reset(str(error))
        self._told = 0

    # ------------------------------------------------------------------------- for each watch

    async def fetch(self, number: int) -> _Page:
        """The next page of existing records."""
        future: asyncio.Future[_Page] = self._loop.create_future()
        self._fetching[number] = future
        self._link.send((FromGateway.WATCH_PAGE, number))
        try:
            return await future
        finally:
            self._fetching.pop(number, None)

    def end_existing(self, number: int) -> None:
        """Nobody wants the existing records of this watch any more."""
        self._link.send((FromGateway.WATCH_END, number))

    def tell_count(self) -> None:
        """Tell the node how many watches there are."""
        if self._hub.count != self._told:
            self._told = self._hub.count
            self._link.send((FromGateway.WATCHERS, self._told))


class GatewayWatch:
    """One stream; implements `grpc_api.context.OpenWatch`."""

    def __init__(
        self,
        watches: GatewayWatches,
        number: int,
        key: str,
        key_end: str | None,
        kind: WatchFilter,
        *,
        existing: bool,
    ) -> None:
        self.key = key
        self.key_end = key_end
        self.kind = kind
        self.watcher: Watcher | None = None
        """What waits for the client; from the moment at which it has begun."""
        self.begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._watches = watches
        self._number = number
        self._existing = existing
        """Whether there are existing records that were not fetched."""
        self._closed = False

    async def next_batch(self, take: Take | None = None) -> list[WatchItem]:
        """As `state.watch.Watcher.next_batch`."""
        if self.watcher is None:
            raise InvariantError("a watch is read before it has begun")
        while self._existing:
            page = await self._watches.fetch(self._number)
            items = [WatchItem(key, None, record, is_initialization=True) for key, record in page.records]
            if page.last:
                self._existing = False
                items.append(MARKER)
            if items:
                return items
        return await self.watcher.next_batch(take)

    def close(self) -> None:
        """End it; safe to call again."""
        if self._closed:
            return
        self._closed = True
        self.begun.cancel()
        if self.watcher is not None:
            self.watcher.close()
        if self._existing:
            self._watches.end_existing(self._number)
        self._watches.tell_count()


def _change_in(tree: Any) -> tuple[str, SeqV | None, SeqV | None]:
    key, prev, current = tree
    return string(key), record_in(prev), record_in(current)


def _no_page(_start: str, _end: str | None, _after: str | None, _limit: int) -> tuple[list[tuple[str, SeqV]], bool]:
    """The hub of a gateway is never asked for existing records."""
    raise InvariantError("a gateway's watch hub has no records")

"""Reads of a gateway on another machine: keys with a barrier in one message, and views that its node pins.

All reads of keys that arrive before a turn's messages leave share one message and one barrier. Every wait has an end.
Runs on the gateway's event loop; `RemoteView` is read in a helper thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

from metasrv.gateway.link import Link
from metasrv.gateway.messages import Confirm, FromGateway, checked, record_in
from metasrv.gateway.view_heads import ViewHead, head_in
from metasrv.model.errors import NotDoneError, OverloadedError, RequestError
from metasrv.model.limits import READ_WAITERS_MAX, REMOTE_READS_PER_BATCH_MAX
from metasrv.model.types import LogId, Membership, Node, SeqV
from metasrv.model.wire import string, unsigned
from metasrv.state.expiry import has_expired

T = TypeVar("T")
Records = list[SeqV | None]

GRACE_SECONDS = 2.0
"""How much longer than the node a gateway waits."""
VIEW_TIMEOUT_MS = 30_000
"""For one page, which a busy node reads in turn with those of others."""


class _Batch(NamedTuple):
    """Reads that have not left."""

    number: int
    timeout_ms: int
    keys: list[tuple[str, ...]]
    """One for each read; in the message already."""


class RemoteReads:
    """See the module. `check` raises NotDoneError while there is no link."""

    def __init__(self, link: Link, numbers: Iterator[int], check: Callable[[], None]) -> None:
        self._link = link
        self._numbers = numbers
        self._check = check
        self._loop = asyncio.get_running_loop()
        self._joinable: dict[Confirm, _Batch] = {}
        self._reads: dict[int, list[asyncio.Future[Records | None]]] = {}
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._waiting = 0

    def leaves(self) -> None:
        """This turn's messages leave now: nothing may join one of them afterwards."""
        self._joinable.clear()

    # ------------------------------------------------------------------------- what is asked

    async def keys(self, keys: tuple[str, ...], confirm: Confirm, timeout_ms: int) -> Records | None:
        """The records of these keys at one instant; None when they are too large for one answer. Raises NotDoneError."""
        self._check()
        batch = self._joinable.get(confirm)
        if (
            batch is None
            or timeout_ms > batch.timeout_ms
            or sum(map(len, batch.keys)) + len(keys) > REMOTE_READS_PER_BATCH_MAX
        ):
            batch = self._joinable[confirm] = _Batch(next(self._numbers), timeout_ms, [])
            self._reads[batch.number] = []
            self._link.send((FromGateway.READ, batch.number, confirm, timeout_ms, batch.keys))
        future: asyncio.Future[Records | None] = self._loop.create_future()
        batch.keys.append(keys)
        waiting = self._reads[batch.number]
        waiting.append(future)
        try:
            return await self._answer(future, timeout_ms)
        finally:
            if all(each.done() for each in waiting):
                self._reads.pop(batch.number, None)

    async def list(
        self, prefix: str, limit: int | None, confirm: Confirm, timeout_ms: int
    ) -> list[tuple[str, SeqV]] | RemoteView:
        """The records of a short list, or a view that shows a long one. Raises NotDoneError."""
        number = next(self._numbers)
        fields = (FromGateway.LIST, number, confirm, timeout_ms, prefix, limit)
        records = await self._ask(number, fields, timeout_ms)
        if records is None:
            return RemoteView(self, self._loop, _at_once(self._loop, number))
        return checked(lambda: _records_in(records))

    def open_view(self, confirm: Confirm, timeout_ms: int) -> RemoteView:
        """A view that the node pins when it gets this; its first read raises what it says against it."""
        return RemoteView(self, self._loop, self._loop.create_task(self.open(confirm, timeout_ms, few=False)))

    async def open(self, confirm: Confirm, timeout_ms: int, *, few: bool) -> int:
        """Have the node pin a view, `few`: for a few keys. Returns its number; raises NotDoneError."""
        number = next(self._numbers)
        await self._ask(number, (FromGateway.VIEW, number, confirm, timeout_ms, few), timeout_ms)
        return number

    async def of_view(self, kind: FromGateway, view: int, *fields: Any) -> Any:
        """What the node answers about a view that it has pinned. Raises NotDoneError, ViewLostError."""
        number = next(self._numbers)
        return await self._ask(number, (kind, number, view, *fields), VIEW_TIMEOUT_MS)

    async def keys_of_view(self, view: int, keys: tuple[str, ...]) -> Records:
        """These keys, from the view's instant."""
        tree = await self.of_view(FromGateway.VIEW_KEYS, view, keys)
        return checked(lambda: [record_in(record) for record in tree])

    def end_view(self, view: int) -> None:
        """Nobody reads it any more."""
        self._link.send((FromGateway.VIEW_END, view))

    # ------------------------------------------------------------------------- what the node says

    def read(self, number: Any, first: Any, answers: Any) -> None:
        """Records of some reads of a batch, from the one at place `first` on."""
        waiting = self._reads.get(unsigned(number), [])
        for future, tree in zip(waiting[unsigned(first) :], answers, strict=False):
            if not future.done():
                future.set_result(None if tree is None else [record_in(record) for record in tree])

    def answered(self, number: Any, answer: Any) -> None:
        """A list, or what was asked of a view."""
        future = self._answers.get(unsigned(number))
        if future is not None and not future.done():
            future.set_result(answer)

    def failed(self, number: int, error: RequestError) -> None:
        """The node refused."""
        future = self._answers.get(number)
        for each in (*self._reads.get(number, ()), *(() if future is None else (future,))):
            if not each.done():
                each.set_exception(error)

    def lost(self, error: RequestError) -> None:
        """The link has ended."""
        self._joinable.clear()
        for number in (*self._reads, *self._answers):
            self.failed(number, error)

    # ------------------------------------------------------------------------- inside

    async def _ask(self, number: int, message: tuple[Any, ...], timeout_ms: int) -> Any:
        self._check()
        future: asyncio.Future[Any] = self._loop.create_future()
        self._answers[number] = future
        self._link.send(message)
        try:
            return await self._answer(future, timeout_ms)
        finally:
            self._answers.pop(number, None)

    async def _answer(self, future: asyncio.Future[T], timeout_ms: int) -> T:
        if self._waiting >= READ_WAITERS_MAX:
            raise OverloadedError(f"{self._waiting} reads of this gateway wait already, the limit")
        self._waiting += 1
        timer = self._loop.call_later(timeout_ms / 1000 + GRACE_SECONDS, _give_up, future, timeout_ms)
        try:
            return await future
        finally:
            timer.cancel()
            self._waiting -= 1


class RemoteView:
    """Implements `grpc_api.context.WholeView`: each read asks the node, and keeps its thread waiting meanwhile."""

    def __init__(self, reads: RemoteReads, loop: asyncio.AbstractEventLoop, opening: asyncio.Future[int]) -> None:
        self._reads = reads
        self._loop = loop
        self._opening = opening
        self._known: ViewHead | None = None
        self._closed = False
        opening.add_done_callback(lambda done: done.cancelled() or done.exception())  # whoever reads raises it

    def get(self, key: str, now_ms: int | None = None) -> SeqV | None:
        """See `WholeView`."""
        [record] = self._wait(self._keys((key,)))
        return None if record is None or (now_ms is not None and has_expired(record, now_ms)) else record

    def get_all(self, keys: list[str], now_ms: int) -> Records:
        """The records of some keys, without those that have expired by `now_ms`."""
        found: Records = self._wait(self._keys(tuple(keys)))
        return [None if record is None or has_expired(record, now_ms) else record for record in found]

    def pages(
        self, start: str = "", end: str | None = None, now_ms: int | None = None, page_records: int = 0
    ) -> Iterator[list[tuple[str, SeqV]]]:
        """See `WholeView`; the node decides how large a page is."""
        del page_records
        while True:
            tree = self._wait(self._of_view(FromGateway.VIEW_PAGE, start, end))
            page = checked(lambda tree=tree: _records_in(tree))  # type: ignore[misc]  # bound now, called now
            if not page:
                return
            start = page[-1][0] + "\0"  # the next key there can be
            yield page if now_ms is None else [item for item in page if not has_expired(item[1], now_ms)]

    def records(self, page_records: int = 0) -> Iterator[tuple[str, SeqV]]:
        """See `WholeView`."""
        for page in self.pages(page_records=page_records):
            yield from page

    def expire_index(self) -> Iterator[tuple[int, int, str]]:
        """See `WholeView`."""
        while rows := self._wait(self._of_view(FromGateway.VIEW_EXPIRY)):
            for expire_ms, seq, key in rows:
                yield unsigned(expire_ms), unsigned(seq), string(key)

    def close(self) -> None:
        """See `WholeView`; called in a helper thread."""
        if not self._closed:
            self._closed = True
            with suppress(RuntimeError):  # the loop has ended, and the link with it
                self._loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        self._opening.cancel()
        if self._opening.done() and not self._opening.cancelled() and self._opening.exception() is None:
            self._reads.end_view(self._opening.result())

    @property
    def _head(self) -> ViewHead:
        if self._known is None:
            self._known = head_in(self._wait(self._of_view(FromGateway.VIEW_HEAD)))
        return self._known

    @property
    def last_applied(self) -> LogId:
        return self._head.last_applied

    @property
    def last_seq(self) -> int:
        return self._head.last_seq

    @property
    def nodes(self) -> Mapping[int, Node]:
        return self._head.nodes

    @property
    def features(self) -> tuple[str, ...]:
        return self._head.features

    @property
    def secrets(self) -> Mapping[str, bytes]:
        return self._head.secrets

    @property
    def membership_log_id(self) -> LogId:
        return self._head.membership_log_id

    @property
    def membership(self) -> Membership:
        return self._head.membership

    @property
    def cluster_id(self) -> str | None:
        return self._head.cluster_id

    async def _keys(self, keys: tuple[str, ...]) -> Records:
        return await self._reads.keys_of_view(await asyncio.shield(self._opening), keys)

    async def _of_view(self, kind: FromGateway, *fields: Any) -> Any:
        return await self._reads.of_view(kind, await asyncio.shield(self._opening), *fields)

    def _wait(self, answer: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(answer, self._loop).result()


def _records_in(tree: Any) -> list[tuple[str, SeqV]]:
    return [(string(key), record) for key, found in tree if (record := record_in(found)) is not None]


def _give_up(future: asyncio.Future[Any], timeout_ms: int) -> None:
    if not future.done():
        future.set_exception(NotDoneError(f"the node did not answer this read within {timeout_ms} ms"))


def _at_once(loop: asyncio.AbstractEventLoop, number: int) -> asyncio.Future[int]:
    future: asyncio.Future[int] = loop.create_future()
    future.set_result(number)
    return future

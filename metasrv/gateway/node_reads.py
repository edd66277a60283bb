"""Reads of a gateway on another machine, answered from the node's memory, and the views that the node pins for it.

All keys that came in one message are read after one barrier, a slice of the loop's time at once. Long lists and exports
read a view page by page, in a helper thread. What a gateway can pin is bounded, and given up when nothing is read of it.
Runs on the node's event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from itertools import islice
from typing import Any

from metasrv.gateway.link import Link
from metasrv.gateway.messages import Confirm, FromNode, Message
from metasrv.gateway.view_heads import head_out
from metasrv.grpc_api.context import OpenInstant
from metasrv.grpc_api.kv import INLINE_RECORDS_MAX, INLINE_SIZE_BYTES_MAX
from metasrv.model.errors import DamagedCopyError, InvalidRequestError, OverloadedError, ViewLostError
from metasrv.model.limits import (
    GATEWAY_INSTANTS_MAX,
    GRPC_READERS_MAX,
    REMOTE_READS_PER_BATCH_MAX,
    REMOTE_VIEW_IDLE_SECONDS_MAX,
)
from metasrv.model.types import U64_MAX, SeqV
from metasrv.node.context import NodeContext
from metasrv.state.reader import READER_PAGE_RECORDS, StateReader

SLICE_SECONDS = 0.001
"""How long reads keep the loop before others have their turn."""
ANSWER_SIZE_BYTES_TARGET = 256 * 1024
"""Records that one answer gathers."""


class _Pinned:
    """A view of the state file, for pages."""

    def __init__(self, view: StateReader, now: float) -> None:
        self.view = view
        self.used_at = now
        self.busy = False
        self.expiry: Iterator[tuple[int, int, str]] | None = None


class _PinnedKeys:
    """An instant, for a few keys."""

    def __init__(self, opened: AbstractContextManager[OpenInstant], now: float) -> None:
        self._opened = opened
        self.instant = opened.__enter__()
        self.used_at = now

    def close(self) -> None:
        self._opened.__exit__(None, None, None)


class NodeReads:
    """The reads of one gateway. `views_left` says how many views the node still has for all such gateways."""

    def __init__(
        self,
        context: NodeContext,
        link: Link,
        pool: ThreadPoolExecutor,
        views_left: Callable[[], int],
        tell: Callable[[], None],
        failed: Callable[[int, Exception], None],
        start: Callable[[int, Coroutine[Any, Any, None]], None],
    ) -> None:
        """`start` runs a request in a task, and answers it with what it raises."""
        self._context = context
        self._link = link
        self._pool = pool
        self._views_left = views_left
        self._tell = tell
        self._failed = failed
        self._start = start
        self._loop = asyncio.get_running_loop()
        self._views: dict[int, _Pinned] = {}
        self._instants: dict[int, _PinnedKeys] = {}

    @property
    def views(self) -> int:
        """How many views are pinned."""
        return len(self._views)

    def close(self) -> None:
        """The gateway is gone."""
        for number in (*self._views, *self._instants):
            self.end(number)

    def end_idle(self) -> None:
        """Give up the views of which nothing was read for long."""
        since = self._loop.time() - REMOTE_VIEW_IDLE_SECONDS_MAX
        idle = [number for number, pinned in self._views.items() if pinned.used_at < since and not pinned.busy]
        idle += [number for number, pinned in self._instants.items() if pinned.used_at < since]
        for number in idle:
            self.end(number)

    def end(self, number: int) -> None:
        """Nobody reads this view any more."""
        pinned = self._views.pop(number, None)
        if pinned is not None:
            self._pool.submit(pinned.view.close)  # behind a read that is under way
        instant = self._instants.pop(number, None)
        if instant is not None:
            instant.close()

    # ------------------------------------------------------------------------- reads from memory

    def read(self, number: int, confirm: Confirm, timeout_ms: int, reads: list[tuple[str, ...]]) -> None:
        """Answer all of the reads; each from one instant."""
        if sum(map(len, reads)) > REMOTE_READS_PER_BATCH_MAX:
            raise ValueError("more keys than one message may ask for")
        self._start(number, self._read(number, confirm, timeout_ms, reads))

    async def _read(self, number: int, confirm: Confirm, timeout_ms: int, reads: list[tuple[str, ...]]) -> None:
        now_ms = await self._confirmed(confirm, timeout_ms)
        self._tell()
        began = self._loop.time()
        answers: list[list[SeqV | None] | None] = []
        first = size_bytes = 0
        for place, keys in enumerate(reads):
            records = self._records(keys, now_ms)
            answers.append(records)
            size_bytes += sum(len(record.data) for record in records or () if record is not None)
            if size_bytes >= ANSWER_SIZE_BYTES_TARGET:
                self._link.send((FromNode.READ, number, first, answers), size_bytes)
                answers, size_bytes, first = [], 0, place + 1
                await self._link.until_taken()
            if self._loop.time() - began >= SLICE_SECONDS:
                await asyncio.sleep(0)
                began = self._loop.time()
        if answers:
            self._link.send((FromNode.READ, number, first, answers), size_bytes)

    def _records(self, keys: tuple[str, ...], now_ms: int) -> list[SeqV | None] | None:
        """None when they are too large for the loop."""
        machine, size_bytes = self._context.machine, 0
        records: list[SeqV | None] = []
        for key in keys:
            record = machine.get(key, now_ms)
            size_bytes += 0 if record is None else len(record.data)
            if size_bytes > INLINE_SIZE_BYTES_MAX and len(keys) > 1:
                return None
            records.append(record)
        return records

    def list_prefix(self, number: int, confirm: Confirm, timeout_ms: int, prefix: str, limit: int | None) -> None:
        """Answer a short list at once; pin a view for a long one."""
        self._start(number, self._list(number, confirm, timeout_ms, prefix, limit))

    async def _list(self, number: int, confirm: Confirm, timeout_ms: int, prefix: str, limit: int | None) -> None:
        now_ms = await self._confirmed(confirm, timeout_ms)
        self._tell()
        most = U64_MAX if limit is None else limit
        records = self._context.machine.list_prefix(prefix, min(most, INLINE_RECORDS_MAX + 1), now_ms)
        size_bytes = sum(len(record.data) for _, record in records)
        if len(records) <= INLINE_RECORDS_MAX and (size_bytes <= INLINE_SIZE_BYTES_MAX or len(records) == 1):
            self._link.send((FromNode.LISTED, number, records), size_bytes)
            return
        self._pin(number)
        self._link.send((FromNode.LISTED, number, None))

    # ------------------------------------------------------------------------- views

    def open(self, number: int, confirm: Confirm, timeout_ms: int, few: bool) -> None:
        """Pin a view, under the number of this request."""
        self._start(number, self._open(number, confirm, timeout_ms, few))

    async def _open(self, number: int, confirm: Confirm, timeout_ms: int, few: bool) -> None:
        await self._confirmed(confirm, timeout_ms)
        self._tell()
        if few:
            self._pin_keys(number)
        else:
            self._pin(number)
        self._link.send((FromNode.ANSWER, number, None))

    def _pin(self, number: int) -> None:
        if self._views_left() <= 0 or len(self._views) >= GRPC_READERS_MAX:
            raise OverloadedError("this node has no place for another large read of a gateway")
        self._check_new(number)
        self._views[number] = _Pinned(self._context.machine.open_reader(), self._loop.time())

    def _pin_keys(self, number: int) -> None:
        if len(self._instants) >= GATEWAY_INSTANTS_MAX:
            raise OverloadedError(f"this gateway already serves {GATEWAY_INSTANTS_MAX} reads of many keys, the limit")
        self._check_new(number)
        self._instants[number] = _PinnedKeys(self._context.machine.open_instant(), self._loop.time())

    def _check_new(self, number: int) -> None:
        if number in self._views or number in self._instants:
            raise InvalidRequestError(f"there is a view {number} already")

    def head(self, number: int, view: int) -> None:
        """What the view says beside its records."""
        self._start(number, self._on_view(number, view, lambda pinned: head_out(pinned.view)))

    def page(self, number: int, view: int, start: str, end: str | None) -> None:
        """The first page of a range."""
        self._start(number, self._on_view(number, view, lambda pinned: next(pinned.view.pages(start, end), [])))

    def expiry(self, number: int, view: int) -> None:
        """The next part of the expiry index."""
        self._start(number, self._on_view(number, view, _more_of_expiry))

    def keys(self, number: int, view: int, keys: tuple[str, ...]) -> None:
        """These keys, from the view's instant."""
        if len(keys) > REMOTE_READS_PER_BATCH_MAX:
            raise ValueError("more keys than one message may ask for")
        instant = self._instants.get(view)
        if instant is None:
            self._start(number, self._on_view(number, view, lambda pinned: [pinned.view.get(key) for key in keys]))
            return
        instant.used_at = self._loop.time()
        self._start(number, self._at_instant(number, instant.instant, keys))

    async def _at_instant(self, number: int, instant: OpenInstant, keys: tuple[str, ...]) -> None:
        self._answer(number, [instant.get(key, 0) for key in keys])

    async def _on_view(self, number: int, view: int, read: Callable[[_Pinned], Any]) -> None:
        pinned = self._views.get(view)
        if pinned is None:
            raise ViewLostError("this view is not open: its node has given it up, or is another one now; read again")
        if pinned.busy:
            raise OverloadedError("this view is being read already")
        pinned.busy = True
        try:
            answer = await self._loop.run_in_executor(self._pool, read, pinned)
        finally:
            pinned.busy = False
            pinned.used_at = self._loop.time()
        self._answer(number, answer)
        await self._link.until_taken()

    def _answer(self, number: int, answer: Message | list[Any]) -> None:
        self._link.send((FromNode.ANSWER, number, answer))

    async def _confirmed(self, confirm: Confirm, timeout_ms: int) -> int:
        """Wait for the barrier; returns the time by which the read hides what has expired."""
        context = self._context
        if not context.copies.serves:
            raise DamagedCopyError
        if confirm is Confirm.NOTHING:
            return context.clock.wall_ms()
        consensus = context.consensus
        await (consensus.read_barrier if confirm is Confirm.ANYWHERE else consensus.read_barrier_local)(timeout_ms)
        return 0


def _more_of_expiry(pinned: _Pinned) -> list[tuple[int, int, str]]:
    if pinned.expiry is None:
        pinned.expiry = pinned.view.expire_index()
    return list(islice(pinned.expiry, READER_PAGE_RECORDS))

"""The watches of one gateway, as the node sees them: one stream of all changes, and the existing records of a range.

The stream exists while the gateway has watchers. A gateway's watch begins at a mark in that stream: a change of a key
that no client can name. Where existing records are wanted, the node's own watch hub keeps them as they are at that mark
until the gateway has fetched them, page by page. Runs on the node's event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import count
from typing import Any

from metasrv.gateway.link import Link
from metasrv.gateway.messages import FromNode, Message
from metasrv.model.errors import RequestError
from metasrv.model.limits import KEY_SIZE_BYTES_MAX
from metasrv.model.types import SeqV
from metasrv.state.watch import Watcher, WatchFilter, WatchHub, WatchItem

MARK_KEY = chr(0x10FFFF) * (KEY_SIZE_BYTES_MAX // 4 + 1)
"""Above every key that a client can name, and longer than any of them."""
_END = MARK_KEY + "\0"
_marks = count(1)
"""Marks of all gateways: each finds its own in its stream."""


class NodeWatches:
    """See the module. `failed` tells the gateway of an error, by the number of a watch."""

    def __init__(self, hub: Callable[[], WatchHub], link: Link, failed: Callable[[int, Exception], None]) -> None:
        self._hub = hub
        self._link = link
        self._failed = failed
        self._stream: Watcher | None = None
        self._follows: asyncio.Task[None] | None = None
        self._begun: dict[int, int] = {}
        """The gateway's numbers of watches that have not begun, by their marks."""
        self._existing: dict[int, Watcher] = {}
        """What keeps the existing records that a gateway has not fetched, by its number."""
        self._fetching: dict[int, asyncio.Task[None]] = {}

    def begin(self, number: int, key: str, key_end: str | None, existing: bool) -> None:
        """Tell the gateway where its watch begins in the stream of changes."""
        hub = self._hub()
        try:
            if self._stream is None:
                self._stream = hub.subscribe("", _END)
                self._follows = asyncio.create_task(self._follow(self._stream), name="gateway-changes")
            if existing:
                # Changes come through the stream; this watcher is there for the records alone, so it queues few of them.
                self._existing[number] = hub.subscribe(key, key_end, WatchFilter.DELETE, initial_flush=True)
        except RequestError as error:
            self._failed(number, error)
            return
        mark = next(_marks)
        self._begun[mark] = number
        hub.publish(((MARK_KEY, None, SeqV(mark, b"")),))

    def fetch(self, number: int) -> None:
        """Send the next page of existing records."""
        if number in self._fetching:
            return  # it is on its way; a gateway asks once
        self._fetching[number] = task = asyncio.create_task(self._fetch(number))
        task.add_done_callback(lambda _done: self._fetching.pop(number, None))

    def forget(self, number: int) -> None:
        """The gateway wants no more existing records of this watch."""
        watcher = self._existing.pop(number, None)
        if watcher is not None:
            watcher.close()

    def watchers(self, watchers: int) -> None:
        """The gateway has so many; without any, the node need not keep what changes replace."""
        if watchers == 0 and not self._begun and not self._existing:
            self._end_stream()

    def close(self) -> None:
        """The gateway is gone."""
        self._end_stream()
        for number in tuple(self._existing):
            self.forget(number)
        for task in tuple(self._fetching.values()):
            task.cancel()

    def _end_stream(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        if self._follows is not None:
            self._follows.cancel()
            self._follows = None

    async def _follow(self, stream: Watcher) -> None:
        try:
            while items := await stream.next_batch():
                self._send(items)
                await self._link.until_taken()
        except RequestError as error:  # it fell behind, or the state was replaced
            self._stream = self._follows = None
            begun, self._begun = self._begun, {}
            for number in begun.values():
                self.forget(number)
                self._failed(number, error)
            self._link.send((FromNode.WATCHES_RESET, str(error)))

    def _send(self, items: list[WatchItem]) -> None:
        changes: list[Message] = []
        for item in items:
            if item.key != MARK_KEY:
                changes.append((item.key, item.prev, item.current))
                continue
            number = None if item.current is None else self._begun.pop(item.current.seq, None)
            if number is not None:
                self._send_changes(changes)
                changes = []
                self._link.send((FromNode.WATCHING, number))
        self._send_changes(changes)

    def _send_changes(self, changes: list[Message]) -> None:
        if changes:
            size_bytes = sum(_size_bytes(prev) + _size_bytes(current) for _, prev, current in changes)
            self._link.send((FromNode.CHANGES, changes), size_bytes)

    async def _fetch(self, number: int) -> None:
        watcher = self._existing.get(number)
        if watcher is None:
            return
        try:
            items = await watcher.next_batch()
        except RequestError as error:
            self.forget(number)
            self._failed(number, error)
            return
        last = not items or items[-1].marker
        page = [(item.key, item.current) for item in items if item.is_initialization]
        if last:
            self.forget(number)
        self._link.send((FromNode.WATCH_PAGE, number, page, last), sum(_size_bytes(record) for _, record in page))


def _size_bytes(record: Any) -> int:
    return 0 if record is None else len(record.data)

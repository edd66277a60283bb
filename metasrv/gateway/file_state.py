"""The node's applied state as its gateway sees it: the state file, read through connections of its own.

Whoever reads awaits `RemoteConsensus` first, so that the file has what the read must show. The file may be replaced by a
snapshot: the node counts that, and tells the count with every answer. A connection counts as good once the node has told
the same count before and after it was opened, because between the two no file was replaced. Further connections are good
while the file and its write-ahead log are still the same ones on disk. Reads are short: one that is not would keep the
write-ahead log from beginning anew; pinned views are the node's to revoke (`state/views.py`). Knows no message. Runs on
the gateway's event loop.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Awaitable, Callable, Iterable

from metasrv.gateway.messages import Pulse, Registry
from metasrv.gateway.told_state import ToldState
from metasrv.model.errors import DataDamagedError, NotDoneError, OverloadedError, StorageError, ViewLostError
from metasrv.model.limits import GATEWAY_INSTANTS_MAX
from metasrv.model.types import SeqV
from metasrv.state.expiry import unless_expired
from metasrv.state.format import prefix_end
from metasrv.state.reader import StateReader
from metasrv.state.store import Store, connect
from metasrv.state.views import Revocable, Views

CACHE_SIZE_KIB = 16 * 1024
OPEN_AGAIN_SECONDS = 0.02
OPEN_ATTEMPTS_MAX = 50
REPLACED_TEXT = "the state was replaced by a snapshot from the leader; read again"

Files = tuple[tuple[int, int], ...]
"""Device and inode of the state file and of its write-ahead log."""


class FileState(ToldState):
    """Implements `grpc_api.context.LocalState`.

    `current_file` has the node write what it has applied, and tells the count of its file.
    """

    def __init__(self, path: str, registry: Registry, pulse: Pulse, current_file: Callable[[], Awaitable[int]]) -> None:
        super().__init__(registry, pulse)
        self.path = path
        self.views = GatewayViews()
        self._current_file = current_file
        self._store: Store | None = None
        self._installs = -1
        """The count of the file that `_store` reads."""
        self._files: Files = ()
        self._opening: asyncio.Future[None] | None = None
        self._instants = 0

    # ------------------------------------------------------------------------- the connection

    async def until_read(self, installs: int) -> None:
        """Return once the file that is read is at least the one of this count. Raises NotDoneError."""
        while installs > self._installs:
            if self._opening is None:
                self._opening = asyncio.ensure_future(self._open())
                self._opening.add_done_callback(self._opened)
            await asyncio.shield(self._opening)

    def _opened(self, opening: asyncio.Future[None]) -> None:
        self._opening = None
        if not opening.cancelled():
            opening.exception()  # whoever waits raises it

    async def _open(self) -> None:
        """Open the file that is the state now."""
        problem: Exception | None = None
        for _ in range(OPEN_ATTEMPTS_MAX):
            before = await self._current_file()
            store: Store | None = None
            try:
                store = _open_store(self.path)
                files = _files_of(self.path)
                store.read("")  # the first read opens the write-ahead log
            except (sqlite3.Error, OSError, DataDamagedError, StorageError) as error:
                problem, files = error, ()
            if files and store is not None and await self._current_file() == before and files == _files_of(self.path):
                if self._store is not None:
                    self._store.close()
                self._store, self._installs, self._files = store, before, files
                return
            if store is not None:
                store.close()
            await asyncio.sleep(OPEN_AGAIN_SECONDS)
        raise NotDoneError(f"this gateway cannot open the state: {problem or 'it is being replaced'}")

    # ------------------------------------------------------------------------- reads

    def get(self, key: str, now_ms: int) -> SeqV | None:
        store = self._readable()
        with store.faults():
            return unless_expired(store.read(key), now_ms)

    def get_many(self, keys: Iterable[str], now_ms: int) -> list[SeqV | None]:
        """All from one instant."""
        store = self._readable()
        with store.faults():
            store.execute("BEGIN")
            try:
                return [unless_expired(store.read(key), now_ms) for key in keys]
            finally:
                store.rollback()

    def list_prefix(self, prefix: str, limit: int | None, now_ms: int) -> list[tuple[str, SeqV]]:
        store = self._readable()
        with store.faults():
            store.execute("BEGIN")
            try:
                return store.scan(prefix, prefix_end(prefix), None, limit, now_ms)
            finally:
                store.rollback()

    def open_reader(self) -> StateReader:
        """A view pinned to this instant. Raises ViewLostError when the file is being replaced."""
        return self._open_view(self.views)

    def _open_view(self, views: Views | None) -> StateReader:
        if _files_of(self.path) != self._files:
            raise ViewLostError(REPLACED_TEXT)
        reader = StateReader(self.path, views)
        if _files_of(self.path) != self._files:
            reader.close()
            raise ViewLostError(REPLACED_TEXT)
        return reader

    def open_instant(self) -> PinnedInstant:
        """A view pinned to this instant, for reads on the loop. Raises OverloadedError, ViewLostError."""
        if self._instants >= GATEWAY_INSTANTS_MAX:
            raise OverloadedError(f"this gateway already serves {GATEWAY_INSTANTS_MAX} reads of many keys, the limit")
        instant = PinnedInstant(self._open_view(None), self.views, self._instant_closed)
        self._instants += 1
        return instant

    def close(self) -> None:
        """End the connection; reads raise from now on."""
        if self._store is not None:
            self._store.close()

    def _instant_closed(self) -> None:
        self._instants -= 1

    def _readable(self) -> Store:
        if self._store is None:
            raise NotDoneError("this gateway has not opened the state yet")
        return self._store


class GatewayViews(Views):
    """The views that a gateway has pinned; `changed` is told how many there are."""

    def __init__(self) -> None:
        super().__init__()
        self.changed: Callable[[int], None] = lambda _count: None
        self._loop = asyncio.get_running_loop()
        self._told = 0

    def opened(self, view: Revocable) -> None:
        super().opened(view)
        self._tell()

    def closed(self, view: Revocable) -> None:
        super().closed(view)
        self._loop.call_soon_threadsafe(self._tell)  # helper threads close views

    def _tell(self) -> None:
        if len(self) != self._told:
            self._told = len(self)
            self.changed(self._told)


class PinnedInstant:
    """Implements `grpc_api.context.OpenInstant` with a view of the state file. A context manager."""

    def __init__(self, reader: StateReader, views: Views, closed: Callable[[], None]) -> None:
        self._reader = reader
        self._views = views
        self._closed = closed
        self.lost = ""
        self.on_lost: Callable[[], None] = lambda: None
        views.opened(self)

    def get(self, key: str, now_ms: int) -> SeqV | None:
        return self._reader.get(key, now_ms)

    def revoke(self, reason: str) -> None:
        """See `state.views.Revocable`."""
        self.lost = reason
        self._reader.revoke(reason)
        self.on_lost()

    def __enter__(self) -> PinnedInstant:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()
        self._views.closed(self)
        self._closed()


def _open_store(path: str) -> Store:
    connection = connect(path, cache_size_kib=CACHE_SIZE_KIB)
    connection.execute("PRAGMA query_only = ON")
    return Store(path, connection)


def _files_of(path: str) -> Files:
    try:
        return tuple((status.st_dev, status.st_ino) for status in map(os.stat, (path, f"{path}-wal")))
    except OSError:
        return ()

"""Large reads: a view pinned to one instant, or a snapshot file, read page by page in a helper thread.

Reads that would occupy the event loop for too long run here: long lists, exports, key layouts. A pinned view keeps
SQLite's write-ahead log from beginning anew, so the number of views, the time that a client may take for a page and the
size of that log are bounded; past that size a view is lost (ViewLostError). Methods run on the event loop; only the
reading itself runs in the threads.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Generic, Self, TypeVar

from metasrv.grpc_api.calls import Stream
from metasrv.grpc_api.failures import StatusError
from metasrv.grpc_api.http2.status import StatusCode
from metasrv.model.errors import OverloadedError
from metasrv.model.limits import GRPC_PAGE_SECONDS_MAX, GRPC_READERS_MAX
from metasrv.process.operating_system import show_thread_name
from metasrv.state.machine import StateMachine
from metasrv.state.reader import StateReader
from metasrv.state.snapshot_keys import SnapshotKeys

Result = TypeVar("Result")
Item = TypeVar("Item")
View = TypeVar("View", StateReader, SnapshotKeys)

THREADS = 2
REST_PER_WORK = 3.0
"""While the state is written, an export rests three times as long as it has worked: it takes a quarter of a core at most.
On a node without writes it runs at full speed."""
REST_SECONDS_MAX = 0.25
WRITES_GO_ON_SECONDS = 0.5
"""How long after a write the state counts as being written: two writes are further apart than one page takes to read."""


class Readers:
    """The helper threads of one node's gRPC service and the views that are open."""

    def __init__(self, machine: StateMachine) -> None:
        self._machine = machine
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="grpc-reader", initializer=show_thread_name)
        self.open_count = 0

    def open(self) -> PinnedReader[StateReader]:
        """Pin the state of this instant; raises OverloadedError at the limit."""
        self._refuse_at_limit()
        return PinnedReader(self, self._pool, self._machine, self._machine.open_reader())

    def open_snapshot(self, path: str) -> PinnedReader[SnapshotKeys]:
        """The keys of a snapshot file; raises OverloadedError at the limit."""
        self._refuse_at_limit()
        return PinnedReader(self, self._pool, self._machine, SnapshotKeys(path))

    def _refuse_at_limit(self) -> None:
        if self.open_count >= GRPC_READERS_MAX:
            raise OverloadedError(f"this node already serves {GRPC_READERS_MAX} large reads, the limit")

    def close(self) -> None:
        """Wait for reads under way; new ones raise RuntimeError."""
        self._pool.shutdown()


class PinnedReader(Generic[View]):
    """One view, as an async context manager; a single task uses it."""

    def __init__(self, readers: Readers, pool: ThreadPoolExecutor, machine: StateMachine, view: View) -> None:
        self.view: View = view
        self._machine = machine
        self._readers = readers
        self._pool = pool
        self._under_way: Future[object] | None = None
        readers.open_count += 1

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._readers.open_count -= 1
        # A cancelled call may leave a read running in its thread: the view is closed behind it.
        self._pool.submit(_close_after, self.view, self._under_way)

    async def run(self, read: Callable[[], Result]) -> Result:
        """Run `read()` in a helper thread."""
        future = self._pool.submit(read)
        self._under_way = future  # type: ignore[assignment]  # Future is invariant, only its end matters here
        return await asyncio.wrap_future(future)

    async def iterate(self, items: Iterator[Item], *, patient: bool = False) -> AsyncIterator[Item]:
        """Make each next item in a helper thread.

        With `patient`, for calls without a deadline, it rests between items while the state is written.
        """
        loop = asyncio.get_running_loop()
        applied_index, changed_at = self._machine.last_applied.index, float("-inf")
        while True:
            started = loop.time()
            item = await self.run(lambda: next(items, None))
            worked_seconds = loop.time() - started  # on a busy machine longer than the work, hence a longer rest
            if item is None:
                return
            yield item
            if self._machine.last_applied.index != applied_index:
                applied_index, changed_at = self._machine.last_applied.index, loop.time()
            if patient and not self._machine.views.hurry and loop.time() - changed_at < WRITES_GO_ON_SECONDS:
                await asyncio.sleep(min(worked_seconds * REST_PER_WORK, REST_SECONDS_MAX))

    async def deliver(self, stream: Stream, messages: Sequence[bytes]) -> None:
        """Send a page; raises StatusError when the client does not take it in time."""
        try:
            async with asyncio.timeout(GRPC_PAGE_SECONDS_MAX):
                for message in messages:
                    await stream.send(message)
        except TimeoutError as error:
            raise StatusError(
                StatusCode.ABORTED,
                f"the client took none of a page of answers for {GRPC_PAGE_SECONDS_MAX} seconds; read again",
            ) from error


def _close_after(view: StateReader | SnapshotKeys, under_way: Future[object] | None) -> None:
    if under_way is not None:
        wait((under_way,))
    view.close()

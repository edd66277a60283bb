"""Large reads: a view pinned to one instant, or a snapshot file, read page by page in one helper thread.

Reads that would occupy the event loop for too long run here: long lists, exports, key layouts. A pinned view keeps
SQLite's write-ahead log from beginning anew, so the number of views, the time that a client may take for a page and the
size of that log are bounded; past that size a view is lost (ViewLostError). Methods run on the event loop; only the
reading itself runs in the thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from metasrv.grpc_api.batches import Batch
from metasrv.grpc_api.calls import Call, Stream
from metasrv.grpc_api.context import LocalState, WholeView
from metasrv.grpc_api.failures import StatusError
from metasrv.grpc_api.http2.status import StatusCode
from metasrv.grpc_api.shares import Holder, Shares, holder_of
from metasrv.model.limits import GRPC_PAGE_SECONDS_MAX, GRPC_READ_STALLED_SECONDS_MAX, GRPC_READERS_MAX
from metasrv.process.operating_system import show_thread_name
from metasrv.state.snapshot_keys import SnapshotKeys

Result = TypeVar("Result")
Item = TypeVar("Item")
View = TypeVar("View", WholeView, SnapshotKeys)

THREADS = 1
"""SQLite gives the interpreter's lock away for each row, so that two threads take it from each other all the time: four
clients that list 10,000 records each got 11 answers a second of two threads, and 19 of one."""
REST_PER_WORK = 3.0
"""While the state is written, an export rests three times as long as it has worked: it takes a quarter of a core at most.
On a node without writes it runs at full speed."""
REST_SECONDS_MAX = 0.25
WRITES_GO_ON_SECONDS = 0.5
"""How long after a write the state counts as being written: two writes are further apart than one page takes to read."""


class Readers:
    """The helper thread of one node's gRPC service and the views that are open."""

    def __init__(self, machine: LocalState, processes: int = 1) -> None:
        """`processes` share what the node has."""
        self._machine = machine
        self._processes = processes
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="grpc-reader", initializer=show_thread_name)
        self._shares = Shares("large reads")
        self._open: dict[PinnedReader[Any], Holder] = {}
        """The readers that have a place, the oldest first, and whose share it is."""

    @property
    def open_count(self) -> int:
        return len(self._open)

    def open(self, call: Call) -> PinnedReader[WholeView]:
        """Pin the state of this instant; raises OverloadedError at the limit."""
        holder = self._take_place(call)
        return self._opened(holder, call, self._machine.open_reader)

    def open_view(self, view: WholeView, call: Call) -> PinnedReader[WholeView]:
        """Read a view that is pinned already; raises OverloadedError at the limit."""
        return self._opened(self._take_place(call), call, lambda: view)

    def open_snapshot(self, path: str, call: Call) -> PinnedReader[SnapshotKeys]:
        """The keys of a snapshot file; raises OverloadedError at the limit."""
        holder = self._take_place(call)
        return self._opened(holder, call, lambda: SnapshotKeys(path))

    def _take_place(self, call: Call) -> Holder:
        holder, places = holder_of(call), GRPC_READERS_MAX // self._processes
        if self._shares.refusal(holder, places) is not None:
            self._end_a_stalled_one(holder)
        self._shares.take(holder, places)
        return holder

    def _end_a_stalled_one(self, holder: Holder) -> None:
        """Let the read that was taken least of give its place back, one of the same share if there is one."""
        stalled = [reader for reader in self._open if reader.stalled_seconds >= GRPC_READ_STALLED_SECONDS_MAX]
        own = [reader for reader in stalled if self._open[reader] == holder]
        if own or stalled:
            longest = max(own or stalled, key=lambda reader: reader.stalled_seconds)
            longest.displace()
            self.give_back(longest)

    def _opened(self, holder: Holder, call: Call, view: Callable[[], View]) -> PinnedReader[View]:
        try:
            reader = PinnedReader(self, self._pool, self._machine, view(), call)
        except BaseException:
            self._shares.give_back(holder)
            raise
        self._open[reader] = holder
        return reader

    def give_back(self, reader: PinnedReader[Any]) -> None:
        """Free the place of a read that has ended; does nothing for one that gave it back before."""
        holder = self._open.pop(reader, None)
        if holder is not None:
            self._shares.give_back(holder)

    def close(self) -> None:
        """Wait for reads under way; new ones raise RuntimeError."""
        self._pool.shutdown()


class PinnedReader(Generic[View]):
    """One view, as an async context manager; a single task uses it."""

    def __init__(self, readers: Readers, pool: ThreadPoolExecutor, machine: LocalState, view: View, call: Call) -> None:
        self.view: View = view
        self._machine = machine
        self._readers = readers
        self._pool = pool
        self._under_way: Future[object] | None = None
        self._call = call
        self._delivery: asyncio.Timeout | None = None
        """The time that the client has for a page, while one is sent."""
        self._is_displaced = False

    @property
    def stalled_seconds(self) -> float:
        """How long the client has taken nothing of what waits for it."""
        return self._call.stalled_seconds()

    def displace(self) -> None:
        """End this read, whose client takes nothing, for another one."""
        self._is_displaced = True
        if self._delivery is not None:
            self._delivery.reschedule(asyncio.get_running_loop().time())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._readers.give_back(self)
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

    async def deliver(self, stream: Stream, page: Sequence[Batch]) -> None:
        """Send a page; raises StatusError when the client does not take it in time."""
        try:
            async with asyncio.timeout(GRPC_PAGE_SECONDS_MAX) as self._delivery:
                for batch in page:
                    await stream.send_batch(batch)
        except TimeoutError as error:
            if self._is_displaced:
                raise StatusError(
                    StatusCode.RESOURCE_EXHAUSTED,
                    f"the client took nothing for {GRPC_READ_STALLED_SECONDS_MAX} seconds, and another large read needed"
                    " the place; read again",
                ) from error
            raise _too_slow() from error
        finally:
            self._delivery = None


async def deliver_page(stream: Stream, page: Sequence[Batch]) -> None:
    """Send a page that no view stands behind; raises StatusError when the client does not take it in time."""
    try:
        async with asyncio.timeout(GRPC_PAGE_SECONDS_MAX):
            for batch in page:
                await stream.send_batch(batch)
    except TimeoutError as error:
        raise _too_slow() from error


def _too_slow() -> StatusError:
    return StatusError(
        StatusCode.ABORTED,
        f"the client took none of a page of answers for {GRPC_PAGE_SECONDS_MAX} seconds; read again",
    )


def _close_after(view: WholeView | SnapshotKeys, under_way: Future[object] | None) -> None:
    if under_way is not None:
        wait((under_way,))
    view.close()

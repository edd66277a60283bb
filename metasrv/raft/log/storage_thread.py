"""A helper thread for blocking work of the event loop: log writes in one, snapshot copies in another.

Work is done in order of submission; results come back on the loop. Knows nothing of what it runs. `InlineStorage` is
its twin for deterministic simulation: the same interface, no thread, results through the caller's scheduler.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from time import perf_counter
from typing import Any, NamedTuple, Protocol, TypeVar, TypeVarTuple

from metasrv.model.errors import InvariantError
from metasrv.process.operating_system import show_thread_name

logger = logging.getLogger(__name__)

IDLE_SECONDS = 0.02
"""Without a job, until a thread does what `when_idle` says, and between two times of it."""

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")


class Storage(Protocol):
    """Runs functions elsewhere, one after the other."""

    def submit(
        self,
        function: Callable[[*Arguments], Result],
        *args: *Arguments,
        on_done: Callable[[Result | None, BaseException | None], None],
    ) -> None:
        """Run `function(*args)`, then call `on_done(result, None)` or `on_done(None, error)` on the loop."""
        ...

    async def run(self, function: Callable[[*Arguments], Result], *args: *Arguments) -> Result:
        """As `submit`, but awaited; raises what the function raised."""
        ...

    async def stop(self) -> None:
        """Finish what was submitted, then end; nothing may be submitted afterwards."""
        ...


class _Job(NamedTuple):
    function: Callable[..., Any]
    args: tuple[Any, ...]
    on_done: Callable[[Any, BaseException | None], None]


class StorageThread:
    """One daemon thread."""

    def __init__(
        self,
        name: str,
        *,
        after_each: Callable[[], None] | None = None,
        when_idle: Callable[[], bool] | None = None,
        handed_over: Callable[[float], None] | None = None,
    ) -> None:
        """Start it; to be called on the loop. `after_each` runs in the thread once a result was handed over.

        `when_idle` runs there when no job has come for IDLE_SECONDS after one, and again while it returns True.
        `handed_over` hears on the loop how many seconds `on_done` took.
        """
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[_Job | None] = SimpleQueue()
        self._after_each = after_each
        self._when_idle = when_idle
        self._handed_over = handed_over
        self._ended = self._loop.create_future()
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def submit(
        self,
        function: Callable[[*Arguments], Result],
        *args: *Arguments,
        on_done: Callable[[Result | None, BaseException | None], None],
    ) -> None:
        if self._stopping:
            raise InvariantError(f"work was given to the {self._thread.name} thread after its end")
        self._queue.put(_Job(function, args, on_done))

    async def run(self, function: Callable[[*Arguments], Result], *args: *Arguments) -> Result:
        future: asyncio.Future[Result] = self._loop.create_future()

        def on_done(result: Any, error: BaseException | None) -> None:
            if future.done():
                return  # the caller was cancelled and no longer waits
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)

        self.submit(function, *args, on_done=on_done)
        return await future

    async def stop(self) -> None:
        if not self._stopping:
            self._stopping = True
            self._queue.put(None)
        await asyncio.shield(self._ended)

    # ------------------------------------------------------------------ in the thread

    def _work(self) -> None:
        show_thread_name()
        while (job := self._next_job()) is not None:
            result, error = _execute(job.function, job.args)
            self._post(self._hand_over, job.on_done, result, error)
            del job, result, error  # so that nothing large stays in memory while the thread waits
            if self._after_each is not None:
                _, after_error = _execute(self._after_each, ())
                if after_error is not None:
                    logger.error("background work of thread %s failed", self._thread.name, exc_info=after_error)
        self._post(self._end)

    def _next_job(self) -> _Job | None:
        while self._when_idle is not None:
            try:
                return self._queue.get(timeout=IDLE_SECONDS)
            except Empty:
                more, error = _execute(self._when_idle, ())
                if error is not None:
                    logger.error("background work of thread %s failed", self._thread.name, exc_info=error)
                if not more:
                    break
        return self._queue.get()

    def _hand_over(self, on_done: Callable[..., None], result: Any, error: BaseException | None) -> None:
        """On the loop."""
        if self._handed_over is None:
            on_done(result, error)
            return
        started = perf_counter()
        on_done(result, error)
        self._handed_over(perf_counter() - started)

    def _end(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)

    def _post(self, callback: Callable[..., None], *args: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:  # the loop is closed: the process is ending and nobody waits
            logger.warning("a result of thread %s came after the end of the event loop", self._thread.name)


class InlineStorage:
    """Runs work at once, on the caller's thread; hands results to `schedule`, which decides when they arrive."""

    def __init__(
        self, schedule: Callable[[Callable[[], None]], None], *, after_each: Callable[[], None] | None = None
    ) -> None:
        self._schedule = schedule
        self._after_each = after_each
        self._stopping = False

    def submit(
        self,
        function: Callable[[*Arguments], Result],
        *args: *Arguments,
        on_done: Callable[[Result | None, BaseException | None], None],
    ) -> None:
        if self._stopping:
            raise InvariantError("work was given to the storage after its end")
        result, error = _execute(function, args)
        self._schedule(lambda: on_done(result, error))
        if self._after_each is not None:
            self._after_each()

    async def run(self, function: Callable[[*Arguments], Result], *args: *Arguments) -> Result:
        if self._stopping:
            raise InvariantError("work was given to the storage after its end")
        return function(*args)

    async def stop(self) -> None:
        self._stopping = True


def _execute(function: Callable[..., Any], args: tuple[Any, ...]) -> tuple[Any, BaseException | None]:
    """Result or error; every error is caught, because whoever waits must hear of it."""
    try:
        return function(*args), None
    except BaseException as error:
        return None, error

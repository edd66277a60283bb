"""The storage threads of a simulated process: jobs are done one after the other, each after some virtual time.

A job runs at the end of its time, so a process that dies before has written nothing, and a paused one does not write.
Faults in `DiskFaults` hit the next jobs: slow, refused, done but reported as failed, or on a full disk.
"""

from __future__ import annotations

import asyncio
import resource
import sqlite3
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar, TypeVarTuple

from metasrv.model.errors import InvariantError, StorageError
from verification.simulation.loop import ProcessKilled, SimulatedLoop

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")


@dataclass(slots=True)
class DiskFaults:
    """What goes wrong with the disk of one machine, from now on."""

    slow_until: float = 0.0
    """Scheduler time until which each job takes `slow_seconds`."""
    slow_seconds: float = 0.0
    errors: deque[str] = field(default_factory=deque)
    """What happens to the next jobs: `refused`, `failed late` or `full`."""
    stalls: dict[str, float] = field(default_factory=dict)
    """By the name of a job's function: scheduler time before which such a job, once begun, does not end."""
    state_full: int = 0
    """How many of the next entries find the disk full when they are applied."""

    def delayed(self, name: str, now: float, seconds: float) -> float:
        """How long a job takes that begins now, and takes `seconds` on a disk that is well."""
        if now < self.slow_until:
            seconds += self.slow_seconds
        return max(seconds, self.stalls.get(name, 0.0) - now)


class SimulatedStorage:
    """Implements `Storage` for one process."""

    def __init__(
        self,
        loop: SimulatedLoop,
        faults: DiskFaults,
        seconds: Callable[[str], float],
        *,
        after_each: Callable[[], None] | None = None,
        executed: Callable[[tuple[Any, ...]], None] | None = None,
    ) -> None:
        """`seconds` says how long a job takes, by the name of its function.

        `executed` is called with the arguments of each job that did its work.
        """
        self._loop = loop
        self._faults = faults
        self._seconds = seconds
        self._after_each = after_each
        self._executed = executed
        self._jobs: deque[tuple[Callable[..., Any], tuple[Any, ...], Callable[[Any, Any], None]]] = deque()
        self._executing = False
        self._stopping = False
        self._stopped: asyncio.Future[None] | None = None

    def submit(
        self,
        function: Callable[[*Arguments], Result],
        *args: *Arguments,
        on_done: Callable[[Result | None, BaseException | None], None],
    ) -> None:
        if self._stopping:
            raise InvariantError("work was given to the storage after its end")
        self._jobs.append((function, args, on_done))
        if len(self._jobs) == 1:
            self._begin()

    async def run(self, function: Callable[[*Arguments], Result], *args: *Arguments) -> Result:
        future: asyncio.Future[Result] = self._loop.create_future()

        def on_done(result: Any, error: BaseException | None) -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)

        self.submit(function, *args, on_done=on_done)
        return await future

    async def stop(self) -> None:
        self._stopping = True
        if self._jobs:
            self._stopped = self._loop.create_future()
            await self._stopped

    def pending_job(self) -> Callable[[], object] | None:
        """The job under way, if any, so that the process can die in the middle of it."""
        if not self._jobs or self._executing:
            return None
        function, args, _ = self._jobs[0]
        return lambda: function(*args)

    def _begin(self) -> None:
        name = getattr(self._jobs[0][0], "__name__", "")
        self._loop.call_later(self._seconds(name), self._finish)

    def _finish(self) -> None:
        function, args, on_done = self._jobs[0]
        self._executing = True
        self._loop.persist_step("before job")
        result, error = self._execute(function, args)
        self._loop.persist_step("after job")
        self._executing = False
        self._jobs.popleft()
        self._loop.call_soon(on_done, result, error)
        if self._after_each is not None:
            self._after_each()
        if self._jobs:
            self._begin()
        elif self._stopped is not None and not self._stopped.done():
            self._stopped.set_result(None)

    def _execute(self, function: Callable[..., Any], args: tuple[Any, ...]) -> tuple[Any, BaseException | None]:
        fault = self._faults.errors.popleft() if self._faults.errors else ""
        if fault == "refused":
            return None, StorageError("simulated: the disk refused the write")
        try:
            result = on_full_disk(self._run, (function, args)) if fault == "full" else self._run(function, args)
        except ProcessKilled:
            raise
        except Exception as error:
            return None, error
        if fault == "failed late":
            return None, sqlite3.OperationalError("simulated: disk I/O error")
        return result, None

    def _run(self, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        result = function(*args)
        if self._executed is not None:
            self._executed(args)
        return result


def on_full_disk(function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """Run a job under a small limit for the size of files: writes come out short, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (FULL_DISK_FILE_SIZE_BYTES, hard))
    try:
        return function(*args)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


FULL_DISK_FILE_SIZE_BYTES = 24 * 1024 + 700
"""Not a multiple of a page, so that a write can come out short."""

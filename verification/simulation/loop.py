"""An asyncio event loop for one simulated process, on virtual time.

Each process has a loop of its own, so that it can be killed (nothing of it ever runs again), paused (everything waits)
and given a clock that runs too fast or too slow. There are no sockets, no threads and no waiting: the scheduler jumps
from event to event. Only the methods that the product uses exist.
"""

from __future__ import annotations

import asyncio
import inspect
import math
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import TYPE_CHECKING, Any

from verification.simulation.scheduler import Scheduler

HELPER_SECONDS = 0.001
"""How long a job of a helper thread takes."""


class ProcessKilled(BaseException):
    """Unwinds the stack of a process that was killed in the middle of its work."""


if TYPE_CHECKING:
    _Base = asyncio.BaseEventLoop
else:
    _Base = asyncio.AbstractEventLoop  # the base only says which methods are not implemented


class _Present:
    """Which process runs now. Not an attribute of the loop's class: changing a class empties the interpreter's caches."""

    __slots__ = ("loop", "told")

    def __init__(self) -> None:
        self.loop: SimulatedLoop | None = None
        self.told: SimulatedLoop | None = None
        """What asyncio was told is the running loop; left alone between events, as telling it costs a system call."""


_PRESENT = _Present()


def running_loop() -> SimulatedLoop | None:
    """The loop of the process that runs now."""
    return _PRESENT.loop


class SimulatedHandle(asyncio.TimerHandle):
    """A callback that waits for its turn. Carries no context variables: nothing simulated uses them."""

    __slots__ = ()

    def __init__(self, callback: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self._callback: Callable[..., Any] | None = callback
        self._args: tuple[Any, ...] = args

    def cancel(self) -> None:
        """The scheduler passes over it when its time comes."""
        self._callback = None
        self._args = ()

    def cancelled(self) -> bool:
        return self._callback is None


class SimulatedLoop(_Base):
    """One process's loop. `rate` is how fast its clock runs: 1.05 gains three seconds a minute."""

    def __init__(self, scheduler: Scheduler, on_error: Callable[[str], None], *, rate: float = 1.0) -> None:
        self._scheduler = scheduler
        self._on_error = on_error
        self._rate = rate
        self._ready: deque[SimulatedHandle] = deque()
        self._turn_due = False
        self.dead = False
        self.paused = False
        self.steps_left: int | None = None
        """Persist steps that are left until the process is killed in the middle of one; None for no limit."""
        self.on_last_step: Callable[[str], None] = lambda _name: None
        """Kills the process; its stack is unwound afterwards."""

    # ------------------------------------------------------------------ life

    def kill(self) -> None:
        """Nothing of this process runs from now on."""
        self.dead = True
        tasks = asyncio.all_tasks(self)
        self._ready.clear()  # nothing else may hold a task that never began
        for task in tasks:
            coroutine = task.get_coro()
            if inspect.iscoroutine(coroutine) and inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED:
                coroutine.close()  # Python warns of one that never began

    def persist_step(self, name: str) -> None:
        """The process does something to its disk: raises ProcessKilled when this was its last step."""
        if self.steps_left is None or self.dead:
            return
        self.steps_left -= 1
        if self.steps_left < 0:
            self.steps_left = None
            self.on_last_step(name)
            raise ProcessKilled

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        """Go on; timers that came due meanwhile run now, in order."""
        if self.paused:
            self.paused = False
            self._arm()

    def enter(self, function: Callable[[], Any]) -> Any:
        """Call a function as this process."""
        present = _PRESENT
        outer, outer_told, outer_loop = present.loop, present.told, events._get_running_loop()
        present.loop = present.told = self
        events._set_running_loop(self)
        try:
            return function()
        finally:
            present.loop, present.told = outer, outer_told
            events._set_running_loop(outer_loop)

    # ------------------------------------------------------------------ asyncio's side

    def time(self) -> float:
        return self._scheduler.now * self._rate

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> SimulatedHandle:
        handle = SimulatedHandle(callback, args)
        if not self.dead:
            self._ready.append(handle)
            if not self._turn_due and not self.paused:
                self._arm()
        return handle

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> SimulatedHandle:
        return self.call_at(self._scheduler.now * self._rate + delay, callback, *args)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> SimulatedHandle:
        timer = SimulatedHandle(callback, args)
        if not self.dead:
            due = when / self._rate
            while due * self._rate < when:
                # A timer that is early by a rounding error would be set again for the same moment, forever.
                due = math.nextafter(due, math.inf)
            self._scheduler.at(due, self._timer_due, timer)
        return timer

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(  # type: ignore[override]
        self, coro: Coroutine[Any, Any, Any], *, name: str | None = None, context: Context | None = None
    ) -> asyncio.Task[Any]:
        return asyncio.Task(coro, loop=self, name=name, context=context)

    def run_in_executor(  # type: ignore[override]
        self, executor: None, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """What a helper thread would do, in one piece after `HELPER_SECONDS`."""
        del executor
        future = self.create_future()

        def run() -> None:
            if future.cancelled():
                return
            try:
                result = func(*args)
            except Exception as error:
                future.set_exception(error)
            else:
                future.set_result(result)

        self.call_later(HELPER_SECONDS, run)
        return future

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return not self.dead

    def is_closed(self) -> bool:
        return self.dead

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if self.dead or isinstance(error, ProcessKilled):
            return
        self._on_error(f"{context.get('message')}: {type(error).__name__}: {error}")

    # ------------------------------------------------------------------ turning

    def _arm(self) -> None:
        self._turn_due = True
        self._scheduler.at(self._scheduler.now, self._turn)

    def _timer_due(self, timer: SimulatedHandle) -> None:
        if self.dead or timer._callback is None:
            return
        self._ready.append(timer)
        if not self.paused:
            self._run_ready()

    def _turn(self) -> None:
        self._turn_due = False
        if self._ready and not self.paused:
            self._run_ready()

    def _run_ready(self) -> None:
        """Run the callbacks that are ready now; those that they add run in the next turn, as in asyncio."""
        present = _PRESENT
        present.loop = self
        if present.told is not self:
            events._set_running_loop(self)
            present.told = self
        try:
            self._run_handles()
        finally:
            present.loop = None
        if self._ready and not self._turn_due and not self.paused:
            self._arm()

    def _run_handles(self) -> None:
        ready = self._ready
        for _ in range(len(ready)):
            if not ready or self.paused:
                return
            handle = ready.popleft()
            callback = handle._callback
            if callback is None:
                continue
            try:
                callback(*handle._args)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:
                self.call_exception_handler({"message": f"Exception in callback {callback!r}", "exception": error})


def forget_running_loop() -> None:
    """Tell asyncio that no simulated process runs any more."""
    _PRESENT.told = None
    events._set_running_loop(None)


class SimulatedClock:
    """The clocks of the process that runs now. One object for all: the engine's module holds a single clock."""

    def __init__(self, scheduler: Scheduler, epoch_ms: int) -> None:
        self._scheduler = scheduler
        self._epoch_ms = epoch_ms
        self.wall_offset_ms: dict[SimulatedLoop, int] = {}
        """How far the wall clocks of some processes are wrong."""

    def monotonic(self) -> float:
        loop = _PRESENT.loop
        return self._scheduler.now if loop is None else self._scheduler.now * loop._rate

    def wall_ms(self) -> int:
        loop = _PRESENT.loop
        if loop is None:
            return self._epoch_ms + int(self._scheduler.now * 1000)
        return self._epoch_ms + int(loop.time() * 1000) + self.wall_offset_ms.get(loop, 0)

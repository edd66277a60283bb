"""Ticks: entries that a leader adds to the log so that records expire at their time, not with the next write.

Every entry with a command deletes what has expired by its time. So a tick is an entry with a command that does nothing
else: an empty transaction, which every release applies in the same way. The leader proposes a tick when something is due
and no write is on its way, and never otherwise. A read waits for one when something has expired by its time and is still
in the state: what a read does not show has been deleted by the log, so no later read on any node shows it again. Runs on
the leader's event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from metasrv.model.codec import encode_command
from metasrv.model.commands import TICK
from metasrv.model.errors import MetasrvError, NotDoneError, OverloadedError
from metasrv.process.clock import Clock
from metasrv.raft.core.driver import Driver
from metasrv.raft.core.log_time import LogTime
from metasrv.state.machine import StateMachine

logger = logging.getLogger(__name__)

TICK_PAUSE_SECONDS = 0.1
"""At least this long between two ticks that no read waits for, when something expires all the time."""
TICK_TIMEOUT_SECONDS = 1.0
_AGAIN_SECONDS = 0.005
_ENCODED = encode_command(TICK)


class ExpiryTicks:
    """At most one tick at a time is on its way."""

    def __init__(
        self,
        *,
        clock: Clock,
        log_time: LogTime,
        machine: StateMachine,
        pending: Callable[[], int],
        driver: Driver,
        leads: Callable[[], bool],
    ) -> None:
        self._clock = clock
        self._log_time = log_time
        self._machine = machine
        self._pending = pending
        self._driver = driver
        self._leads = leads
        self._running: asyncio.Task[MetasrvError | None] | None = None
        self._not_before = 0.0
        self.proposed = 0
        """Ticks proposed so far, for tests and figures."""

    def consider(self) -> None:
        """Propose a tick if this node leads, something is due and no write is on its way; called after each step."""
        if not self._machine.expire_count or self._is_running() or self._pending():
            return
        now = self._clock.monotonic()
        if now >= self._not_before and self._leads() and self._machine.expires_before(self._log_time.now_ms()):
            self._not_before = now + TICK_PAUSE_SECONDS
            self._start()

    async def until_swept(self, time_ms: int) -> None:
        """Return when the applied state holds nothing that has expired by `time_ms`; the caller sets the deadline.

        Raises NotDoneError when this node cannot bring that about, because it no longer leads.
        """
        while self._machine.expires_before(time_ms):
            if not self._is_running():
                self._start()
            running = self._running
            assert running is not None
            error = await asyncio.shield(running)
            if isinstance(error, OverloadedError):
                await asyncio.sleep(_AGAIN_SECONDS)  # the writes that wait will do what the tick would have done
            elif isinstance(error, NotDoneError):
                raise error
            elif error is not None:
                raise NotDoneError(f"what has expired could not be deleted: {error}")

    def _is_running(self) -> bool:
        return self._running is not None and not self._running.done()

    def _start(self) -> None:
        self.proposed += 1
        self._running = asyncio.create_task(self._run(), name="expiry-tick")

    async def _run(self) -> MetasrvError | None:
        """Propose a tick and wait until it is applied; the error that came of it."""
        now = self._clock.monotonic()
        try:
            future = self._driver.submit(TICK, _ENCODED, now, TICK_TIMEOUT_SECONDS)
            self._driver.wake_for_proposal(now)
            await future
        except MetasrvError as error:
            logger.debug("a tick was not applied: %s", error)
            return error
        return None

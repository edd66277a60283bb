"""Drives the consensus core on the event loop: timers, inbox, log thread, and what a step says is to be done.

    message, proposal, finished sync or timer
      └─> step:  log write in flight?  return (its end takes the next step)
                 `Core.step` (step.py), then in this order: answer callers; send what may leave now;
                 write and sync the log in the log thread, send the rest afterwards; look at what else is due

Messages that arrive during a sync wait in the inbox, so the engine is touched only while its log is on disk. Runs on the
event loop without locks. Knows no sockets (`peers/`), no SQLite (`log/`) and no requests (`consensus.py`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from metasrv.model.commands import Command, Reply
from metasrv.model.errors import FatalError, InvariantError, StorageError
from metasrv.model.loop_work import LoopWork
from metasrv.process.clock import Clock
from metasrv.process.loop_steps import StepLaps
from metasrv.raft.core.engine import LEADER
from metasrv.raft.core.inbox import Inbox
from metasrv.raft.core.messages import Message, encode_message
from metasrv.raft.core.settling import settle
from metasrv.raft.core.step import Core, Events, Outgoing, Ready
from metasrv.raft.log.storage_thread import Storage
from metasrv.raft.log.store import LogWriter, PendingWrite
from metasrv.raft.observer import RaftObserver
from metasrv.tracing.times import RequestTimes

logger = logging.getLogger(__name__)

TICK_SECONDS = 0.025


@dataclass(frozen=True, slots=True)
class DriverHandlers:
    """What the driver calls, on the event loop."""

    send: Callable[[int, bytes], object]
    """Put bytes on the wire to a node, or count what cannot be sent."""
    after_step: Callable[[], None]
    """Called at the end of each step in which the engine was free."""
    timer: Callable[[float], None]
    """Called with the monotonic time at each tick of the timer, also while a log write is in flight."""
    role_changed: Callable[[float], None]
    """Called with the monotonic time when this node has begun to lead, or ended."""
    serves: Callable[[], bool]
    """Whether this node, when it leads, does what a leader is asked for: False while its disk stalls."""
    fatal: Callable[[FatalError], None]
    """Called once, with the error that stops consensus for good."""


class Driver:
    """Owns the core's turn."""

    def __init__(
        self,
        *,
        core: Core,
        clock: Clock,
        writer: LogWriter,
        thread: Storage,
        observer: RaftObserver,
        laps: StepLaps,
        handlers: DriverHandlers,
    ) -> None:
        self._core = core
        self._clock = clock
        self._writer = writer
        self._log_thread = thread
        self._observer = observer
        self._laps = laps
        self._handlers = handlers
        self._send = handlers.send
        self.serves = handlers.serves
        self.loop = asyncio.get_running_loop()
        self._inbox = Inbox()
        self._sync_started_at: float | None = None
        self._synced = asyncio.Event()
        self._scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._pace_timer: asyncio.TimerHandle | None = None
        self._tick_due = False
        self._synced_at: float | None = None
        """When the write that the next step has to hear of came to be on the disk."""
        self._stopped = False
        self.fatal: FatalError | None = None

    # ------------------------------------------------------------------ turning

    def start(self) -> None:
        self._on_timer()

    def stop(self) -> None:
        self._stopped = True
        self._core.stop()
        for timer in (self._timer, self._pace_timer):
            if timer is not None:
                timer.cancel()

    def wake(self) -> None:
        """Take a step soon: something arrived."""
        if not self._scheduled and not self._stopped:
            self._scheduled = True
            self.loop.call_soon(self._scheduled_step)

    def wake_for_proposal(self, now: float) -> None:
        """A proposal waits: take a step soon, unless the sync in flight or the pace timer brings one early enough."""
        if self.busy():
            return
        if self._pace_timer is None or self._core.proposals.seconds_to_wait(now) <= 0.0:
            self.wake()

    def greet(self) -> None:
        """A peer can be reached again: a leader sends to it now, not with its next heartbeat."""
        self._core.broadcast_soon()
        self.wake()

    def busy(self) -> bool:
        """A log write is in flight, so the engine must not be touched."""
        return self._sync_started_at is not None

    async def until_synced(self) -> None:
        """Return when the log write in flight is done."""
        if self._sync_started_at is not None:
            await self._synced.wait()

    def sync_started_at(self) -> float | None:
        """Since when the log write in flight has run, in monotonic seconds; None without one."""
        return self._sync_started_at

    def _scheduled_step(self) -> None:
        self._scheduled = False
        self._step()

    def _on_timer(self) -> None:
        if self._stopped:
            return
        self._timer = self.loop.call_later(TICK_SECONDS, self._on_timer)
        now = self._clock.monotonic()
        self._handlers.timer(now)
        core = self._core
        leads = core.engine.role() == LEADER and core.guards.leads_with_quorum(now)
        core.proposals.expire(now, leads and self.serves())
        if core.outcomes.waiting:
            self.answer()
        self._tick_due = True
        self._step()

    def _on_pace(self) -> None:
        self._pace_timer = None
        self._step()

    def _step(self) -> None:
        if self._stopped or self.busy():
            return
        self._laps.begin()
        try:
            self._take_step()
            self._laps.end()
        except FatalError as error:
            self.answer()  # what was applied before
            self.fail(error)
        except Exception as error:
            logger.exception("the consensus step failed")
            self.answer()
            self.fail(InvariantError(f"the consensus step failed: {type(error).__name__}: {error}"))

    def fail(self, error: FatalError) -> None:
        """Stop for good, with one sentence (invariant 9)."""
        if self.fatal is None:
            self.fatal = error
            self.stop()
            logger.critical("this node stops: %s", error)
            self._handlers.fatal(error)

    # ------------------------------------------------------------------ the step

    def _take_step(self) -> None:
        events = Events(self._clock.monotonic(), self._inbox, self._tick_due, self._synced_at)
        self._tick_due, self._synced_at = False, None
        self._carry_out(self._core.step(events))
        self._laps.lap(LoopWork.RAFT_SEND)
        self._handlers.after_step()
        self._laps.lap(LoopWork.RAFT_UPKEEP)

    def _carry_out(self, ready: Ready) -> None:
        if ready.applied or ready.rejected or ready.reads_confirmed:
            settle(ready.applied, ready.rejected, ready.reads_confirmed)
        if ready.role_changed:
            self._handlers.role_changed(self._clock.monotonic())
        if ready.batch_in is not None and self._pace_timer is None:
            self._pace_timer = self.loop.call_later(ready.batch_in, self._on_pace)
        if ready.notice_in is not None:
            self.loop.call_later(ready.notice_in, self.wake)
        if ready.send_now:
            self._flush(ready.send_now)
        if ready.persist is not None:
            self._sync_started_at = self._clock.monotonic()
            self._synced.clear()
            done = partial(self._sync_done, ready.persist, ready.send_after_sync)
            self._log_thread.submit(self._writer.write, ready.persist, on_done=done)
        elif ready.again:
            self.wake()

    def _sync_done(
        self, pending: PendingWrite, held: Sequence[Outgoing], _result: object, error: BaseException | None
    ) -> None:
        started, self._sync_started_at = self._sync_started_at, None
        self._synced.set()
        if self._stopped:
            return
        if error is not None:
            self._observer.storage_failed("log", write=True)
            text = f"the raft log cannot be written: {error}"
            self.fail(error if isinstance(error, FatalError) else StorageError(text))
            return
        self._synced_at = now = self._clock.monotonic()
        if started is not None:
            self._observer.log_synced(now - started, len(pending.entries))
        self._flush(held)
        self._step()

    def _flush(self, messages: Sequence[Outgoing]) -> None:
        encoded: Message | None = None
        for node_id, message in messages:  # entries of megabytes, the same for all, are encoded once
            if type(message) is not type(encoded) or message != encoded:
                encoded, payload = message, encode_message(message)
            self._send(node_id, payload)

    # ------------------------------------------------------------------ what others ask

    def submit(
        self,
        command: Command,
        encoded: bytes,
        now: float,
        timeout_seconds: float,
        times: RequestTimes | None = None,
    ) -> asyncio.Future[Reply]:
        """Queue one proposal, for `wake_for_proposal`. Raises OverloadedError before anything was taken.

        `times` are the stamps of the client's request, which get those of its batch.
        """
        future: asyncio.Future[Reply] = self.loop.create_future()
        self._core.proposals.submit(command, encoded, now, timeout_seconds, future, times)
        return future

    def answer(self) -> None:
        """Answer callers whose proposals or reads were ended outside of a step; to be called by whoever ended them."""
        settle(*self._core.outcomes.take())

    def incoming(self, node_id: int, payload: bytes) -> bool:
        """Queue a raft message; False when the inbox is full."""
        queued = self._inbox.put(node_id, payload)
        if queued:
            self.wake()
        return queued

    def say_at_once(self, node_id: int, message: Message) -> None:
        """Send a message that does not speak of this node's log, although a log write may be in flight."""
        self._flush([(node_id, message)])

    def hold_proposals(self, hold: bool) -> None:
        """Leave new writes waiting, so that a transfer's target can catch up."""
        self._core.hold_proposals(hold)
        if not hold:
            self.wake()

    def hold_applying(self, hold: bool) -> None:
        """Leave committed entries waiting, while the state's write-ahead log begins anew."""
        self._core.engine.applying_held = hold
        if not hold:
            self.wake()

    def append(self, content: bytes) -> tuple[int, int]:
        """Add one entry to this leader's log outside of group commit (membership); the engine must be free."""
        position = self._core.append(content)
        self.wake()
        return position

"""The step: everything that one node's engine does, in the one order that is safe.

    message, proposal, finished sync or timer
      └─> step():  log write in flight?  return (it calls step again when it is done)
                   apply what is committed; hand queued messages to the engine, through the guards
                   log changed?   write and sync it in the log thread; answers leave afterwards (invariant 1)
                   otherwise      tick the engine, put waiting proposals into one entry
                   leader with new entries?  send them now, sync meanwhile; it counts itself only after the sync (D4)
                   otherwise      send what the engine said

Messages that arrive during a sync wait in the inbox, so the engine is touched only while its log is on disk. Runs on the
event loop without locks. Knows no sockets (`peers/`), no SQLite (`log/`) and no requests (`consensus.py`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from metasrv.model.errors import CodecError, FatalError, InvariantError, StorageError
from metasrv.model.loop_work import LoopWork
from metasrv.process.clock import Clock
from metasrv.process.loop_steps import StepLaps
from metasrv.raft.core.append_times import AppendTimes
from metasrv.raft.core.commit_notice import CommitNotice
from metasrv.raft.core.engine import LEADER, Engine
from metasrv.raft.core.guards import Guards
from metasrv.raft.core.inbox import Inbox
from metasrv.raft.core.messages import (
    AppendEntries,
    AppendReply,
    LeaderPing,
    Message,
    SnapshotChunk,
    decode_message,
    encode_message,
)
from metasrv.raft.core.proposals import Proposals
from metasrv.raft.core.reads import ReadIndex
from metasrv.raft.log.storage_thread import Storage
from metasrv.raft.log.store import LogStore, LogWriter, PendingWrite
from metasrv.raft.observer import RaftObserver

logger = logging.getLogger(__name__)

TICK_SECONDS = 0.025
_LEADER_MESSAGES = (AppendEntries, LeaderPing, SnapshotChunk)
_INBOX_SECONDS_MAX = 0.003
"""Time for messages in one step; the rest waits for the next."""


class Driver:
    """Owns the engine's turn. `send(node_id, payload)` puts bytes on the wire, or counts what it cannot send."""

    def __init__(
        self,
        *,
        clock: Clock,
        store: LogStore,
        writer: LogWriter,
        thread: Storage,
        reads: ReadIndex,
        proposals: Proposals,
        observer: RaftObserver,
        send: Callable[[int, bytes], object],
    ) -> None:
        self._clock = clock
        self._store = store
        self._writer = writer
        self._thread = thread
        self._reads = reads
        self._proposals = proposals
        self._observer = observer
        self._laps = StepLaps(observer.step_took)
        self._append_times = AppendTimes(observer.append_acknowledged)
        self._send = send
        self._engine: Engine
        self._guards: Guards
        self.loop = asyncio.get_running_loop()
        self._inbox = Inbox()
        self._outbox: list[tuple[int, Message]] = []
        self._sync_started_at: float | None = None
        self._synced = asyncio.Event()
        self._scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._pace_timer: asyncio.TimerHandle | None = None
        self._commit_notice = CommitNotice(lambda seconds: self.loop.call_later(seconds, self.wake))
        self._was_leader = False
        self._tick_due = True
        self._heard = False
        """Messages were handled since the last tick."""
        self._stopped = False
        self._broadcast_due = False
        self._holding = False
        self.fatal: FatalError | None = None
        self.on_fatal: Callable[[FatalError], None] = lambda _error: None
        self.after_step: Callable[[], None] = lambda: None
        """Called at the end of each step in which the engine was free."""
        self.on_timer: Callable[[float], None] = lambda _now: None
        """Called with the monotonic time at each tick of the timer, also while a log write is in flight."""
        self.on_role: Callable[[float], None] = lambda _now: None
        """Called with the monotonic time when this node has begun to lead, or ended."""
        self.serves: Callable[[], bool] = lambda: True
        """Whether this node, when it leads, does what a leader is asked for: False while its disk stalls."""

    def attach(self, engine: Engine, guards: Guards) -> None:
        """Add the engine and the guards, which call this driver and are therefore made after it."""
        self._engine = engine
        self._guards = guards

    # ------------------------------------------------------------------ turning

    def start(self) -> None:
        self._on_timer()

    def stop(self) -> None:
        self._stopped = True
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
        if self._pace_timer is None or self._proposals.seconds_to_wait(now) <= 0.0:
            self.wake()

    def greet(self) -> None:
        """A peer can be reached again: a leader sends to it now, not with its next heartbeat."""
        self._broadcast_due = True
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
        self.on_timer(now)
        leads = self._engine.role() == LEADER and self._guards.leads_with_quorum(now)
        self._proposals.expire(now, leads and self.serves())
        self._tick_due = True
        self._step()

    def _step(self) -> None:
        if self._stopped or self.busy():
            return
        self._laps.begin()
        try:
            self._take_step()
            self._laps.end()
        except FatalError as error:
            self.fail(error)
        except Exception as error:
            logger.exception("the consensus step failed")
            self.fail(InvariantError(f"the consensus step failed: {type(error).__name__}: {error}"))

    def fail(self, error: FatalError) -> None:
        """Stop for good, with one sentence (invariant 9)."""
        if self.fatal is None:
            self.fatal = error
            self.stop()
            logger.critical("this node stops: %s", error)
            self.on_fatal(error)

    # ------------------------------------------------------------------ the step

    def _take_step(self) -> None:
        engine, laps, now = self._engine, self._laps, self._clock.monotonic()
        if engine.has_to_apply():
            engine.apply_committed()
            laps.lap(LoopWork.RAFT_APPLY)
        self._handle_inbox(now)
        if not self._store.dirty:
            applied = engine.applied_index()
            if self._needs_tick(now):
                self._tick(now)
            elif engine.has_to_apply():
                engine.apply_committed()
            laps.lap(LoopWork.RAFT_APPLY if engine.applied_index() > applied else LoopWork.RAFT_TICK)
            self._note_role()
            if not self._store.dirty:
                self._propose(now)
            self._lead(now)
        if self._store.dirty:
            self._start_sync()
        else:
            self._flush(self._outbox)
            self._outbox = []
            if self._inbox or engine.has_to_apply():
                self.wake()
        laps.lap(LoopWork.RAFT_SEND)
        self.after_step()
        laps.lap(LoopWork.RAFT_UPKEEP)

    def _needs_tick(self, now: float) -> bool:
        """Whether a tick has anything to do: timers, or entries that may be committed by now."""
        if self._tick_due:
            return True
        engine = self._engine
        if engine.role() != LEADER:
            return engine.election_deadline() <= now
        if engine.commit_index() == self._store.last_index:
            self._heard = False
            return False
        return self._heard or engine.membership().majority == 1

    def _tick(self, now: float) -> None:
        """Let the engine commit, apply, campaign or step down, on nothing but what is on this node's disk."""
        self._tick_due = self._heard = False
        self._guards.before_tick(now)
        self._engine.doTick(0)
        self._guards.after_tick()

    def _handle_inbox(self, now: float) -> None:
        """Hand queued messages to the engine."""
        if not self._inbox:
            return
        self._heard = True
        deadline = now + _INBOX_SECONDS_MAX
        while self._inbox and not self._stopped:
            node_id, payload = self._inbox.take()
            try:
                message = decode_message(payload)
            except CodecError as error:
                logger.error("a message from node %d is dropped: %s", node_id, error)
                continue
            if isinstance(message, AppendReply) and message.term == self._engine.term():
                self._append_times.answered(node_id, message, now)
            self._guards.incoming(node_id, message, now)
            if self._clock.monotonic() > deadline:
                break
        self._laps.lap(LoopWork.RAFT_MESSAGES)

    def _note_role(self) -> None:
        leads = self._engine.role() == LEADER
        changed = leads != self._was_leader
        if changed:
            self._append_times.forget()
        if leads and not self._was_leader:
            self._reads.lead()
            self._proposals.lead(self._store, self._engine.applied_index())
        self._was_leader = leads
        if not leads:
            self._reads.fail(self._engine.leader_id())
            self._proposals.not_leader(self._engine.leader_id())
        if changed:
            self.on_role(self._clock.monotonic())

    def _propose(self, now: float) -> None:
        """Put waiting proposals into one entry of this leader's log, if it is time for a batch."""
        engine = self._engine
        if engine.role() != LEADER or self._holding or not self._proposals.waiting():
            return
        if not self._guards.leads_with_quorum(now):
            return
        wait = self._proposals.seconds_to_wait(now)
        if wait > 0.0:
            if self._pace_timer is None:
                self._pace_timer = self.loop.call_later(wait, self._on_pace)
            return
        batch = self._proposals.take_batch()
        if batch is None:
            return
        content, entry, proposals = batch
        index, term = engine.append_as_leader(content)
        self._proposals.entered(index, term, entry, proposals, now)
        self._broadcast_due = True

    def hold_proposals(self, hold: bool) -> None:
        """Leave new writes waiting, so that a transfer's target can catch up."""
        self._holding = hold
        if not hold:
            self.wake()

    def say_at_once(self, node_id: int, message: Message) -> None:
        """Send a message that does not speak of this node's log, although a log write may be in flight."""
        self._flush([(node_id, message)])

    def hold_applying(self, hold: bool) -> None:
        """Leave committed entries waiting, while the state's write-ahead log begins anew."""
        self._engine.applying_held = hold
        if not hold:
            self.wake()

    def _on_pace(self) -> None:
        self._pace_timer = None
        self._step()

    def append(self, content: bytes) -> tuple[int, int]:
        """Add one entry to this leader's log outside of group commit (membership); the engine must be free."""
        position = self._engine.append_as_leader(content)
        self._broadcast_due = True
        self.wake()
        return position

    def _lead(self, now: float) -> None:
        """As a leader, after the tick: confirm reads, send entries, tell followers of commits."""
        engine = self._engine
        if engine.role() != LEADER:
            return
        self._reads.resolve(engine.membership())
        broadcast = self._broadcast_due
        if self._reads.waiting() and (broadcast or self._reads.wants_round()):
            self._reads.start_round()
            self._reads.resolve(engine.membership())
            broadcast = broadcast or bool(self._reads.waiting())
        if self._commit_notice.due(engine.commit_index(), now) or broadcast:
            self._broadcast_due = False
            self._commit_notice.told(engine.commit_index())
            engine.replicate()

    # ------------------------------------------------------------------ disk and wire

    def _start_sync(self) -> None:
        """Write and sync the log; send entries now, and everything that vouches for this node's log afterwards."""
        held = self._outbox
        entries: list[tuple[int, Message]] = []
        if not self._store.dirty_term:
            held = []
            for item in self._outbox:
                (entries if isinstance(item[1], _LEADER_MESSAGES) else held).append(item)
        # An acknowledgement to a leader of an earlier term may name entries that a newer one cut off in this very step.
        term = self._engine.term()
        held = [item for item in held if not isinstance(item[1], AppendReply) or item[1].term == term]
        self._outbox = []
        self._flush(entries)
        pending = self._store.take_pending()
        if pending is None:
            raise InvariantError("the log says it changed but has nothing to write")
        self._sync_started_at = self._clock.monotonic()
        self._synced.clear()

        def done(_result: object, error: BaseException | None) -> None:
            self._sync_done(pending, held, error)

        self._thread.submit(self._writer.write, pending, on_done=done)

    def _sync_done(self, pending: PendingWrite, held: list[tuple[int, Message]], error: BaseException | None) -> None:
        started, self._sync_started_at = self._sync_started_at, None
        self._synced.set()
        if self._stopped:
            return
        if error is not None:
            self._observer.storage_failed("log", write=True)
            text = f"the raft log cannot be written: {error}"
            self.fail(error if isinstance(error, FatalError) else StorageError(text))
            return
        if started is not None:
            now = self._clock.monotonic()
            self._observer.log_synced(now - started, len(pending.entries))
            self._proposals.synced(now)
        self._flush(held)
        self._step()

    def _flush(self, messages: list[tuple[int, Message]]) -> None:
        encoded: Message | None = None
        for node_id, message in messages:  # entries of megabytes, the same for all, are encoded once
            if type(message) is not type(encoded) or message != encoded:
                encoded, payload = message, encode_message(message)
            self._send(node_id, payload)

    def outgoing(self, node_id: int, message: Message) -> None:
        """Queue a message of the engine or a guard; the step sends it as soon as that is safe."""
        message = self._guards.outgoing(message)
        if isinstance(message, AppendEntries):
            self._append_times.sent(node_id, message, self._clock.monotonic())
        self._outbox.append((node_id, message))

    def incoming(self, node_id: int, payload: bytes) -> bool:
        """Queue a raft message; False when the inbox is full."""
        queued = self._inbox.put(node_id, payload)
        if queued:
            self.wake()
        return queued

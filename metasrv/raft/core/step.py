"""The consensus core of one node as one value: `step(events)` takes what happened and returns what is to be done.

    apply what is committed; hand queued messages to the engine, through the guards
    log changed?   it is to be written (`Ready.persist`), and what vouches for it waits for the disk (invariant 1)
    otherwise      tick the engine, put waiting proposals into one entry
    leader with new entries?  send them now, write meanwhile; it counts itself only after the write (D4)

As etcd's `Ready`, with one difference: committed entries are applied within the step, through a handler, because the
engine counts as it applies and what applies takes time. The step after one that wrote must not come before the disk has
answered, so the engine is touched only while its log is on disk.

Knows no event loop, thread, timer, socket or file: `driver.py` has these. The clock bounds how long a step takes, and is
what pysyncobj reads. Between two steps proposals and reads may be added at any time, also during a write; everything
else waits for its end.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from metasrv.model.entries import encode_noop_entry
from metasrv.model.errors import CodecError, InvariantError
from metasrv.model.loop_work import LoopWork
from metasrv.model.types import Membership
from metasrv.process.clock import Clock
from metasrv.process.loop_steps import StepLaps
from metasrv.raft.core.answers import Answers, Applied, Outcomes, ReadsConfirmed, Rejected
from metasrv.raft.core.append_times import AppendTimes
from metasrv.raft.core.commit_notice import CommitNotice
from metasrv.raft.core.engine import LEADER, Engine
from metasrv.raft.core.engine_seams import SnapshotSource
from metasrv.raft.core.guards import ElectionStep, Guards
from metasrv.raft.core.inbox import Inbox
from metasrv.raft.core.log_time import LogTime
from metasrv.raft.core.messages import (
    AppendEntries,
    AppendReply,
    LeaderPing,
    Message,
    SnapshotChunk,
    decode_message,
)
from metasrv.raft.core.proposals import Proposals
from metasrv.raft.core.reads import ReadIndex
from metasrv.raft.log.store import LogStore, PendingWrite

logger = logging.getLogger(__name__)

_NO_ANSWERS = Answers()

_LEADER_MESSAGES = (AppendEntries, LeaderPing, SnapshotChunk)
_INBOX_SECONDS_MAX = 0.003
"""Time for messages in one step; the rest waits for the next."""

Outgoing = tuple[int, Message]
"""The node that a message goes to, and the message."""


@dataclass(slots=True)
class Events:
    """What has happened since the last step."""

    now: float
    """Monotonic seconds."""
    messages: Inbox
    """Raft messages that have arrived, oldest first. The step takes as many as it has time for."""
    tick_due: bool = False
    """The timer of `driver.TICK_SECONDS` has fired, so the engine has to look at its own timers."""
    synced_at: float | None = None
    """When `Ready.persist` of the step before came to be on the disk; None when that wrote nothing."""


@dataclass(slots=True)
class Ready:
    """What is to be done after a step, in the order of the fields."""

    role_changed: bool
    """This node has begun to lead, or ended."""
    applied: Sequence[Applied]
    """Proposals whose entries were committed and applied, with their replies, a record a batch."""
    rejected: Sequence[Rejected]
    """Proposals and reads that this node will not do, each group with its error."""
    reads_confirmed: Sequence[ReadsConfirmed]
    """Reads after whose arrival a majority has confirmed this leader."""
    send_now: Sequence[Outgoing]
    """Messages that may leave at once: all of them without `persist`, otherwise a leader's entries."""
    persist: PendingWrite | None
    """What the log on the disk lacks. The next step has to wait until it is written and synced."""
    send_after_sync: Sequence[Outgoing]
    """Messages that vouch for what `persist` writes; they leave when it is on the disk, before the next step."""
    batch_in: float | None
    """Seconds after which waiting proposals may leave as a batch, so that a step is wanted then."""
    notice_in: float | None
    """Seconds after which the followers have to be told of a commit, so that a step is wanted then."""
    again: bool
    """More can be done at once: messages are left, or committed entries for which there was no time."""


@dataclass(frozen=True, slots=True)
class CoreSettings:
    """Who this node is, and its timeouts in seconds."""

    node_id: int
    incarnation: str
    """The mark of its data directory."""
    heartbeat_seconds: float
    election_timeout_seconds: tuple[float, float]
    """The shortest and the longest."""


@dataclass(frozen=True, slots=True)
class CoreHandlers:
    """What the core calls within a step. None of these may take a step."""

    apply: Callable[[bytes, int, int], None]
    """Apply a committed entry to the state: its content, index and term. It reports to `Core.proposals`."""
    membership_changed: Callable[[Membership], None]
    """Another configuration is in force: the newest one in the log, committed or not."""
    election: Callable[[ElectionStep, int, int], None]
    """A step of an election was taken, with the other node, or this one, and the term."""
    may_stand: Callable[[], bool]
    """Whether this node could serve as a leader."""
    reachable: Callable[[int], bool]
    """Whether there is a connection to the node."""
    snapshots: SnapshotSource
    """Pieces of a snapshot for a peer that needs purged entries."""
    snapshot_chunk: Callable[[int, SnapshotChunk], None]
    """A piece of a snapshot has come from the leader."""
    snapshot_expected: Callable[[int], bool]
    """Whether a snapshot from the leader of this term is on its way."""
    append_acknowledged: Callable[[int, float], None]
    """A peer has acknowledged entries so many seconds after they were sent."""


class Core:
    """One node's consensus. `proposals` and `reads` take what is asked; `outcomes` gathers what becomes of it."""

    def __init__(
        self,
        *,
        settings: CoreSettings,
        clock: Clock,
        store: LogStore,
        membership: Membership,
        applied_index: int,
        log_time: LogTime,
        handlers: CoreHandlers,
        laps: StepLaps,
    ) -> None:
        node_id = settings.node_id
        self._clock = clock
        self._store = store
        self._laps = laps
        self._outbox: list[Outgoing] = []
        self.outcomes = Outcomes()
        """What has become of proposals and reads since the last step; a step takes them into its result."""
        self.proposals = Proposals(node_id, log_time, self.outcomes)
        self.reads = ReadIndex(node_id, self.outcomes)
        self._append_times = AppendTimes(handlers.append_acknowledged)
        self._commit_notice = CommitNotice()
        store.noop_content = encode_noop_entry(node_id)
        self.engine = Engine(
            clock=clock,
            node_id=node_id,
            store=store,
            membership=membership,
            applied_index=applied_index,
            heartbeat_seconds=settings.heartbeat_seconds,
            election_timeout_seconds=settings.election_timeout_seconds,
            send=self._outgoing,
            apply=handlers.apply,
            membership_changed=handlers.membership_changed,
            snapshots=handlers.snapshots,
        )
        store.commit_floor = self.engine.commit_index
        self.guards = Guards(
            node_id=node_id,
            incarnation=settings.incarnation,
            engine=self.engine,
            store=store,
            reads=self.reads,
            send=self._outgoing,
            reachable=handlers.reachable,
            snapshot_chunk=handlers.snapshot_chunk,
            snapshot_expected=handlers.snapshot_expected,
            on_election=handlers.election,
            may_stand=handlers.may_stand,
            election_timeout_min_seconds=settings.election_timeout_seconds[0],
        )
        self._led = False
        """Whether this node led at the end of the last step that looked."""
        self._tick_due = True
        self._heard = False
        """Messages were handled since the last tick."""
        self._broadcast_due = False
        self._holding = False
        self._writing = False
        self._stopped = False

    # ------------------------------------------------------------------ between steps

    def broadcast_soon(self) -> None:
        """A peer can be reached again: a leader sends to it in the next step, not with its next heartbeat."""
        self._broadcast_due = True

    def hold_proposals(self, hold: bool) -> None:
        """Leave new writes waiting, so that a transfer's target can catch up."""
        self._holding = hold

    def append(self, content: bytes) -> tuple[int, int]:
        """Add one entry to this leader's log outside of group commit (membership); no write may be in flight.

        Returns its index and term.
        """
        position = self.engine.append_as_leader(content)
        self._broadcast_due = True
        return position

    def stop(self) -> None:
        """Hand no more messages to the engine, also in a step under way."""
        self._stopped = True

    def _outgoing(self, node_id: int, message: Message) -> None:
        """Take a message of the engine or a guard, also between steps; it leaves as soon as that is safe."""
        message = self.guards.outgoing(message)
        if isinstance(message, AppendEntries):
            self._append_times.sent(node_id, message, self._clock.monotonic())
        self._outbox.append((node_id, message))

    # ------------------------------------------------------------------ the step

    def step(self, events: Events) -> Ready:
        """Do what can be done. Raises FatalError when this node has to stop; answers may wait in `outcomes` then."""
        engine, store, laps, now = self.engine, self._store, self._laps, events.now
        if events.synced_at is not None:
            self._writing = False
            self.proposals.synced(events.synced_at)
        elif self._writing:
            raise InvariantError("a step was taken while a write of the log was in flight")
        if events.tick_due:
            self._tick_due = True
        if engine.has_to_apply():
            engine.apply_committed()
            laps.lap(LoopWork.RAFT_APPLY)
        if events.messages:
            self._handle(events.messages, now)
        role_changed, batch_in = False, None
        if not store.dirty:
            applied = engine.applied_index()
            if self._needs_tick(now):
                self._tick(now)
            elif engine.has_to_apply():
                engine.apply_committed()
            laps.lap(LoopWork.RAFT_APPLY if engine.applied_index() > applied else LoopWork.RAFT_TICK)
            role_changed = self._look_at_role()
            if not store.dirty:
                batch_in = self._propose(now)
            self._lead(now)
        return self._ready(role_changed, batch_in, events.messages)

    def _needs_tick(self, now: float) -> bool:
        """Whether a tick has anything to do: timers, or entries that may be committed by now."""
        if self._tick_due:
            return True
        engine = self.engine
        if engine.role() != LEADER:
            return engine.election_deadline() <= now
        if engine.commit_index() == self._store.last_index:
            self._heard = False
            return False
        return self._heard or engine.membership().majority == 1

    def _tick(self, now: float) -> None:
        """Let the engine commit, apply, campaign or step down, on nothing but what is on this node's disk."""
        self._tick_due = self._heard = False
        self.guards.before_tick(now)
        self.engine.doTick(0)
        self.guards.after_tick()

    def _handle(self, messages: Inbox, now: float) -> None:
        """Hand queued messages to the engine."""
        self._heard = True
        deadline = now + _INBOX_SECONDS_MAX
        while messages and not self._stopped:
            node_id, payload = messages.take()
            try:
                message = decode_message(payload)
            except CodecError as error:
                logger.error("a message from node %d is dropped: %s", node_id, error)
                continue
            if isinstance(message, AppendReply) and message.term == self.engine.term():
                self._append_times.answered(node_id, message, now)
            self.guards.incoming(node_id, message, now)
            if self._clock.monotonic() > deadline:
                break
        self._laps.lap(LoopWork.RAFT_MESSAGES)

    def _look_at_role(self) -> bool:
        """Begin to lead, or end what waits for a leader; returns whether this node has begun to lead, or ended."""
        leads = self.engine.role() == LEADER
        changed = leads != self._led
        if changed:
            self._append_times.forget()
        if leads and changed:
            self.reads.lead()
            self.proposals.lead(self._store, self.engine.applied_index())
        self._led = leads
        if not leads:
            self.reads.fail(self.engine.leader_id())
            self.proposals.not_leader(self.engine.leader_id())
        return changed

    def _propose(self, now: float) -> float | None:
        """Put waiting proposals into one entry of this leader's log, or return the seconds until it is time for that."""
        engine = self.engine
        if engine.role() != LEADER or self._holding or not self.proposals.waiting():
            return None
        if not self.guards.leads_with_quorum(now):
            return None
        wait = self.proposals.seconds_to_wait(now)
        if wait > 0.0:
            return wait
        batch = self.proposals.take_batch()
        if batch is not None:
            content, entry, proposals = batch
            index, term = engine.append_as_leader(content)
            self.proposals.entered(index, term, entry, proposals, now)
            self._broadcast_due = True
        return None

    def _lead(self, now: float) -> None:
        """As a leader, after the tick: confirm reads, send entries, tell followers of commits."""
        engine = self.engine
        if engine.role() != LEADER:
            return
        self.reads.resolve(engine.membership())
        broadcast = self._broadcast_due
        if self.reads.waiting() and (broadcast or self.reads.wants_round()):
            self.reads.start_round()
            self.reads.resolve(engine.membership())
            broadcast = broadcast or bool(self.reads.waiting())
        if self._commit_notice.due(engine.commit_index(), now) or broadcast:
            self._broadcast_due = False
            self._commit_notice.told(engine.commit_index())
            engine.replicate()

    # ------------------------------------------------------------------ the result

    def _ready(self, role_changed: bool, batch_in: float | None, messages: Inbox) -> Ready:
        notice_in, self._commit_notice.step_in = self._commit_notice.step_in, None
        send_now, self._outbox = self._outbox, []
        held: list[Outgoing] = []
        persist: PendingWrite | None = None
        if self._store.dirty:
            send_now, held = self._divide(send_now)
            persist = self._store.take_pending()
            if persist is None:
                raise InvariantError("the log says it changed but has nothing to write")
            self._writing = True
        again = persist is None and (bool(messages) or self.engine.has_to_apply())
        applied, rejected, confirmed = self.outcomes.take() if self.outcomes.waiting else _NO_ANSWERS
        return Ready(role_changed, applied, rejected, confirmed, send_now, persist, held, batch_in, notice_in, again)

    def _divide(self, outbox: list[Outgoing]) -> tuple[list[Outgoing], list[Outgoing]]:
        """What may leave while the log is written: entries; and what vouches for this node's log, term and vote."""
        held, entries = outbox, list[Outgoing]()
        if not self._store.dirty_term:
            held = []
            for item in outbox:
                (entries if isinstance(item[1], _LEADER_MESSAGES) else held).append(item)
        # An acknowledgement to a leader of an earlier term may name entries that a newer one cut off in this very step.
        term = self.engine.term()
        return entries, [item for item in held if not isinstance(item[1], AppendReply) or item[1].term == term]

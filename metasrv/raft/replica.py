"""One node's replica: the parts of `raft/` built and connected, and what happens to committed entries.

Applies entries to the state, puts verified snapshots in place, keeps the log short. `consensus.py` turns requests into
work for it; `core/driver.py` decides when the engine may be touched. Runs on the node's event loop.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from metasrv.model.entries import MembershipEntry, RegularEntry, decode_entry, encode_noop_entry
from metasrv.model.errors import CodecError, DataDamagedError, StoppingError
from metasrv.model.types import Endpoint, LogId, RaftStatus
from metasrv.process.clock import Clock
from metasrv.process.data_directory import DataDirectory
from metasrv.process.event_ring import EventRing
from metasrv.raft.clock_rounds import round_seconds
from metasrv.raft.compaction import Compaction
from metasrv.raft.core.clock_offsets import ClockOffsets
from metasrv.raft.core.driver import Driver
from metasrv.raft.core.engine import LEADER, Engine
from metasrv.raft.core.guards import Guards
from metasrv.raft.core.log_time import LogTime
from metasrv.raft.core.proposals import Proposals
from metasrv.raft.core.reads import AppliedWaiters, ReadIndex
from metasrv.raft.disk_stall import DISK_STALL_MS, DiskStall
from metasrv.raft.expiry_ticks import ExpiryTicks
from metasrv.raft.learners import Learners
from metasrv.raft.log.format import TERM, LogEntry
from metasrv.raft.log.storage_thread import Storage
from metasrv.raft.log.store import LogStore, LogWriter
from metasrv.raft.membership_in_force import membership_in_force
from metasrv.raft.observer import RaftObserver
from metasrv.raft.peer_set import Peers
from metasrv.raft.peers.peer_handler import TransportFactory
from metasrv.raft.peers.transport import LocalIdentity, PeerSecurity, PeerTransport
from metasrv.raft.snapshots import Snapshots
from metasrv.raft.state_commits import StateCommits
from metasrv.raft.state_hashes import StateHashes
from metasrv.raft.state_log import StateLog, StateLogLimits
from metasrv.raft.state_space import StateSpace
from metasrv.raft.status import LeaderHistory, StatusSources, build_status
from metasrv.raft.upkeep import Upkeep
from metasrv.state.machine import StateMachine
from metasrv.state.snapshot import SnapshotInfo

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RaftSettings:
    """What consensus needs of the configuration."""

    endpoint: Endpoint
    heartbeat_ms: int
    election_timeout_min_ms: int
    election_timeout_max_ms: int
    snapshot_logs_since_last: int
    max_applied_log_to_keep: int
    snapshot_chunk_size_bytes: int
    install_snapshot_timeout_ms: int
    clock_offset_max_ms: int = 1_000
    state_log: StateLogLimits = field(default_factory=StateLogLimits)
    disk_stall_ms: int = DISK_STALL_MS
    hints: tuple[Endpoint, ...] = ()
    """Where members may be when they are not where the log has them."""


@dataclass(slots=True)
class ReplicaResources:
    """What a replica works with. `node/opening.py` opens the files, `node/meta_node.py` closes them after the replica."""

    settings: RaftSettings
    directory: DataDirectory
    machine: StateMachine
    store: LogStore
    writer: LogWriter
    log_thread: Storage
    snapshot_thread: Storage
    state_thread: Storage
    security: PeerSecurity
    observer: RaftObserver
    clock: Clock
    make_transport: TransportFactory = PeerTransport
    events: EventRing = field(init=False)
    """What happens here and is worth telling."""

    def __post_init__(self) -> None:
        self.events = EventRing(self.clock)


class Replica:
    """The connected parts of one node."""

    def __init__(self, resources: ReplicaResources, answer: Callable[[str, bytes], Awaitable[bytes]]) -> None:
        self.resources = resources
        self.node_id = resources.directory.identity.node_id
        self.machine = resources.machine
        self.store = resources.store
        self.clock = resources.clock
        self.history = LeaderHistory()
        self.log_time = LogTime(resources.clock, resources.machine.last_time_ms)
        settings = resources.settings
        pause = round_seconds(settings.heartbeat_ms)
        self.clock_offsets = ClockOffsets(resources.clock, self.node_id, pause, settings.clock_offset_max_ms)
        self.proposals = Proposals(self.node_id, self.log_time)
        self.reads = ReadIndex(self.node_id)
        self.applied = AppliedWaiters(self.applied_index)
        self.also_consider: tuple[Callable[[], None], ...] = ()
        """Called with each upkeep."""
        self._upkeep = Upkeep()
        self.state_hashes = StateHashes(resources.machine)
        self.state_replaced: Callable[[], None] = lambda: None
        """Called when a snapshot of another node has taken the place of the whole state."""
        self._pending_install: SnapshotInfo | None = None
        self._build_transport(answer)
        self._build_engine()
        self._connect()

    def _build_transport(self, answer: Callable[[str, bytes], Awaitable[bytes]]) -> None:
        given, identity = self.resources, self.resources.directory.identity
        local = LocalIdentity(self.node_id, identity.incarnation, given.settings.endpoint, identity.cluster_id)
        self.peers = Peers(local, given.security, given.observer, given.clock, answer, given.make_transport)
        self.driver = Driver(
            clock=given.clock,
            store=given.store,
            writer=given.writer,
            thread=given.log_thread,
            reads=self.reads,
            proposals=self.proposals,
            observer=given.observer,
            send=self.peers.transport.send,
        )

    def _build_engine(self) -> None:
        given, settings = self.resources, self.resources.settings
        store, minimum = given.store, given.settings.election_timeout_min_ms / 1000
        store.noop_content = encode_noop_entry(self.node_id)
        self.snapshots = Snapshots(
            directory=given.directory.snapshot_directory,
            state_path=given.directory.state_path,
            thread=given.snapshot_thread,
            clock=given.clock,
            observer=given.observer,
            cluster_id=lambda: given.directory.identity.cluster_id,
            tail_at=self._tail_at,
            verified=self._snapshot_verified,
            failed=self.driver.fail,
            chunk_size_bytes=settings.snapshot_chunk_size_bytes,
            receive_timeout_seconds=settings.install_snapshot_timeout_ms / 1000,
        )
        self.snapshots.usable = lambda index: store.first_index <= index
        self.snapshots.commit = given.machine.commit
        self.snapshots.has = lambda node_id, index: self._replicates_to(node_id) and not self._lags(node_id, index)
        self.engine = Engine(
            clock=given.clock,
            node_id=self.node_id,
            store=store,
            membership=membership_in_force(store, given.machine),
            applied_index=given.machine.last_applied.index,
            heartbeat_seconds=settings.heartbeat_ms / 2000,
            election_timeout_seconds=(minimum, settings.election_timeout_max_ms / 1000),
            send=self.driver.outgoing,
            apply=self._apply,
            snapshots=self.snapshots,
        )
        store.commit_floor = self.engine.commit_index
        self.guards = Guards(
            node_id=self.node_id,
            incarnation=given.directory.identity.incarnation,
            engine=self.engine,
            store=store,
            reads=self.reads,
            send=self.driver.outgoing,
            reachable=self.peers.transport.is_connected,
            snapshot_chunk=self.snapshots.receive,
            snapshot_expected=self.snapshots.receiving,
            election_timeout_min_seconds=minimum,
        )

    def _connect(self) -> None:
        given, settings = self.resources, self.resources.settings
        self.driver.attach(self.engine, self.guards)
        self.driver.after_step = self._after_step
        self.peers.attach(self.driver, self.engine, self.guards, self.snapshots, given.machine)
        self.compaction = Compaction(
            store=given.store,
            snapshots=self.snapshots,
            thread=given.state_thread,
            machine=given.machine,
            logs_since_last=settings.snapshot_logs_since_last,
            logs_to_keep=settings.max_applied_log_to_keep,
            failed=self.driver.fail,
        )
        self._commits = StateCommits(given.machine, given.clock, given.observer)
        self.state_log = StateLog(
            machine=given.machine,
            thread=given.state_thread,
            clock=given.clock,
            observer=given.observer,
            limits=settings.state_log,
            hold=self.driver.hold_applying,
            failed=self.driver.fail,
        )
        self.disk = DiskStall(
            log=self.driver.sync_started_at,
            state=self._applying_waits_for,
            observer=given.observer,
            stall_ms=settings.disk_stall_ms,
        )
        self.driver.serves = self.guards.may_stand = self._serves
        self.ticks = ExpiryTicks(
            clock=given.clock,
            log_time=self.log_time,
            machine=given.machine,
            proposals=self.proposals,
            driver=self.driver,
            leads=lambda: self.leader_id() == self.node_id,
        )
        self.state_space = StateSpace(
            machine=given.machine, clock=given.clock, state_log=self.state_log, kept=settings.state_log.free_kept
        )
        self._learners = Learners(given.clock, self.engine, given.store)
        self.sources = StatusSources(
            node_id=self.node_id,
            clock=given.clock,
            engine=self.engine,
            guards=self.guards,
            driver=self.driver,
            disk=self.disk,
            store=given.store,
            proposals=self.proposals,
            snapshots=self.snapshots,
            machine=given.machine,
            last_contact=self.peers.transport.last_contact,
            is_connected=self.peers.transport.is_connected,
            other_cluster=self.peers.transport.other_cluster,
            clock_offsets=self.clock_offsets,
            log_time=self.log_time,
            learners=self._learners,
            removed=lambda: given.directory.identity.removed,
            election_timeout_min_ms=settings.election_timeout_min_ms,
            election_timeout_max_ms=settings.election_timeout_max_ms,
        )

    # ------------------------------------------------------------------ what requests need

    def applied_index(self) -> int:
        return self.machine.last_applied.index

    def leads(self) -> bool:
        """Whether this node leads and does what a leader is asked for."""
        return self.engine.role() == LEADER and self._serves()

    def leader_id(self) -> int | None:
        """The leader as far as this node knows, None while it knows of none."""
        if self.leads():
            return self.node_id if self.guards.leads_with_quorum(self.clock.monotonic()) else None
        leader_id = self.engine.leader_id()
        return None if leader_id == self.node_id else leader_id

    def status(self) -> RaftStatus:
        return build_status(self.sources, self.history, self.compaction.purged())

    def connected_members(self) -> list[int]:
        """The other members to which this node has a connection."""
        membership = self.engine.membership()
        members = {*membership.voters, *membership.learners} - {self.node_id}
        return sorted(i for i in members if self.peers.transport.is_connected(i))

    async def until_free(self) -> None:
        """Return when no log write is in flight, so that the engine may be touched before the next await."""
        while self.driver.busy():
            await self.driver.until_synced()

    async def close(self) -> None:
        """Stop stepping, end what waits, close connections and threads."""
        self.driver.stop()
        self.proposals.stop(StoppingError())
        self.reads.fail(None)
        self.applied.fail(StoppingError())
        await self.peers.transport.close()
        self.snapshots.close()
        self.state_log.close()
        await self.resources.log_thread.stop()
        await self.resources.snapshot_thread.stop()
        await self.resources.state_thread.stop()

    # ------------------------------------------------------------------ called by the parts

    def _serves(self) -> bool:
        """False while this node's disk stalls, unless nobody else could lead."""
        return self.disk.part is None or set(self.engine.membership().voters) <= {self.node_id}

    def _applying_waits_for(self) -> tuple[str, int] | None:
        """What keeps committed entries from being applied; the same value as long as nothing changes."""
        if self.state_log.restarting:
            return ("a new write-ahead log", self.state_log.restarts)
        applied = self.engine.applied_index()
        return ("the next entry", applied) if self.engine.commit_index() > applied and not self.driver.busy() else None

    def _tail_at(self, index: int) -> tuple[LogEntry, LogEntry] | None:
        previous, last = self.store.entry_at(index - 1), self.store.entry_at(index)
        return None if previous is None or last is None else (previous, last)

    def _apply(self, content: bytes, index: int, term: int) -> None:
        entry = self.proposals.own_entry(index, term)
        if entry is None:
            try:
                decoded = decode_entry(content)
            except CodecError as error:
                path, advice = self.resources.directory.log_path, "start a version of metasrv that knows it"
                raise DataDamagedError(path, f"entry {index}", str(error), advice) from error
        else:
            decoded = entry
        self.history.led_term(term, decoded.leader_id)
        started = self.clock.monotonic()
        replies = self.machine.apply_entry(LogId(term, index, decoded.leader_id), decoded)
        if isinstance(decoded, RegularEntry):
            ended, observer = self.clock.monotonic(), self.resources.observer
            if (in_log_seconds := self.proposals.took_effect(index, term, started, ended)) is not None:
                observer.batch_committed(in_log_seconds)
            observer.batch_applied(ended - started, len(replies))
            self.log_time.saw(decoded.time_ms)
            self.proposals.applied(index, term, replies)
        else:
            self.proposals.applied(index, term, ())
            if isinstance(decoded, MembershipEntry):
                logger.info("membership is now %s", decoded.after)
        self.state_hashes.applied(index)
        self.state_log.applied(len(content), len(replies))
        self._commits.applied(len(content), len(replies))
        self.peers.note_registry(self.machine.nodes)

    def _after_step(self) -> None:
        self.history.saw(self.leader_id(), self.engine.term())
        self.applied.resolve()
        if self._pending_install is not None and not self.driver.busy() and not self.state_log.restarting:
            info, self._pending_install = self._pending_install, None
            self._install(info)
        self._commits.consider()
        self.ticks.consider()
        if self._upkeep.is_due(self.machine.last_applied.index, self.clock.monotonic()):
            self._keep_up()

    def _keep_up(self) -> None:
        self.snapshots.end_unwanted(self._wants_snapshot, self._lags)
        if self.snapshots.needed:
            self.snapshots.build(self.machine.last_applied.index)
        self.compaction.consider()
        self.state_log.consider()
        self.state_space.consider()
        self._learners.look()
        for consider in self.also_consider:
            consider()

    def _wants_snapshot(self, node_id: int) -> bool:
        """Whether this leader must send the peer a snapshot, because the entries that it lacks are purged."""
        return self._replicates_to(node_id) and self.engine.next_index(node_id) <= self.store.first_index

    def _lags(self, node_id: int, index: int) -> bool:
        """Whether this leader does not yet know that the peer has the entry."""
        return self._replicates_to(node_id) and self.engine.match_index(node_id) < index

    def _replicates_to(self, node_id: int) -> bool:
        return self.engine.role() == LEADER and node_id in self.engine.membership()

    def _snapshot_verified(self, info: SnapshotInfo) -> None:
        self._pending_install = info
        self.driver.wake()

    def _install(self, info: SnapshotInfo) -> None:
        leader_id = self.engine.leader_id()
        entry = self.store.entry_at(info.log_id.index)
        newer = info.log_id.index > self.machine.last_applied.index
        if newer and entry is not None and entry[TERM] == info.log_id.term:
            # The log has the snapshot's last entry, and so all before it. What follows may have been acknowledged:
            # it stays (Raft, figure 13, step 6), and the log is applied up to there instead.
            newer = False
            self.engine.learn_commit(info.log_id.index)
            logger.info("the snapshot up to %s is no longer needed: the log has reached it", info.log_id)
        if newer:
            tail = self.machine.install(info.path)
            self.log_time.saw(self.machine.last_time_ms)  # its entries were never applied here
            self.state_hashes.replaced()
            self.state_replaced()
            self.engine.install(tail.previous, tail.last, self.machine.membership)
            self.proposals.state_replaced(info.log_id.index)
            self.peers.note_registry(self.machine.nodes)
            logger.info("the snapshot up to %s is in place", info.log_id)
        self.snapshots.finish_receiving(newer)
        if newer and leader_id is not None and leader_id != self.node_id:
            # Only when the log was replaced: an older snapshot proves nothing about this log.
            self.engine.reply_append(leader_id)
        self.driver.wake()

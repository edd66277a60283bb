"""One node's replica: the parts of `raft/` built and connected, and what happens to committed entries.

Applies entries to the state, puts verified snapshots in place, keeps the log short. `consensus.py` turns requests into
work for it; `core/driver.py` decides when the engine may be touched. Runs on the node's event loop.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from metasrv.model.entries import MembershipEntry, RegularEntry, decode_entry
from metasrv.model.errors import CodecError, DataDamagedError, FatalError, StoppingError
from metasrv.model.types import LogId, RaftStatus
from metasrv.process.loop_steps import StepLaps
from metasrv.raft.applied_waiters import AppliedWaiters
from metasrv.raft.clock_rounds import round_seconds
from metasrv.raft.compaction import Compaction
from metasrv.raft.core.clock_offsets import ClockOffsets
from metasrv.raft.core.driver import Driver, DriverHandlers
from metasrv.raft.core.engine import LEADER
from metasrv.raft.core.log_time import LogTime
from metasrv.raft.core.step import Core, CoreHandlers, CoreSettings
from metasrv.raft.disk_stall import DiskStall
from metasrv.raft.expiry_ticks import ExpiryTicks
from metasrv.raft.learners import Learners
from metasrv.raft.log.format import TERM, LogEntry
from metasrv.raft.membership_in_force import membership_in_force
from metasrv.raft.peer_set import Peers
from metasrv.raft.peers.transport import LocalIdentity
from metasrv.raft.replica_parts import ReplicaHandlers, ReplicaResources
from metasrv.raft.snapshots import Snapshots
from metasrv.raft.state_commits import StateCommits
from metasrv.raft.state_hashes import StateHashes
from metasrv.raft.state_log import StateLog
from metasrv.raft.state_space import StateSpace
from metasrv.raft.status import LeaderHistory, StatusSources, build_status
from metasrv.raft.upkeep import Upkeep
from metasrv.state.snapshot import SnapshotInfo

logger = logging.getLogger(__name__)


class Replica:
    """The connected parts of one node."""

    def __init__(self, resources: ReplicaResources, handlers: ReplicaHandlers) -> None:
        self.resources = resources
        self._handlers = handlers
        self.node_id = resources.directory.identity.node_id
        self.machine = resources.machine
        self.store = resources.store
        self.clock = resources.clock
        self.history = LeaderHistory()
        self.log_time = LogTime(resources.clock, resources.machine.last_time_ms)
        settings = resources.settings
        pause = round_seconds(settings.heartbeat_ms)
        self.clock_offsets = ClockOffsets(resources.clock, self.node_id, pause, settings.clock_offset_max_ms)
        self.applied = AppliedWaiters(self.applied_index)
        self._upkeep = Upkeep()
        self.state_hashes = StateHashes(resources.machine)
        self.state_replaced: Callable[[], None] = lambda: None
        """Called when a snapshot of another node has taken the place of the whole state."""
        self._pending_install: SnapshotInfo | None = None
        self.peers = self._make_peers()
        self.snapshots = self._make_snapshots()
        laps = StepLaps(resources.observer.step_took)
        self.core = self._make_core(laps)
        self.engine, self.guards = self.core.engine, self.core.guards
        self.proposals, self.reads = self.core.proposals, self.core.reads
        self.driver = Driver(
            core=self.core,
            clock=resources.clock,
            writer=resources.writer,
            thread=resources.log_thread,
            observer=resources.observer,
            laps=laps,
            handlers=DriverHandlers(
                send=self.peers.transport.send,
                after_step=self._after_step,
                timer=handlers.timer,
                role_changed=handlers.role_changed,
                serves=self._serves,
                fatal=handlers.fatal,
            ),
        )
        self._make_upkeep()
        self._learners = Learners(self.clock, self.engine, self.store)
        self.sources = self._make_sources()

    def _make_peers(self) -> Peers:
        given, identity = self.resources, self.resources.directory.identity
        local = LocalIdentity(self.node_id, identity.incarnation, given.settings.endpoint, identity.cluster_id)
        answer, refuse_foreign = self._handlers.answer, self._handlers.refuse_foreign
        return Peers(
            self, local, given.security, given.observer, given.clock, answer, refuse_foreign, given.make_transport
        )

    def _make_snapshots(self) -> Snapshots:
        given, store, settings = self.resources, self.store, self.resources.settings
        snapshots = Snapshots(
            directory=given.directory.snapshot_directory,
            state_path=given.directory.state_path,
            thread=given.snapshot_thread,
            clock=given.clock,
            observer=given.observer,
            cluster_id=lambda: given.directory.identity.cluster_id,
            tail_at=self._tail_at,
            verified=self._snapshot_verified,
            failed=self._fail,
            chunk_size_bytes=settings.snapshot_chunk_size_bytes,
            receive_timeout_seconds=settings.install_snapshot_timeout_ms / 1000,
        )
        snapshots.takes = self.peers.is_admitted
        snapshots.usable = lambda index: store.first_index <= index
        snapshots.commit = given.machine.commit
        snapshots.has = lambda node_id, index: self._replicates_to(node_id) and not self._lags(node_id, index)
        return snapshots

    def _make_core(self, laps: StepLaps) -> Core:
        given, settings = self.resources, self.resources.settings
        return Core(
            settings=CoreSettings(
                node_id=self.node_id,
                incarnation=given.directory.identity.incarnation,
                heartbeat_seconds=settings.heartbeat_ms / 2000,
                election_timeout_seconds=(
                    settings.election_timeout_min_ms / 1000,
                    settings.election_timeout_max_ms / 1000,
                ),
            ),
            clock=given.clock,
            store=given.store,
            membership=membership_in_force(given.store, given.machine),
            applied_index=given.machine.last_applied.index,
            log_time=self.log_time,
            handlers=CoreHandlers(
                apply=self._apply,
                membership_changed=self.peers.membership_changed,
                election=self._handlers.election,
                may_stand=self._may_stand,
                reachable=self.peers.transport.is_connected,
                snapshots=self.snapshots,
                snapshot_chunk=self.snapshots.receive,
                snapshot_expected=self.snapshots.receiving,
                append_acknowledged=given.observer.append_acknowledged,
            ),
            laps=laps,
        )

    def _make_upkeep(self) -> None:
        """What keeps files short and the disk watched; all of it works on the parts made before."""
        given, settings = self.resources, self.resources.settings
        self.compaction = Compaction(
            store=given.store,
            snapshots=self.snapshots,
            thread=given.state_thread,
            machine=given.machine,
            logs_since_last=settings.snapshot_logs_since_last,
            logs_to_keep=settings.max_applied_log_to_keep,
            failed=self._fail,
        )
        self._commits = StateCommits(given.machine, given.clock, given.observer)
        self.state_log = StateLog(
            machine=given.machine,
            thread=given.state_thread,
            clock=given.clock,
            observer=given.observer,
            limits=settings.state_log,
            hold=self.driver.hold_applying,
            failed=self._fail,
        )
        self.disk = DiskStall(
            log=self.driver.sync_started_at,
            state=self._applying_waits_for,
            observer=given.observer,
            stall_ms=settings.disk_stall_ms,
        )
        self.ticks = ExpiryTicks(
            clock=given.clock,
            log_time=self.log_time,
            machine=given.machine,
            pending=self.proposals.pending,
            driver=self.driver,
            leads=lambda: self.leader_id() == self.node_id,
        )
        self.state_space = StateSpace(
            machine=given.machine, clock=given.clock, state_log=self.state_log, kept=settings.state_log.free_kept
        )

    def _make_sources(self) -> StatusSources:
        given, settings = self.resources, self.resources.settings
        return StatusSources(
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
        self.driver.answer()
        self.applied.fail(StoppingError())
        await self.peers.transport.close()
        self.snapshots.close()
        self.state_log.close()
        await self.resources.log_thread.stop()
        await self.resources.snapshot_thread.stop()
        await self.resources.state_thread.stop()

    # ------------------------------------------------------------------ called by the parts

    def _fail(self, error: FatalError) -> None:
        self.driver.fail(error)

    def _may_stand(self) -> bool:
        return self._handlers.may_stand() and self._serves()

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
        self._handlers.keep_up()

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
            self.driver.answer()
            self.peers.note_registry(self.machine.nodes)
            logger.info("the snapshot up to %s is in place", info.log_id)
        self.snapshots.finish_receiving(newer)
        if newer and leader_id is not None and leader_id != self.node_id:
            # Only when the log was replaced: an older snapshot proves nothing about this log.
            self.engine.reply_append(leader_id)
        self.driver.wake()

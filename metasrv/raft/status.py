"""Builds the status of one instant from the engine, the log and the state (invariant 8).

Called on the event loop, between two steps, whenever somebody asks; reads values only, and of files their sizes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from metasrv.model.reach import contact_bound_ms
from metasrv.model.types import CompactionStatus, LogId, PeerProgress, RaftState, RaftStatus, SnapshotStatus
from metasrv.process.clock import Clock
from metasrv.raft.core.clock_offsets import ClockOffsets
from metasrv.raft.core.driver import Driver
from metasrv.raft.core.engine import CANDIDATE, LEADER, Engine
from metasrv.raft.core.guards import Guards
from metasrv.raft.core.log_time import LogTime
from metasrv.raft.core.proposals import Proposals
from metasrv.raft.disk_stall import DiskStall
from metasrv.raft.learners import Learners
from metasrv.raft.log.format import TERM
from metasrv.raft.log.store import LogStore
from metasrv.raft.snapshots import Snapshots
from metasrv.state.machine import StateMachine


@dataclass(slots=True)
class StatusSources:
    """What a status is made of; filled once by `replica.py`."""

    node_id: int
    clock: Clock
    engine: Engine
    guards: Guards
    driver: Driver
    disk: DiskStall
    store: LogStore
    proposals: Proposals
    snapshots: Snapshots
    machine: StateMachine
    last_contact: Callable[[int], float | None]
    is_connected: Callable[[int], bool]
    other_cluster: Callable[[int], str | None]
    clock_offsets: ClockOffsets
    log_time: LogTime
    learners: Learners
    removed: Callable[[], str | None]
    election_timeout_min_ms: int
    election_timeout_max_ms: int
    drained: Callable[[], bool] = lambda: False
    compaction: Callable[[], CompactionStatus | None] = lambda: None


class LeaderHistory:
    """Who led, for the counter of leader changes and for the node ids in log ids."""

    def __init__(self) -> None:
        self.changes = 0
        self._last_known: int | None = None
        self._terms: dict[int, int] = {}

    def saw(self, leader_id: int | None, term: int) -> None:
        """Count a known leader that differs from the last one seen; a loss to none does not count.

        The counter is `leader_changes` of docs/contract/admin-api.md section 2.2.
        """
        if leader_id is None or (leader_id == self._last_known and self._terms.get(term) == leader_id):
            return
        self.led_term(term, leader_id)
        if leader_id != self._last_known:
            self.changes += 1
            self._last_known = leader_id

    def led_term(self, term: int, leader_id: int) -> None:
        """`leader_id` led `term`: its entries say so, or it was heard."""
        self._terms[term] = leader_id
        if len(self._terms) > 64:
            del self._terms[min(self._terms)]

    def led(self, term: int) -> int:
        """The leader of `term`, 0 when this node does not know it."""
        return self._terms.get(term, 0)


def build_status(sources: StatusSources, history: LeaderHistory, last_purged: LogId | None) -> RaftStatus:
    """The status of this instant."""
    engine, machine, store = sources.engine, sources.machine, sources.store
    now = sources.clock.monotonic()
    membership = engine.membership()
    state, leader_id, has_quorum = _role(sources, now)
    term = engine.term()
    heard_at = sources.guards.leader_heard_at()
    if state is RaftState.LEADER:
        leader_contact_ms: int | None = 0
    elif leader_id is None or heard_at is None:
        leader_contact_ms = None
    else:
        leader_contact_ms = int((now - heard_at) * 1000)
    members = sorted({*membership.voters, *membership.learners})
    replication = None
    if state is RaftState.LEADER:
        replication = {i: _match(sources, history, i) for i in members}
    state_sizes = machine.file_sizes()
    majority = sources.clock_offsets.majority(membership.voters)
    return RaftStatus(
        node_id=sources.node_id,
        cluster_id=machine.cluster_id,
        state=state,
        term=term,
        leader_id=leader_id,
        last_log_id=LogId(store.last_term, store.last_index, history.led(store.last_term)),
        commit_index=engine.commit_index(),
        last_applied=machine.last_applied,
        purged=last_purged,
        membership=membership,
        membership_committed=machine.membership == membership,
        nodes=machine.nodes,
        replication=replication,
        peers=tuple(_peer(sources, history, i, now, state) for i in members if i != sources.node_id),
        leader_contact_ms=leader_contact_ms,
        has_quorum=has_quorum,
        contact_bound_ms=contact_bound_ms(
            sources.election_timeout_min_ms, sources.election_timeout_max_ms, state is RaftState.LEADER
        ),
        proposals_pending=sources.proposals.pending(),
        proposals_failed=sources.proposals.failed,
        leader_changes=history.changes,
        last_seq=machine.last_seq,
        raft_log=store.statistics(),
        state_size_bytes=sum(state_sizes),
        state_log_size_bytes=state_sizes.log_bytes,
        snapshot=_snapshot_status(sources.snapshots),
        fatal=str(sources.driver.fatal) if sources.driver.fatal else None,
        clock_offset_ms=None if majority is None else round(-majority.offset_ms),
        log_time_ahead_ms=sources.log_time.ahead_ms(),
        disk_stall=sources.disk.sentence(),
        disk_stalled_seconds=sources.disk.seconds(),
        removed=sources.removed(),
        limits=machine.limits,
        data_size_bytes=machine.data_size_bytes,
        key_count=machine.key_count,
        writes_refused=machine.writes_refused,
        drained=sources.drained(),
        compaction=sources.compaction(),
    )


def _snapshot_status(snapshots: Snapshots) -> SnapshotStatus:
    newest = snapshots.newest
    return SnapshotStatus(
        last_log_id=newest.log_id if newest else None,
        key_count=newest.key_count if newest else 0,
        expire_count=newest.expire_count if newest else 0,
        size_bytes=newest.size_bytes if newest else 0,
        building=snapshots.building,
        installing=snapshots.receiving(),
        path=newest.path if newest else None,
        files_size_bytes=snapshots.files_size_bytes(),
    )


def _role(sources: StatusSources, now: float) -> tuple[RaftState, int | None, bool]:
    """What this node reports to be; a leader whose majority is silent reports to be a follower (invariant 6)."""
    engine, guards = sources.engine, sources.guards
    if sources.driver.fatal is not None:
        return RaftState.SHUTDOWN, None, False
    if engine.role() == LEADER:
        sync_started_at = sources.driver.sync_started_at()
        hangs = sync_started_at is not None and (now - sync_started_at) * 1000 > sources.election_timeout_min_ms
        if guards.leads_with_quorum(now) and not hangs and sources.driver.serves():
            return RaftState.LEADER, sources.node_id, True
        return RaftState.FOLLOWER, None, False
    hears = guards.hears_leader(now)
    leader_id = engine.leader_id()
    if leader_id == sources.node_id:
        leader_id = None
    if not guards.is_voter():
        return RaftState.LEARNER, leader_id, hears
    if engine.role() == CANDIDATE or guards.electing:
        return RaftState.CANDIDATE, None, False
    return RaftState.FOLLOWER, leader_id, hears


def _match(sources: StatusSources, history: LeaderHistory, node_id: int) -> LogId | None:
    store = sources.store
    if node_id == sources.node_id:
        return LogId(store.last_term, store.last_index, history.led(store.last_term))
    index = sources.engine.match_index(node_id)
    if index == 0:
        return None
    entry = store.entry_at(index)
    term = entry[TERM] if entry is not None else 0
    return LogId(term, index, history.led(term))


def _peer(sources: StatusSources, history: LeaderHistory, node_id: int, now: float, state: RaftState) -> PeerProgress:
    contact = sources.last_contact(node_id)
    return PeerProgress(
        node_id=node_id,
        match_log_id=_match(sources, history, node_id) if state is RaftState.LEADER else None,
        last_contact_ms=None if contact is None else int((now - contact) * 1000),
        connected=sources.is_connected(node_id),
        other_cluster=sources.other_cluster(node_id),
        clock_offset_ms=sources.clock_offsets.offset_ms(node_id),
        learner_for_ms=sources.learners.learns_for_ms(node_id),
        caught_up=sources.learners.caught_up(node_id) if state is RaftState.LEADER else None,
    )

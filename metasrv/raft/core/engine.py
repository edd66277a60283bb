"""pysyncobj as a library: one subclass that owns every private name of it that metasrv uses.

The engine decides elections, replication and commitment; this class replaces what surrounds them: the log is
`log/store.py`, messages leave as named tuples through a callback, entries are applied through a callback, membership
is a whole configuration per entry, pieces of snapshots come from a source; nothing is compacted, serialized, forked or
unpickled here. Driven by `step.py` on the event loop; touched only while no log write is in flight (D4).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pysyncobj import syncobj as engine_module
from pysyncobj.config import SyncObjConf
from pysyncobj.node import Node as EngineNode
from pysyncobj.syncobj import SyncObj

from metasrv.model.entries import KIND_MEMBERSHIP, MembershipEntry, decode_entry
from metasrv.model.errors import InvariantError
from metasrv.model.limits import APPEND_MESSAGE_SIZE_BYTES_TARGET, PEER_FRAME_SIZE_BYTES_MAX
from metasrv.model.types import Membership
from metasrv.process.clock import Clock
from metasrv.raft.core.engine_seams import MessageSeam, SnapshotSeam, SnapshotSource, construction_seams
from metasrv.raft.core.messages import Message
from metasrv.raft.core.translation import engine_node, from_engine, to_engine
from metasrv.raft.log.format import INDEX, TERM, LogEntry
from metasrv.raft.log.store import LogStore

ENGINE_PRIVATE_NAMES = (
    "_SyncObj__applyLogEntries",
    "_SyncObj__changeCluster",
    "_SyncObj__connectedNodes",
    "_SyncObj__doApplyCommand",
    "_SyncObj__doChangeCluster",
    "_SyncObj__generateRaftTimeout",
    "_SyncObj__getCurrentLogIndex",
    "_SyncObj__getCurrentLogTerm",
    "_SyncObj__getEntries",
    "_SyncObj__lastResponseTime",
    "_SyncObj__loadDumpFile",
    "_SyncObj__newAppendEntriesTime",
    "_SyncObj__noopIDx",
    "_SyncObj__onMessageReceived",
    "_SyncObj__otherNodes",
    "_SyncObj__parseChangeClusterRequest",
    "_SyncObj__raftCommitIndex",
    "_SyncObj__raftCurrentTerm",
    "_SyncObj__raftElectionDeadline",
    "_SyncObj__raftLastApplied",
    "_SyncObj__raftLeader",
    "_SyncObj__raftMatchIndex",
    "_SyncObj__raftNextIndex",
    "_SyncObj__raftState",
    "_SyncObj__readonlyNodes",
    "_SyncObj__sendAppendEntries",
    "_SyncObj__sendNextNodeIdx",
    "_SyncObj__serializer",
    "_SyncObj__transferInProgress",
    "_SyncObj__updateClusterConfiguration",
    "_SyncObj__votedForNodeId",
)
"""Every private name used below; tests/unit/raft/core/test_engine_contract.py checks each against the pinned version."""

FOLLOWER, CANDIDATE, LEADER = 0, 1, 2

_SEND_TIME_SECONDS_MAX = 0.004
_APPLY_TIME_SECONDS_MAX = 0.004
_NEVER = 2**60


class Engine(SyncObj):  # type: ignore[misc]  # pysyncobj is untyped
    """The consensus engine of one node. `send(node_id, message)` and `apply(content, index, term)` are called by it."""

    def __init__(
        self,
        *,
        clock: Clock,
        node_id: int,
        store: LogStore,
        membership: Membership,
        applied_index: int,
        heartbeat_seconds: float,
        election_timeout_seconds: tuple[float, float],
        send: Callable[[int, Message], None],
        apply: Callable[[bytes, int, int], None],
        membership_changed: Callable[[Membership], None],
        snapshots: SnapshotSource,
    ) -> None:
        """`membership_changed` hears of every configuration that comes into force after this one."""
        # pysyncobj reads the raw monotonic clock, which differs from the one that timers and guards use.
        engine_module.monotonicTime = clock.monotonic
        self._clock = clock
        self._heartbeat_seconds = heartbeat_seconds
        self._emit = send
        self._apply_entry = apply
        self._store = store
        self._membership = membership
        self._own_id = node_id
        self._membership_changed = membership_changed
        self._seam = SnapshotSeam(snapshots)
        self._without_snapshot: set[EngineNode] = set()
        self._durable_index = _NEVER
        """While a tick runs: the last entry that is on this node's disk."""
        self.applying_held = False
        """Committed entries stay where they are for a moment: the state file is not to be written to."""
        minimum, maximum = election_timeout_seconds
        configuration = SyncObjConf(
            autoTick=False,
            appendEntriesUseBatch=True,  # no sending per command: proposals come in batches
            appendEntriesPeriod=_SEND_TIME_SECONDS_MAX,  # also bounds how long one send loop may take
            raftMinTimeout=minimum,
            raftMaxTimeout=maximum,
            leaderFallbackTimeout=minimum,  # D14
            connectionTimeout=maximum * 2,
            appendEntriesBatchSizeBytes=PEER_FRAME_SIZE_BYTES_MAX * 2,  # never the pickling transmission path (D17)
            logCompactionMinEntries=_NEVER,
            logCompactionMinTime=_NEVER,
            commandsWaitLeader=False,
            dynamicMembershipChange=True,
            useFork=False,
        )
        with construction_seams(store):
            super().__init__(
                engine_node(node_id),
                [],
                configuration,
                nodeClass=EngineNode,
                transport=MessageSeam(self._outgoing),
            )
        self._SyncObj__serializer = self._seam
        self._SyncObj__raftLastApplied = applied_index
        self._SyncObj__raftCommitIndex = max(applied_index, store.getRaftCommitIndex())
        self._take_over(membership)

    # ------------------------------------------------------------------ what the step asks

    def own_id(self) -> int:
        return self._own_id

    def role(self) -> int:
        state: int = self._SyncObj__raftState
        return state

    def term(self) -> int:
        term: int = self._SyncObj__raftCurrentTerm
        return term

    def commit_index(self) -> int:
        index: int = self._SyncObj__raftCommitIndex
        return index

    def applied_index(self) -> int:
        index: int = self._SyncObj__raftLastApplied
        return index

    def has_to_apply(self) -> bool:
        """There are committed entries that may be applied now."""
        return self.commit_index() > self.applied_index() and not self.applying_held

    def leader_id(self) -> int | None:
        node = self._SyncObj__raftLeader
        return None if node is None else int(node.id)

    def noop_index(self) -> int:
        """Index of this leader's own first entry; meaningful on a leader only."""
        index: int | None = self._SyncObj__noopIDx
        return _NEVER if index is None else index

    def election_deadline(self) -> float:
        deadline: float = self._SyncObj__raftElectionDeadline
        return deadline

    def set_election_deadline(self, deadline: float) -> None:
        self._SyncObj__raftElectionDeadline = deadline

    def random_timeout(self) -> float:
        """Seconds between the minimum and the maximum election timeout."""
        return float(self._SyncObj__generateRaftTimeout())

    def transfer_asked(self) -> bool:
        return bool(self._SyncObj__transferInProgress)

    def forget_transfer(self) -> None:
        """The campaign that a leader asked for will not come."""
        self._SyncObj__transferInProgress = False

    def match_index(self, node_id: int) -> int:
        index: int = self._SyncObj__raftMatchIndex.get(engine_node(node_id), 0)
        return index

    def next_index(self, node_id: int) -> int:
        index: int = self._SyncObj__raftNextIndex.get(engine_node(node_id), 0)
        return index

    def last_response(self, node_id: int) -> float:
        """Monotonic seconds of the peer's last answer to this leader; 0.0 if never."""
        moment: float = self._SyncObj__lastResponseTime.get(engine_node(node_id), 0.0)
        return moment

    def note_response(self, node_id: int, now: float) -> None:
        self._SyncObj__lastResponseTime[engine_node(node_id)] = now

    def membership(self) -> Membership:
        """The configuration in force: the newest one in the log, committed or not."""
        return self._membership

    # ------------------------------------------------------------------ what the step does

    def peer_ready(self, node_id: int, ready: bool) -> None:
        """Replicate to the peer, or stop for now (down, or its send buffer is full)."""
        connected = self._SyncObj__connectedNodes
        (connected.add if ready else connected.discard)(engine_node(node_id))

    def forget_leader(self) -> None:
        """No leader is known any more; status says so from now on (invariant 6)."""
        self._SyncObj__raftLeader = None

    def step_down(self) -> None:
        """Stop leading, as the engine itself does without a quorum: a follower of nobody, in the same term."""
        self._SyncObj__raftState = FOLLOWER
        self.forget_leader()
        self.set_election_deadline(self._clock.monotonic() + self.random_timeout())

    def append_as_leader(self, content: bytes) -> tuple[int, int]:
        """Add one entry to the leader's own log; returns its index and term."""
        if self.role() != LEADER:
            raise InvariantError("an entry was appended by a node that is not the leader")
        index, term = self._store.last_index + 1, self.term()
        self._store.add(content, index, term)
        request = self._SyncObj__parseChangeClusterRequest(content)
        if request is not None:
            self._SyncObj__doChangeCluster(request)
        return index, term

    def replicate(self) -> None:
        """Send each ready peer the entries that it lacks, or a heartbeat."""
        self._SyncObj__sendAppendEntries()

    def ask_to_campaign(self, node_id: int) -> None:
        """Send TimeoutNow to a voter that has this leader's last entry; the engine refuses others."""
        self.transferLeadership(engine_node(node_id))

    def doTick(self, timeToWait: float = 0.0) -> None:
        """Look at the timers, commit, apply; only while the whole log is on disk.

        An only voter elects itself in a tick: what it then adds to its log is not on disk, so it does not count yet (D4).
        """
        self._durable_index = self._store.last_index
        super().doTick(timeToWait)
        self._durable_index = _NEVER

    def apply_committed(self) -> None:
        """Apply committed entries for a few milliseconds, without looking at timers."""
        self._SyncObj__applyLogEntries()

    def receive(self, node_id: int, message: Message) -> None:
        """Hand a message that the guards let pass to the engine, as the engine's dictionary."""
        self._SyncObj__onMessageReceived(engine_node(node_id), to_engine(message))

    def reply_append(self, node_id: int, next_index: int | None = None) -> None:
        """Acknowledge what is already in the log: all of it, or the entries before `next_index`."""
        self._SyncObj__sendNextNodeIdx(engine_node(node_id), nextNodeIdx=next_index, success=True)

    def learn_commit(self, index: int) -> None:
        """The leader has committed up to `index`, which this node's log is known to match."""
        self._SyncObj__raftCommitIndex = max(self.commit_index(), index)

    def install(self, previous: LogEntry, last: LogEntry, membership: Membership) -> None:
        """The state was replaced by a verified snapshot: restart the log at its last two entries."""
        self._seam.installed = (previous, last)
        self._SyncObj__loadDumpFile(clearJournal=True)
        self._seam.installed = None
        if self.applied_index() != last[INDEX] or self._store.last_index != last[INDEX]:
            raise InvariantError(f"the engine did not take over the snapshot at index {last[INDEX]} (D10)")
        self._SyncObj__raftCommitIndex = last[INDEX]
        self.adopt(membership)

    def adopt(self, membership: Membership) -> None:
        """Make a configuration effective: who counts, who only learns, whom to talk to."""
        self._take_over(membership)
        self._membership_changed(membership)

    def _take_over(self, membership: Membership) -> None:
        now = self._clock.monotonic() if self.role() == LEADER else 0.0
        others = {engine_node(i) for i in membership.voters if i != self._own_id}
        learners = {engine_node(i) for i in membership.learners if i != self._own_id}
        following = others | learners
        for table, initial in (
            (self._SyncObj__raftNextIndex, self._store.last_index + 1),
            (self._SyncObj__raftMatchIndex, 0),
            (self._SyncObj__lastResponseTime, now),
        ):
            for node in set(table) - following:
                del table[node]
            for node in following:
                table.setdefault(node, initial)
        self._SyncObj__otherNodes = others
        self._SyncObj__readonlyNodes = learners
        self._membership = membership

    # ------------------------------------------------------------------ seams: called by pysyncobj

    def _outgoing(self, node_id: int, message: dict[str, Any]) -> None:
        if message.get("serialized", message) is None:
            # No snapshot is ready. Otherwise the engine would repeat this message until its send loop runs out of time.
            self._SyncObj__connectedNodes.discard(engine_node(node_id))
            self._without_snapshot.add(engine_node(node_id))
        converted = from_engine(message, self.term())
        if converted is not None:
            self._emit(node_id, converted)

    def _SyncObj__doApplyCommand(self, command: bytes) -> None:
        index = self.applied_index() + 1
        entry = self._store.entry_at(index)
        if entry is None:
            raise InvariantError(f"entry {index} is being applied but is not in the log")
        self._apply_entry(command, index, entry[TERM])

    def _SyncObj__applyLogEntries(self) -> bool:
        # One entry at a time, so that a long catch-up does not hold the loop; another step comes back for the rest.
        commit = min(self.commit_index(), self._durable_index)
        deadline = self._clock.monotonic() + _APPLY_TIME_SECONDS_MAX
        try:
            while self.applied_index() < commit and not self.applying_held and self._clock.monotonic() < deadline:
                self._SyncObj__raftCommitIndex = self.applied_index() + 1
                SyncObj._SyncObj__applyLogEntries(self)
        finally:
            self._SyncObj__raftCommitIndex = commit
        return False

    def _SyncObj__sendAppendEntries(self) -> None:
        SyncObj._SyncObj__sendAppendEntries(self)
        self._SyncObj__connectedNodes |= self._without_snapshot
        self._without_snapshot.clear()
        self._SyncObj__newAppendEntriesTime = self._clock.monotonic() + self._heartbeat_seconds

    def _SyncObj__getCurrentLogIndex(self) -> int:
        return self._store.last_index

    def _SyncObj__getCurrentLogTerm(self) -> int:
        return self._store.last_term

    def _SyncObj__getEntries(
        self, fromIDx: int | None, count: int | None = None, maxSizeBytes: int | None = None
    ) -> list[LogEntry]:
        if maxSizeBytes is not None:
            return self._store.entries_from(fromIDx or 0, APPEND_MESSAGE_SIZE_BYTES_TARGET)
        if count == 1 and fromIDx is not None:  # by far the most frequent call
            entry = self._store.entry_at(fromIDx)
            return [] if entry is None else [entry]
        found: list[LogEntry] = SyncObj._SyncObj__getEntries(self, fromIDx, count)
        return found

    def _SyncObj__parseChangeClusterRequest(self, command: bytes) -> MembershipEntry | None:
        if command[0] != KIND_MEMBERSHIP:
            return None
        entry = decode_entry(command)
        if not isinstance(entry, MembershipEntry):
            raise InvariantError("a membership entry does not hold a membership")
        return entry

    def _SyncObj__changeCluster(self, request: MembershipEntry) -> bool:
        raise InvariantError("a membership change came through the engine's own queue")

    def _SyncObj__doChangeCluster(self, request: MembershipEntry, reverse: bool = False) -> bool:
        self.adopt(request.before if reverse else request.after)
        return True

    def _SyncObj__updateClusterConfiguration(self, newNodes: object) -> None:
        """The configuration of a snapshot is adopted in `install`, with endpoints."""

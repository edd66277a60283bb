"""Value types that every layer uses: nodes, log ids, records, the status of one instant.

Immutable, without behaviour beyond their text forms. Knows nothing of
Raft engines, SQLite, HTTP or gRPC.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, NamedTuple

U64_MAX = 2**64 - 1
"""Sequence numbers, node ids, expiries and counters of clients are unsigned 64-bit numbers."""
I64_MAX = 2**63 - 1
"""Changes of a counter are signed 64-bit numbers; so are SQLite's integers."""

DATA_VERSION = "V004"
"""On-disk and export format named in status answers (docs/contract/admin-api.md section 1.3)."""


class Endpoint(NamedTuple):
    """A host name or address and a port; `host:port` as text, `[host]:port` for IPv6."""

    addr: str
    port: int

    def __str__(self) -> str:
        return f"[{self.addr}]:{self.port}" if ":" in self.addr else f"{self.addr}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """Parse `host:port`; raises ValueError with a plain sentence."""
        host, separator, port_text = text.rpartition(":")
        if not separator or not host:
            raise ValueError(f"{text!r} is not host:port")
        if not port_text.isascii() or not port_text.isdigit() or not 0 <= int(port_text) <= 65535:
            raise ValueError(f"{text!r} has no port between 0 and 65535")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        return cls(host, int(port_text))


class Node(NamedTuple):
    """One registered member (docs/contract/admin-api.md section 1.2)."""

    node_id: int
    endpoint: Endpoint
    """Raft advertise address."""
    grpc_api_addr: str
    """Client listen address, `0.0.0.0:9191`."""
    grpc_api_advertise_address: str | None
    """What clients dial, `host:port`; None when no advertise host is configured."""

    @property
    def name(self) -> str:
        return str(self.node_id)


class LogId(NamedTuple):
    """Position of a log entry: its term, its index, and the leader of that term."""

    term: int = 0
    index: int = 0  # type: ignore[assignment]  # the field's standard name hides tuple.index
    node_id: int = 0

    def __str__(self) -> str:
        return f"T{self.term}-N{self.node_id}.{self.index}"


ZERO_LOG_ID = LogId()


class KVMeta(NamedTuple):
    """Metadata of a stored record."""

    expire_at: int | None = None
    """Absolute expiry as given: seconds, or milliseconds when above 1e11 (docs/contract/grpc.md section d.4)."""
    proposed_at_ms: int | None = None
    """Log time of the write."""


class SeqV(NamedTuple):
    """A stored record: sequence number, bytes, metadata."""

    seq: int
    data: bytes
    meta: KVMeta | None = None


class WriteLimits(NamedTuple):
    """What the cluster as a whole does not take; replicated, so that every node decides the same at the same entry."""

    read_only: str | None = None
    """Why no write is taken, as the operator said, perhaps nothing; None while writes are taken."""
    read_only_since_ms: int = 0
    """Log time at which that was turned on."""
    quota_bytes: int = 0
    """What keys and values may take together; 0 is no quota."""


NO_LIMITS = WriteLimits()


class Member(NamedTuple):
    """A node inside a `Membership`: how peers reach it and which data directory it had."""

    endpoint: Endpoint
    incarnation: str
    """Random id of the member's data directory; a wiped node has another one and must join anew."""


@dataclass(frozen=True, slots=True)
class Membership:
    """Who votes and who only learns; effective as soon as it is in the log."""

    voters: Mapping[int, Member] = field(default_factory=dict)
    learners: Mapping[int, Member] = field(default_factory=dict)

    def member(self, node_id: int) -> Member | None:
        return self.voters.get(node_id) or self.learners.get(node_id)

    def __contains__(self, node_id: int) -> bool:
        return node_id in self.voters or node_id in self.learners

    @property
    def majority(self) -> int:
        return len(self.voters) // 2 + 1

    def __str__(self) -> str:
        return f"voters={sorted(self.voters)} learners={sorted(self.learners)}"


class RaftState(StrEnum):
    """What a node is, in the words of the status routes."""

    LEADER = "Leader"
    FOLLOWER = "Follower"
    CANDIDATE = "Candidate"
    LEARNER = "Learner"
    SHUTDOWN = "Shutdown"


class PeerProgress(NamedTuple):
    """How far a peer is, as the leader knows it, and the state of the connection to it, on any node."""

    node_id: int
    match_log_id: LogId | None
    """None off the leader, and while the peer has acknowledged nothing in this leader's term."""
    last_contact_ms: int | None
    """Since the last message from the peer; None when there was none."""
    connected: bool
    other_cluster: str | None = None
    """The cluster that answers at the peer's address instead of this one."""
    clock_offset_ms: int | None = None
    """The peer's wall clock less this node's; None while it is not measured."""
    learner_for_ms: int | None = None
    """How long this node has known it as a learner, with its present directory; None for a voter."""
    caught_up: bool | None = None
    """Whether this learner has had nearly all of the log at any time since this node leads; None off the leader."""


class RaftLogStatus(NamedTuple):
    """Size of the raft log on disk and in memory: `raft_log` of docs/contract/admin-api.md section 1.3."""

    cache_items: int
    cache_used_size: int
    wal_total_size: int
    wal_open_chunk_size: int
    wal_offset: int
    wal_closed_chunk_count: int
    wal_closed_chunk_total_size: int
    wal_closed_chunk_sizes: Mapping[str, int]


class SnapshotStatus(NamedTuple):
    """The newest snapshot, and whether one is being written or received."""

    last_log_id: LogId | None
    key_count: int
    """Primary keys."""
    expire_count: int
    """Keys that carry an expiry."""
    size_bytes: int
    """Size of the newest snapshot file; 0 without one."""
    building: bool
    """A snapshot file is being written."""
    installing: bool
    """A snapshot from the leader is being received or checked."""
    path: str | None = None
    """The newest snapshot file that this node wrote or found to be sound."""
    files_size_bytes: int = 0
    """All snapshot files, and those that are being written or received."""


class CompactionStatus(NamedTuple):
    """How far a compaction is that an operator asked for."""

    step: Literal["snapshot", "log", "space", "done"]
    entries_purged: int
    """Log entries."""
    sizes_before: Mapping[str, int]
    """Bytes of each kind of file (`RaftStatus.file_sizes_bytes`) when it began."""
    sizes_after: Mapping[str, int]
    """The same when it ended; as before until then."""
    error: str | None = None
    """Why it ended early."""


@dataclass(frozen=True, slots=True)
class RaftStatus:
    """Everything a status answer needs, taken between two steps of the engine (invariant 8)."""

    node_id: int
    cluster_id: str | None
    state: RaftState
    term: int
    leader_id: int | None
    last_log_id: LogId
    commit_index: int
    last_applied: LogId
    purged: LogId | None
    membership: Membership
    membership_committed: bool
    nodes: Mapping[int, Node]
    """Registered nodes by id, ascending, from local applied state."""
    replication: Mapping[int, LogId | None] | None
    """Match positions of all members, the leader itself included; None off the leader."""
    peers: tuple[PeerProgress, ...]
    leader_contact_ms: int | None
    """Since the leader was last heard; 0 on the leader while it has a quorum; None without one."""
    has_quorum: bool
    """Whether a majority of voters is in contact within one election timeout."""
    contact_bound_ms: int
    """A member that was not heard for longer is not reached (`model/reach.py`)."""
    proposals_pending: int
    proposals_failed: int
    leader_changes: int
    last_seq: int
    raft_log: RaftLogStatus
    state_size_bytes: int
    """Database and write-ahead log together."""
    state_log_size_bytes: int
    """The write-ahead log alone."""
    snapshot: SnapshotStatus
    fatal: str | None
    """The sentence with which the engine stopped, if it did."""
    clock_offset_ms: int | None = None
    """This node's wall clock less that of the majority of voters that agree; None while none is known to agree."""
    log_time_ahead_ms: int = 0
    """How far the log's time, as this node knows it, is ahead of this node's wall clock."""
    disk_stall: str | None = None
    """The sentence that says what waits for the disk, while it does not answer."""
    disk_stalled_seconds: float = 0.0
    removed: str | None = None
    """Why this node is no longer a member of its cluster; None while it is one, or may become one."""
    limits: WriteLimits = NO_LIMITS
    data_size_bytes: int = 0
    """All keys and values, as the state counts them: the same on every node that has applied the same entries."""
    key_count: int = 0
    """Keys in the applied state."""
    writes_refused: int = 0
    """Writes that `limits` refused, of those that this node has applied since it started."""
    drained: bool = False
    """An operator drained this node: it hands leadership over and stands for no election, until it restarts."""
    compaction: CompactionStatus | None = None
    """The last one that was asked for; None when there was none since the start."""

    @property
    def is_leader(self) -> bool:
        return self.state is RaftState.LEADER

    @property
    def leader(self) -> Node | None:
        return None if self.leader_id is None else self.nodes.get(self.leader_id)

    @property
    def db_size_bytes(self) -> int:
        """Log and state on disk: the seed's `db_size`."""
        return self.raft_log.wal_total_size + self.state_size_bytes

    def file_sizes_bytes(self) -> dict[str, int]:
        """Each kind of file on disk; all but the snapshots are what `db_size` adds up."""
        log = self.raft_log
        return {
            "state_database": self.state_size_bytes - self.state_log_size_bytes,
            "state_write_ahead_log": self.state_log_size_bytes,
            "raft_log_database": log.wal_closed_chunk_total_size,
            "raft_log_write_ahead_log": log.wal_open_chunk_size,
            "snapshots": self.snapshot.files_size_bytes,
        }

    def registered_or_member(self, node_id: int, member: Member) -> Node:
        """The registered node, or what the membership says about a node that is not registered yet."""
        return self.nodes.get(node_id) or Node(node_id, member.endpoint, "", None)

    def voter_nodes(self) -> list[Node]:
        voters = self.membership.voters
        return [self.registered_or_member(node_id, voters[node_id]) for node_id in sorted(voters)]

    def learner_nodes(self) -> list[Node]:
        learners = self.membership.learners
        return [self.registered_or_member(node_id, learners[node_id]) for node_id in sorted(learners)]

"""The JSON shapes as models, for the API's description only; `views.py` makes them.

A test compares the two: every view must be valid here, and neither may lack a field. Used when the API is described.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from metasrv.process.log_levels import SECONDS_DEFAULT


class Schema(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class HealthSchema(Schema):
    status: Literal["pass"]


class EndpointSchema(Schema):
    addr: str
    port: int = Field(ge=0, le=65535)


class NodeSchema(Schema):
    name: str = Field(description="Node id in decimal.")
    endpoint: EndpointSchema = Field(description="Raft advertise address.")
    grpc_api_addr: str = Field(description="Client listen address.")
    grpc_api_advertise_address: str | None = Field(description="What clients dial; null without an advertise host.")


class LeaderIdSchema(Schema):
    term: int
    node_id: int


class LogIdSchema(Schema):
    term: int
    index: int
    leader_id: LeaderIdSchema


class RaftLogSchema(Schema):
    cache_items: int
    cache_used_size: int
    wal_total_size: int
    wal_open_chunk_size: int
    wal_offset: int
    wal_closed_chunk_count: int
    wal_closed_chunk_total_size: int
    wal_closed_chunk_sizes: dict[str, int]


class PeerSchema(Schema):
    id: int
    connected: bool
    other_cluster: str | None = Field(description="The cluster that answers at the peer's address instead of this one.")
    clock_offset_ms: int | None = Field(description="Its wall clock less this node's; null while not measured.")
    last_contact_ms: int | None = Field(description="Milliseconds since the last message from the peer.")
    learner_for_ms: int | None = Field(
        description="Milliseconds since this node knows it as a learner; null for a voter."
    )
    caught_up: bool | None = Field(description="Of a learner, whether it ever had nearly all entries; leader only.")
    match: LogIdSchema | None = Field(description="Last entry it acknowledged; leader only.")
    lag: int | None = Field(
        description="Entries it has not acknowledged; leader only, null until it has told this leader."
    )


class FileSizesSchema(Schema):
    state_database: int = Field(description="The applied key-value state.")
    state_write_ahead_log: int = Field(description="What of it is not yet moved into the database.")
    raft_log_database: int
    raft_log_write_ahead_log: int
    snapshots: int = Field(description="All snapshot files, and one on its way; not part of db_size.")


class CopiesSchema(Schema):
    damage: str | None = Field(description="What is wrong with this node's own copy of the state.")
    serves: bool = Field(description="False while the copy is damaged and another voter has a good one.")
    differing: dict[str, str] = Field(description="Nodes whose copy is another one, or damaged, with what was found.")
    compared_seconds_ago: float | None = Field(description="Since the copies were compared with another node's.")
    scrubbed_seconds_ago: float | None = Field(description="Since the last complete look at the state file ended.")


class BackupSchema(Schema):
    place: str = Field(description="Where the archives go.")
    running: bool
    attempts: int = Field(description="Attempts of this node that have ended since it started.")
    last_saved_at_ms: int | None = Field(
        description="When the cluster's newest good backup was made, as the leader knows."
    )
    age_seconds: float | None = Field(description="The time since then.")
    last_size_bytes: int | None
    last_duration_seconds: float | None = Field(description="Of the last one that this node made.")
    failure: str | None = Field(description="Why the newest attempt failed.")


class ReadOnlySchema(Schema):
    reason: str = Field(description="As the operator gave it; may be empty.")
    since_ms: int = Field(description="Log time at which it was turned on.")


class CompactionSchema(Schema):
    running: bool
    step: Literal["snapshot", "log", "space", "done"]
    entries_purged: int = Field(description="Log entries.")
    sizes_before: dict[str, int] = Field(description="Bytes of each kind of file when it began, as file_sizes.")
    sizes_after: dict[str, int] = Field(description="The same when it ended; as before until then.")
    error: str | None = Field(description="Why it ended early.")


class StatusSchema(Schema):
    id: int
    endpoint: str = Field(description="Raft advertise address, `host:port`.")
    db_size: int = Field(description="Bytes of log and state on disk; file_sizes says of what.")
    state: Literal["Leader", "Follower", "Candidate", "Learner", "Shutdown"]
    is_leader: bool
    current_term: int
    last_log_index: int
    last_applied: LogIdSchema
    leader: NodeSchema | None
    voters: list[NodeSchema]
    non_voters: list[NodeSchema] = Field(description="Learners.")
    last_seq: int = Field(description="Last sequence number given out.")
    binary_version: str
    data_version: str
    raft_log_size: int
    raft_log: RaftLogSchema
    key_num: int = Field(description="Former name of snapshot_key_count.")
    snapshot_key_count: int = Field(description="Keys of the last snapshot, the expire index included.")
    snapshot_key_space_stat: dict[str, int] | None = Field(
        default=None, description="Keys of the last snapshot by kind; left out while empty."
    )
    snapshot_last_log_id: LogIdSchema | None
    purged: LogIdSchema | None
    replication: dict[str, LogIdSchema | None] | None = Field(description="Acknowledged by node id; leader only.")
    cluster_name: str
    cluster_id: str | None
    commit_index: int
    has_quorum: bool
    failure_tolerance: int | None = Field(
        description="Voters that may still fail, of those heard and nearly level; null off the leader."
    )
    leader_contact_ms: int | None
    membership_committed: bool
    proposals_pending: int
    peers: list[PeerSchema]
    clock_offset_ms: int | None = Field(description="This node's wall clock less that of the majority; null if unknown.")
    log_time_ahead_ms: int = Field(description="How far the log's time is ahead of this node's wall clock.")
    file_sizes: FileSizesSchema = Field(description="Bytes of each kind of file: what is data, what is log.")
    key_count: int
    expire_count: int
    data_size_bytes: int = Field(description="All keys and values: what the quota is compared with.")
    quota_bytes: int | None = Field(description="What they may take; null without a quota.")
    read_only: ReadOnlySchema | None = Field(description="Why the cluster takes no writes; null while it does.")
    writes_refused: int = Field(description="Writes that read-only or the quota kept out, since this node started.")
    watchers: int
    started_at_ms: int
    joined: bool
    waiting_for: str | None = Field(description="What a node that does not yet serve waits for, and for whom.")
    draining: bool
    drained: bool = Field(description="An operator drained this node: it leads no more, and is not ready.")
    removed: str | None = Field(description="Why this node is no longer a member of its cluster.")
    copies: CopiesSchema = Field(description="Whether the copies of the state are the same.")
    backup: BackupSchema | None = Field(
        description="Backups that the leader makes by itself; null if none are configured."
    )
    compaction: CompactionSchema | None = Field(description="The last compaction that was asked for.")
    fatal: str | None


class LimitsSchema(Schema):
    read_only: bool
    reason: str | None = Field(description="Null while writes are taken.")
    quota_bytes: int | None = Field(description="Null without a quota.")


class DrainSchema(Schema):
    id: int
    drained: bool


class TransferSchema(Schema):
    model_config = ConfigDict(extra="forbid", strict=True, populate_by_name=True)

    from_id: int = Field(alias="from")
    to: int
    voter_ids: list[int]


class ArchiveSchema(Schema):
    name: str
    saved_at_ms: int = Field(description="Wall clock of the node that made it.")
    log_index: int = Field(description="The last log entry that it has.")
    size_bytes: int


class BackupListSchema(Schema):
    place: str
    archives: list[ArchiveSchema] = Field(description="Those of this cluster, the oldest first.")


class BackupAskedSchema(Schema):
    attempt: int = Field(description="`backup.attempts` of the status once it has ended.")


class FeaturesSchema(Schema):
    features: list[str] = Field(description="Every known feature.")
    enabled: list[str] = Field(description="Those that are on, sorted.")


class GrantSchema(Schema):
    right: str = Field(description="`read`, or `write`, which includes it.")
    prefix: str = Field(description="Every key that starts with it; empty: all keys.")


class UserSchema(Schema):
    name: str
    has_password: bool = Field(description="Without one the user logs in by a client certificate only.")
    grants: list[GrantSchema]


class UsersSchema(Schema):
    users: list[UserSchema]


class UserChangeSchema(Schema):
    change: str = Field(description="`add`, `remove`, `set-password`, `grant`, `revoke`, `end-tokens` or `rotate-key`.")
    name: str = Field(default="", description="The user; not for `rotate-key`.")
    password_hash: str = Field(default="", description="As `metactl hash-password` prints it.")
    right: str = Field(default="", description="`read` or `write`, for `grant`.")
    prefix: str = Field(default="", description="For `grant` and `revoke`.")


class MemberSchema(Schema):
    id: int
    role: Literal["leader", "voter", "learner"]
    votes: bool
    raft_address: str
    grpc_address: str | None = Field(description="What clients dial; null for a node that has not registered.")
    admin_address: str | None = Field(description="Where its admin API is reached; null when it has none.")
    reachable: bool = Field(description="It answered this node's question.")
    error: str | None = Field(description="Why it did not answer, or not fully.")
    ready: bool | None = Field(description="What its `/readyz` says; null for one that does not answer.")
    not_ready: str | None = Field(description="Why it is not ready.")
    warnings: str | None = Field(description="What somebody should look at although it is ready.")
    version: str | None
    state: str | None
    term: int | None
    applied_index: int | None
    lag: int | None = Field(description="Entries of the leader's log that it has not applied; null while unknown.")
    last_contact_ms: int | None = Field(description="Since this node heard from it; null for this node itself.")
    learner_for_ms: int | None = Field(description="Milliseconds since this node knows it as a learner.")
    caught_up: bool | None = Field(description="Of a learner, whether it ever had nearly all entries; leader only.")
    clock_offset_ms: int | None = Field(description="Its wall clock less that of the majority.")
    certificates: dict[str, int] | None = Field(description="When each port's expires, in seconds since the epoch.")
    started_at_ms: int | None


class MembersSchema(Schema):
    cluster_id: str | None
    asked: int = Field(description="The node that answers.")
    leader: int | None
    voters: int
    answering: int = Field(description="Voters that answer.")
    majority: int
    failure_tolerance: int = Field(description="Voters that may still fail; below zero there are too few already.")
    failure_tolerance_text: str
    members: list[MemberSchema]


class MemberChangeSchema(Schema):
    id: int
    changed: str = Field(description="What changed.")
    failure_tolerance: int
    failure_tolerance_text: str
    next_step: str = Field(description="What to do next.")
    configuration: str | None = Field(description="The file with which the new node starts; null without a new node.")


class LoggerLevelSchema(Schema):
    logger: str = Field(description="`root` for everything that has no level of its own.")
    level: str = Field(description="The level now.")
    configured: str = Field(description="What it is without a change.")
    expires_at_ms: int | None = Field(description="When a change ends; null where nothing is changed.")


class LogLevelsSchema(Schema):
    levels: list[LoggerLevelSchema] = Field(description="Loggers with a level of their own.")
    loggers: list[str] = Field(description="Every logger whose level may be changed.")
    level_names: list[str] = Field(description="From the quietest to the one that says most.")
    seconds_default: int
    seconds_max: int


class LogLevelChangeSchema(Schema):
    logger: str = Field(description="One of `loggers`; those below it follow.")
    level: str = Field(description="One of `level_names`, in any case.")
    seconds: int = Field(default=SECONDS_DEFAULT, description="Then the level goes back by itself.")


class SlowWriteSchema(Schema):
    ended_at_ms: int
    milliseconds: float = Field(description="From the request's arrival to its answer.")
    size_bytes: int = Field(description="Of the request.")
    method: str = Field(description="`Transaction`, `KvTransaction`, `KvApi` or `Migrate`.")
    operations: int = Field(description="0 where that is not known.")
    keys: list[str] | None = Field(description="The first of them, shortened; null while keys are not shown.")
    failure: str | None = Field(description="Why it failed, in a word.")


class SlowWritesSchema(Schema):
    node_id: int
    minutes: int = Field(description="Of which writes are kept.")
    keys: str | None = Field(description="Why keys are not shown; null while they are.")
    slowest: list[SlowWriteSchema]
    largest: list[SlowWriteSchema]


class NewMemberSchema(Schema):
    id: int | None = Field(default=None, description="By default the next one that was never used, or the old node's.")
    raft_address: str | None = Field(default=None, description="Where the others reach it, `host:port`.")
    learner: bool = Field(default=False, description="It does not vote.")
    grpc_api_address: str | None = None
    admin_api_address: str | None = None
    raft_dir: str | None = None


class MinuteSchema(Schema):
    start_ms: int = Field(description="Wall clock.")
    looks: int = Field(description="How often this node looked at its threads.")
    busy_looks: int = Field(description="Of these, how often a thread was at work.")


class MinutesSchema(Schema):
    frequency_hertz: int = Field(description="Looks a second; 0 when it is off.")
    minutes: list[MinuteSchema]


class CaptureSchema(Schema):
    capture: str = Field(description="What `base` takes.")
    started_at_ms: int = Field(description="Wall clock.")
    seconds: int


class CapturesSchema(Schema):
    captures: list[CaptureSchema]

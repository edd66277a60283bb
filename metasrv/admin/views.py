"""The JSON shapes of the API: the legacy fields first and in their order, then the current ones, then metasrv's own.

One shape for two generations of readers: a node shows both of its client addresses, a log id shows the term flat and
nested, sizes stand under the old and the new name (docs/contract/admin-api.md sections 1.2 and 1.3). Pure
functions over one `RaftStatus`; must not know HTTP. `schemas.py` describes the same shapes for the API's description.
"""

from __future__ import annotations

from typing import Any

from metasrv.model.commands import KNOWN_FEATURES
from metasrv.model.reach import lag_entries, leaders_tolerance
from metasrv.model.types import (
    DATA_VERSION,
    CompactionStatus,
    Endpoint,
    LogId,
    Node,
    PeerProgress,
    RaftLogStatus,
    RaftStatus,
    WriteLimits,
)
from metasrv.node.context import NodeContext

View = dict[str, Any]


def node_view(node: Node) -> View:
    return {
        "name": node.name,
        "endpoint": {"addr": node.endpoint.addr, "port": node.endpoint.port},
        "grpc_api_addr": node.grpc_api_addr,
        "grpc_api_advertise_address": node.grpc_api_advertise_address,
    }


def nodes_view(status: RaftStatus) -> list[View]:
    """Every registered node, voters and learners, by ascending id."""
    return [node_view(status.nodes[node_id]) for node_id in sorted(status.nodes)]


def log_id_view(log_id: LogId) -> View:
    return {
        "term": log_id.term,
        "index": log_id.index,
        "leader_id": {"term": log_id.term, "node_id": log_id.node_id},
    }


def optional_log_id_view(log_id: LogId | None) -> View | None:
    return None if log_id is None else log_id_view(log_id)


def features_view(enabled: tuple[str, ...]) -> View:
    return {"features": list(KNOWN_FEATURES), "enabled": sorted(enabled)}


def status_view(context: NodeContext) -> View:
    """The status of this node at this instant."""
    status = context.consensus.status()
    return {
        **_legacy_fields(context, status),
        **_current_fields(context, status),
        **_own_fields(context, status),
    }


def _legacy_fields(context: NodeContext, status: RaftStatus) -> View:
    return {
        "id": status.node_id,
        "endpoint": str(raft_endpoint(context)),
        "db_size": status.db_size_bytes,
        "state": status.state.value,
        "is_leader": status.is_leader,
        "current_term": status.term,
        "last_log_index": status.last_log_id.index,
        "last_applied": log_id_view(status.last_applied),
        "leader": None if status.leader is None else node_view(status.leader),
        "voters": [node_view(node) for node in status.voter_nodes()],
        "non_voters": [node_view(node) for node in status.learner_nodes()],
        "last_seq": status.last_seq,
    }


def _current_fields(context: NodeContext, status: RaftStatus) -> View:
    snapshot = status.snapshot
    key_count = snapshot.key_count + snapshot.expire_count
    fields: View = {
        "binary_version": context.binary_version,
        "data_version": DATA_VERSION,
        "raft_log_size": status.raft_log.wal_total_size,
        "raft_log": _raft_log_view(status.raft_log),
        "key_num": key_count,
        "snapshot_key_count": key_count,
    }
    if key_count:
        # Left out while it is empty, as Databend does.
        fields["snapshot_key_space_stat"] = {"exp-": snapshot.expire_count, "kv--": snapshot.key_count}
    replication = status.replication
    return {
        **fields,
        "snapshot_last_log_id": optional_log_id_view(snapshot.last_log_id),
        "purged": optional_log_id_view(status.purged),
        "replication": None
        if replication is None
        else {str(node_id): optional_log_id_view(replication[node_id]) for node_id in sorted(replication)},
    }


def _own_fields(context: NodeContext, status: RaftStatus) -> View:
    return {
        "cluster_name": context.config.raft_config.cluster_name,
        "cluster_id": status.cluster_id,
        "commit_index": status.commit_index,
        "has_quorum": status.has_quorum,
        "failure_tolerance": leaders_tolerance(status),
        "leader_contact_ms": status.leader_contact_ms,
        "membership_committed": status.membership_committed,
        "proposals_pending": status.proposals_pending,
        "peers": [_peer_view(peer, status) for peer in status.peers],
        "clock_offset_ms": status.clock_offset_ms,
        "log_time_ahead_ms": status.log_time_ahead_ms,
        "file_sizes": status.file_sizes_bytes(),
        "key_count": context.machine.key_count,
        "expire_count": context.machine.expire_count,
        "data_size_bytes": status.data_size_bytes,
        "quota_bytes": status.limits.quota_bytes or None,
        "read_only": _read_only_view(status.limits),
        "writes_refused": status.writes_refused,
        "watchers": context.watchers,
        "started_at_ms": context.started_at_ms,
        "joined": context.joined,
        "waiting_for": context.waiting_for or None,
        "draining": context.draining,
        "drained": status.drained,
        "removed": status.removed,
        "copies": _copies_view(context),
        "backup": _backup_view(context),
        "compaction": compaction_view(status.compaction),
        "fatal": status.fatal,
    }


def limits_view(read_only: str | None, quota_bytes: int) -> View:
    """What the cluster refuses."""
    return {"read_only": read_only is not None, "reason": read_only, "quota_bytes": quota_bytes or None}


def _read_only_view(limits: WriteLimits) -> View | None:
    if limits.read_only is None:
        return None
    return {"reason": limits.read_only, "since_ms": limits.read_only_since_ms}


def compaction_view(compaction: CompactionStatus | None) -> View | None:
    """How far it is."""
    if compaction is None:
        return None
    return {
        "running": compaction.step != "done",
        "step": compaction.step,
        "entries_purged": compaction.entries_purged,
        "sizes_before": dict(compaction.sizes_before),
        "sizes_after": dict(compaction.sizes_after),
        "error": compaction.error,
    }


def _copies_view(context: NodeContext) -> View:
    copies, now = context.copies, context.clock.monotonic()
    return {
        "damage": copies.damage or None,
        "serves": copies.serves,
        "differing": {str(node_id): copies.peers[node_id] for node_id in sorted(copies.peers)},
        "compared_seconds_ago": None if copies.compared_at is None else round(now - copies.compared_at, 1),
        "scrubbed_seconds_ago": None if copies.scrubbed_at is None else round(now - copies.scrubbed_at, 1),
    }


def _backup_view(context: NodeContext) -> View | None:
    if context.backups is None:
        return None
    standing, last_ms = context.backups.standing, context.backups.standing.last_saved_at_ms
    return {
        "place": context.backups.place,
        "running": standing.running,
        "attempts": standing.attempts,
        "last_saved_at_ms": last_ms,
        "age_seconds": None if last_ms is None else round((context.clock.wall_ms() - last_ms) / 1000, 1),
        "last_size_bytes": standing.last_size_bytes,
        "last_duration_seconds": standing.last_duration_seconds,
        "failure": standing.failure or None,
    }


def _peer_view(peer: PeerProgress, status: RaftStatus) -> View:
    return {
        "id": peer.node_id,
        "connected": peer.connected,
        "other_cluster": peer.other_cluster,
        "clock_offset_ms": peer.clock_offset_ms,
        "last_contact_ms": peer.last_contact_ms,
        "learner_for_ms": peer.learner_for_ms,
        "caught_up": peer.caught_up,
        "match": optional_log_id_view(peer.match_log_id),
        "lag": lag_entries(peer, status),
    }


def _raft_log_view(log: RaftLogStatus) -> View:
    return {
        "cache_items": log.cache_items,
        "cache_used_size": log.cache_used_size,
        "wal_total_size": log.wal_total_size,
        "wal_open_chunk_size": log.wal_open_chunk_size,
        "wal_offset": log.wal_offset,
        "wal_closed_chunk_count": log.wal_closed_chunk_count,
        "wal_closed_chunk_total_size": log.wal_closed_chunk_total_size,
        "wal_closed_chunk_sizes": dict(log.wal_closed_chunk_sizes),
    }


def raft_endpoint(context: NodeContext) -> Endpoint:
    """Where peers reach this node: the configured host, never a stored one, and the bound port."""
    raft = context.config.raft_config
    bound = context.listeners.get("raft")
    return Endpoint(raft.raft_advertise_host, raft.raft_api_port if bound is None else bound.port)

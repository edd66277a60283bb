"""The texts that metactl prints, exactly as upstream's tool does (docs/contract/admin-api.md section 4).

Pure; prints nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from metasrv.client.answers import WatchEvent
from metasrv.grpc_api.kv_json import record_tree
from metasrv.model.types import KVMeta, SeqV
from metasrv.protocol.proto import meta_pb2 as pb
from metasrv.state.expiry import expire_ms_of

NONE = "None"


def status_lines(status: pb.ClusterStatus) -> Iterator[str]:
    """`metactl status`."""
    yield f"BinaryVersion: {status.binary_version}"
    yield f"DataVersion: {status.data_version}"
    yield f"RaftLogSize: {status.raft_log_size}"
    if status.HasField("raft_log_status"):
        yield from _raft_log_lines(status.raft_log_status)
    yield f"SnapshotKeyCount: {status.snapshot_key_count}"
    yield f"Node: id={status.id} raft={status.endpoint}"
    yield f"State: {status.state}"
    if status.HasField("leader"):
        yield f"Leader: {status.leader}"
    yield f"CurrentTerm: {status.current_term}"
    yield f"LastSeq: {status.last_seq}"
    yield f"LastLogIndex: {status.last_log_index}"
    yield f"LastApplied: {status.last_applied}"
    if status.HasField("snapshot_last_log_id"):
        yield f"SnapshotLastLogID: {status.snapshot_last_log_id}"
    if status.HasField("purged"):
        yield f"Purged: {status.purged}"
    if status.replication:
        yield "Replication:"
        for node_id in sorted(status.replication):
            log_id = status.replication[node_id]
            behind = "" if log_id == status.last_applied else " *"
            yield f"  - [{node_id}] {log_id}{behind}"
    for title, members in (("Voters:", status.voters), ("NonVoters:", status.non_voters)):
        if members:
            yield title
            yield from (f"  - {member}" for member in members)
    yield from _learner_lines(status)
    yield from _maintenance_lines(status)


def _maintenance_lines(status: pb.ClusterStatus) -> Iterator[str]:
    """Own: what an operator has turned on; nothing while there is nothing."""
    if status.HasField("read_only"):
        why = f": {status.read_only}" if status.read_only else ""
        yield f"ReadOnly: since {time_text(status.read_only_since_ms)}{why}"
    if status.quota_bytes:
        share = status.data_size_bytes / status.quota_bytes
        yield f"Quota: keys and values take {status.data_size_bytes} of {status.quota_bytes} bytes ({share:.0%})"
    if status.drained:
        yield f"Drained: node {status.id} leads no more and is not ready, until `metactl node drain {status.id} --off`"


def _learner_lines(status: pb.ClusterStatus) -> Iterator[str]:
    """Own: learners that never caught up, and how to remove them; a node that does not lead knows only their age."""
    waiting = [learner for learner in status.learners if learner.HasField("caught_up") and not learner.caught_up]
    if waiting:
        yield "WaitingLearners:"
        for learner in waiting:
            remedy = f"metasrv --leave-id {learner.id} --leave-via {status.endpoint}"
            yield f"  - [{learner.id}] {_learns_for(learner)} and never caught up; to remove it: {remedy}"
    unknown = [learner for learner in status.learners if not learner.HasField("caught_up")]
    if unknown:
        yield "Learners:"
        for learner in unknown:
            yield f"  - [{learner.id}] {_learns_for(learner)}; ask the leader whether it has caught up"


def _learns_for(learner: pb.LearnerStatus) -> str:
    return f"learns for {timedelta(seconds=learner.learner_for_ms // 1000)}"


def _raft_log_lines(log: pb.RaftLogStatus) -> Iterator[str]:
    yield "RaftLog:"
    yield f"  - CacheItems: {log.cache_items}"
    yield f"  - CacheUsedSize: {log.cache_used_size}"
    yield f"  - WALTotalSize: {log.wal_total_size}"
    yield f"  - WALOpenChunkSize: {log.wal_open_chunk_size}"
    yield f"  - WALOffset: {log.wal_offset}"
    yield f"  - WALClosedChunkCount: {log.wal_closed_chunk_count}"
    yield f"  - WALClosedChunkTotalSize: {log.wal_closed_chunk_total_size}"
    yield "  - WALClosedChunkSizes:"
    for chunk_id in sorted(log.wal_closed_chunk_sizes):
        yield f"    - {chunk_id}: {log.wal_closed_chunk_sizes[chunk_id]}"


def record_json(record: SeqV | None) -> str:
    """`metactl get`: null, or the record with its data as numbers."""
    return json.dumps(record_tree(record), separators=(",", ":"))


def pretty_json(value: Any) -> str:
    """JSON over several lines, indented by two."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def upsert_line(prev: SeqV | None, result: SeqV | None) -> str:
    """`metactl upsert`; the identity that upstream prints first is never set."""
    return f"upsert-result: {NONE}: {debug_record(prev)} -> {debug_record(result)}"


def debug_record(record: SeqV | None) -> str:
    """The debug form of an optional record; its data is not shown."""
    if record is None:
        return NONE
    return f'Some(SeqV {{ seq: {record.seq}, meta: {_debug_meta(record.meta)}, data: "[binary]" }})'


def _debug_meta(meta: KVMeta | None) -> str:
    if meta is None:
        return NONE
    return f"Some(KVMeta {{ expire_at: {_debug(meta.expire_at)}, proposed_at_ms: {_debug(meta.proposed_at_ms)} }})"


def _debug(value: int | None) -> str:
    return NONE if value is None else f"Some({value})"


def watch_line(event: WatchEvent) -> str:
    """`metactl watch`: existing records, the end mark, then changes."""
    if event.is_marker:
        return "received-watch-event: INIT:None"
    kind = "INIT" if event.is_initialization else "CHANGE"
    change = f"{display_record(event.prev)} -> {display_record(event.current)}"
    return f"received-watch-event: {kind}:({event.key}: {change})"


def display_record(record: SeqV | None) -> str:
    """`(seq=2 [] 'text')`; the brackets hold the expiry, if any."""
    if record is None:
        return NONE
    expiry = ""
    if record.meta is not None and record.meta.expire_at is not None:
        expiry = f"expire={time_text(record.meta.expire_at)}"
    text = record.data.decode("utf-8", "backslashreplace")
    return f"(seq={record.seq} [{expiry}] '{text}')"


def time_text(expire_at: int) -> str:
    """An expiry, in seconds or milliseconds, as UTC time; the bare number if it is beyond the calendar."""
    try:
        moment = datetime.fromtimestamp(expire_ms_of(expire_at) / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return str(expire_at)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")

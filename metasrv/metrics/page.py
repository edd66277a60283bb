"""The Databend families of the metrics page, in both naming generations (docs/contract/admin-api.md sections 2.2 to 2.5).

The families of the legacy sample come first, in its order and under its bare names; the current names follow. A counter
that has a legacy name stands here twice, bare and with `_total`. Every value is real, and those about the state come
from one `RaftStatus`. Pure functions over counters and a status; must not know who counts or who asks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

from metasrv.metrics.counters import ClientCounters, PeerCounters, WorkCounters
from metasrv.metrics.counting import Histogram
from metasrv.metrics.exposition import Family, Labels, counter, gauge, histogram, labelled, summary
from metasrv.model.types import RaftState, RaftStatus

SERVER = "metasrv_server_"
CLIENT = "metasrv_meta_network_"
NETWORK = "metasrv_raft_network_"
STORAGE = "metasrv_raft_storage_"

SNAPSHOT_PAGE_SIZE_BYTES = 4096
"""SQLite's page size; the state file keeps the default."""
QUANTILES = (0.0, 0.5, 0.9, 0.95, 0.99, 0.999, 1.0)
QUANTILE_NAMES = ("0", "0.5", "0.9", "0.95", "0.99", "0.999", "1")

Value = TypeVar("Value", int, Histogram)


def legacy_families(client: ClientCounters, status: RaftStatus) -> Iterator[Family]:
    """Exactly the families of the legacy sample, in its order."""
    yield counter(f"{CLIENT}recv_bytes", "Bytes received from clients.", client.received_bytes)
    yield counter(f"{SERVER}leader_changes", "Leader changes seen by this node.", status.leader_changes)
    yield counter(f"{CLIENT}req_success", "Client requests that succeeded.", client.succeeded)
    yield counter(f"{CLIENT}sent_bytes", "Bytes sent to clients.", client.sent_bytes)
    healthy = status.state in (RaftState.FOLLOWER, RaftState.LEADER)
    yield gauge(f"{SERVER}node_is_health", "1 while this node is a follower or the leader.", int(healthy))
    yield gauge(f"{SERVER}is_leader", "1 while this node is the leader.", int(status.is_leader))
    yield gauge(f"{SERVER}proposals_applied", "Index of the last applied log entry.", status.last_applied.index)
    yield gauge(f"{SERVER}last_seq", "Last sequence number given out.", status.last_seq)
    yield gauge(f"{SERVER}current_term", "Current term.", status.term)
    yield gauge(f"{CLIENT}req_inflights", "Client requests in progress.", client.in_flight)
    yield gauge(f"{SERVER}proposals_pending", "Proposals not yet answered.", status.proposals_pending)
    yield gauge(f"{SERVER}last_log_index", "Index of the last log entry.", status.last_log_id.index)
    yield gauge(f"{SERVER}current_leader_id", "Id of the known leader, 0 without one.", status.leader_id or 0)
    values = client.delay_window.quantiles(QUANTILES)
    quantiles = dict(zip(QUANTILE_NAMES, values, strict=True))
    yield summary(
        f"{CLIENT}rpc_delay_seconds",
        "Delay of client requests; quantiles of the most recent ones.",
        quantiles,
        client.delay_seconds_sum,
        client.succeeded + client.failed,
    )


def server_families(
    client: ClientCounters, status: RaftStatus, watchers: int, binary_version: str, commit: str
) -> Iterator[Family]:
    """Subsystem `server`, without the legacy families."""
    yield counter(f"{SERVER}leader_changes_total", "Leader changes seen by this node.", status.leader_changes)
    yield gauge(f"{SERVER}has_leader", "1 while a leader is known.", int(status.leader_id is not None))
    yield gauge(f"{SERVER}applying_snapshot", "Snapshots being installed.", int(status.snapshot.installing))
    yield from _counters(f"{SERVER}proposals_failed", "Proposals that failed.", status.proposals_failed)
    yield from _counters(f"{SERVER}read_failed", "Client reads that failed.", client.reads_failed)
    yield gauge(f"{SERVER}watchers", "Watch streams.", watchers)
    version: Labels = (("component", "metasrv"), ("semver", binary_version), ("sha", commit))
    yield labelled(f"{SERVER}version", "gauge", "Version of this build.", {version: 1})
    yield from _snapshot_families(status)
    yield from _raft_log_families(status)


def _snapshot_families(status: RaftStatus) -> Iterator[Family]:
    snapshot = status.snapshot
    keys = snapshot.key_count + snapshot.expire_count
    yield gauge(f"{SERVER}snapshot_key_count", "Keys in the last snapshot, the expire index included.", keys)
    yield gauge(f"{SERVER}snapshot_key_num", "The former name of snapshot_key_count.", keys)
    yield gauge(f"{SERVER}snapshot_primary_index_count", "Primary keys in the last snapshot.", snapshot.key_count)
    expiring = snapshot.expire_count
    yield gauge(f"{SERVER}snapshot_expire_index_count", "Keys in the last snapshot that expire.", expiring)
    yield gauge(f"{SERVER}snapshot_data_size", "Bytes of the last snapshot file.", snapshot.size_bytes)
    # A snapshot file is a database: its blocks are pages, its index is part of them, and nothing is served from it.
    blocks = snapshot.size_bytes // SNAPSHOT_PAGE_SIZE_BYTES
    block_size = snapshot.size_bytes // blocks if blocks else 0
    keys_per_block = round(keys / blocks) if blocks else 0
    yield gauge(f"{SERVER}snapshot_block_count", "Pages of the last snapshot file.", blocks)
    yield gauge(f"{SERVER}snapshot_index_size", "Bytes of a separate index; the file has none.", 0)
    yield gauge(f"{SERVER}snapshot_avg_block_size", "Average bytes per page of the last snapshot file.", block_size)
    yield gauge(f"{SERVER}snapshot_avg_keys_per_block", "Average keys per page of a snapshot file.", keys_per_block)
    yield gauge(f"{SERVER}snapshot_read_block", "Pages read from snapshot files; reads use the state.", 0)
    yield gauge(f"{SERVER}snapshot_read_block_from_cache", "Pages found in memory; see snapshot_read_block.", 0)
    yield gauge(f"{SERVER}snapshot_read_block_from_disk", "Pages read from disk; see snapshot_read_block.", 0)


def _raft_log_families(status: RaftStatus) -> Iterator[Family]:
    log = status.raft_log
    yield gauge(f"{SERVER}raft_log_size", "Bytes of the raft log on disk.", log.wal_total_size)
    yield gauge(f"{SERVER}db_size", "Bytes of log and state on disk.", status.db_size_bytes)
    yield gauge(f"{SERVER}raft_log_cache_items", "Log entries in memory.", log.cache_items)
    yield gauge(f"{SERVER}raft_log_cache_used_size", "Bytes of the log entries in memory.", log.cache_used_size)
    yield gauge(f"{SERVER}raft_log_wal_open_chunk_size", "Bytes of the open log chunk.", log.wal_open_chunk_size)
    yield gauge(
        f"{SERVER}raft_log_wal_offset", "Bytes written to the log; only grows while the node runs.", log.wal_offset
    )
    yield gauge(f"{SERVER}raft_log_wal_closed_chunk_count", "Closed log chunks.", log.wal_closed_chunk_count)
    closed_bytes = log.wal_closed_chunk_total_size
    yield gauge(f"{SERVER}raft_log_wal_closed_chunk_total_size", "Bytes of the closed log chunks.", closed_bytes)


def network_families(peers: PeerCounters, work: WorkCounters, status: RaftStatus) -> Iterator[Family]:
    """Subsystems `raft_network` and `raft_storage`; a labelled family appears with its first label."""
    active, failed = _by_peer(peers.active.values), _by_peer(peers.connect_failed.values)
    yield labelled(f"{NETWORK}active_peers", "gauge", "Open connections to a peer.", active)
    yield labelled(f"{NETWORK}fail_connect_to_peer", "gauge", "Failed connections to a peer; only grows.", failed)
    for name, help_text, label, values in (
        ("sent_bytes", "Bytes sent to a peer.", "to", peers.sent_bytes.values),
        ("recv_bytes", "Bytes received from a peer.", "from", peers.received_bytes.values),
        ("sent_failures", "Messages that could not be sent.", "to", peers.send_failed.values),
        ("snapshot_send_success", "Snapshots sent.", "to", peers.snapshot_sent.values),
        ("snapshot_send_failure", "Snapshots that could not be sent.", "to", peers.snapshot_send_failed.values),
        ("snapshot_send_failures", "The former name of snapshot_send_failure.", "to", peers.snapshot_send_failed.values),
        ("snapshot_recv_success", "Snapshots received.", "from", peers.snapshot_received.values),
        ("snapshot_recv_failures", "Snapshots not received completely.", "from", peers.snapshot_receive_failed.values),
    ):
        yield from _labelled_counters(f"{NETWORK}{name}", help_text, label, values)
    sending, receiving = _by(peers.snapshot_sending.values, "to"), _by(peers.snapshot_receiving.values, "from")
    yield labelled(f"{NETWORK}snapshot_send_inflights", "gauge", "Snapshots being sent.", sending)
    yield labelled(f"{NETWORK}snapshot_recv_inflights", "gauge", "Snapshots being received.", receiving)
    for name, help_text, label, histograms in (
        ("append_sent_seconds", "Time from sending entries to their acknowledgement.", "to", peers.append_seconds),
        ("snapshot_sent_seconds", "Duration of sending a snapshot.", "to", peers.snapshot_sent_seconds),
        ("snapshot_recv_seconds", "Duration of receiving a snapshot.", "from", peers.snapshot_received_seconds),
    ):
        yield histogram(f"{NETWORK}{name}", help_text, _by(histograms.histograms, label))
    yield from _storage_families(work, status)


def _storage_families(work: WorkCounters, status: RaftStatus) -> Iterator[Family]:
    writes, reads = work.store_write_failed.values, work.store_read_failed.values
    yield from _labelled_counters(f"{STORAGE}raft_store_write_failed", "Failed writes to storage.", "func", writes)
    yield from _labelled_counters(f"{STORAGE}raft_store_read_failed", "Failed reads from storage.", "func", reads)
    building = int(status.snapshot.building)
    yield gauge(f"{STORAGE}snapshot_building", "1 while a snapshot file is being written.", building)
    written = work.snapshot_written_entries
    yield counter(f"{STORAGE}snapshot_written_entries_total", "Entries written to snapshot files.", written)


def client_families(client: ClientCounters) -> Iterator[Family]:
    """Subsystem `meta_network`, without the legacy families."""
    yield counter(f"{CLIENT}sent_bytes_total", "Bytes sent to clients.", client.sent_bytes)
    yield counter(f"{CLIENT}recv_bytes_total", "Bytes received from clients.", client.received_bytes)
    yield counter(f"{CLIENT}req_success_total", "Client requests that succeeded.", client.succeeded)
    yield from _counters(f"{CLIENT}req_failed", "Client requests that failed.", client.failed)
    yield gauge(f"{CLIENT}inflights", "The documented name of req_inflights.", client.in_flight)
    reads, writes = client.delay_ms("read"), client.delay_ms("write")
    everything = reads.plus(writes, client.delay_ms("other"))
    yield histogram(f"{CLIENT}rpc_delay_ms", "Delay of client requests in milliseconds.", {(): everything})
    yield histogram(f"{CLIENT}rpc_delay_read_ms", "Delay of client reads in milliseconds.", {(): reads})
    yield histogram(f"{CLIENT}rpc_delay_write_ms", "Delay of client writes in milliseconds.", {(): writes})
    for name, help_text, value in (
        ("watch_initialization_total", "Existing items sent to watchers.", client.watch_initialization),
        ("watch_change_total", "Changes sent to watchers.", client.watch_change),
        ("stream_get_item_sent_total", "Items sent in streams of a single get.", client.stream_items["get"]),
        ("stream_mget_item_sent_total", "Items sent in streams of many gets.", client.stream_items["mget"]),
        ("stream_list_item_sent_total", "Items sent in streams of lists.", client.stream_items["list"]),
    ):
        yield counter(f"{CLIENT}{name}", help_text, value)


# ----------------------------------------------------------------------------- helpers


def _counters(name: str, help_text: str, value: float) -> Iterable[Family]:
    """One counter under its legacy bare name and its current name."""
    return counter(name, help_text, value), counter(f"{name}_total", help_text, value)


def _labelled_counters(name: str, help_text: str, label: str, values: Mapping[str, int]) -> Iterable[Family]:
    by_label = _by(values, label)
    return (
        labelled(name, "counter", help_text, by_label),
        labelled(f"{name}_total", "counter", help_text, by_label),
    )


def _by(values: Mapping[str, Value], label: str) -> dict[Labels, Value]:
    return {((label, text),): value for text, value in values.items()}


def _by_peer(values: Mapping[tuple[str, str], int]) -> dict[Labels, int]:
    return {(("id", node_id), ("addr", address)): value for (node_id, address), value in values.items()}

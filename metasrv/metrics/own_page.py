"""metasrv's own families, which no Databend release has.

`metasrv_raft_*`, `metasrv_node_*`, `metasrv_cluster_*`, `metasrv_loop_*`, `metasrv_grpc_*`, `metasrv_healthcheck*` and
`metasrv_admin_*`, in base units. They answer what operators of such clusters ask for: disk latency, lag of each peer,
what holds the event loop, how many nodes may still fail, why a probe fails, what the cluster refuses. Pure functions over
counters and a status; must not know who counts or who asks.
"""

from __future__ import annotations

from collections.abc import Iterator

from metasrv.metrics.counters import ClientCounters, WorkCounters
from metasrv.metrics.exposition import Family, Labels, counter, gauge, histogram, labelled
from metasrv.model.limits import STEP_TIME_MS_MAX
from metasrv.model.reach import expects_contact, lag_entries, leaders_tolerance
from metasrv.model.types import LogId, RaftStatus

RAFT = "metasrv_raft_"
NODE = "metasrv_node_"
GRPC = "metasrv_grpc_"
LOOP = "metasrv_loop_"


def own_families(
    client: ClientCounters, work: WorkCounters, status: RaftStatus, binary_version: str, commit: str
) -> Iterator[Family]:
    yield from _raft_families(status)
    yield from _peer_families(status)
    yield from _copy_families(work, status)
    yield from _work_families(work)
    yield from _client_families(client)
    yield from _health_families(work)
    build: Labels = (("version", binary_version), ("commit", commit))
    yield labelled("metasrv_build_info", "gauge", "Version of this build.", {build: 1})
    yield gauge(f"{NODE}id", "Id of this node.", status.node_id)


def _raft_families(status: RaftStatus) -> Iterator[Family]:
    lag = max(0, status.commit_index - status.last_applied.index)
    yield gauge(f"{RAFT}commit_index", "Index of the last committed log entry.", status.commit_index)
    yield gauge(f"{RAFT}apply_lag_entries", "Committed entries not yet applied.", lag)
    stalled = "How long the disk has not answered, 0 while it does."
    yield gauge(f"{RAFT}disk_stalled_seconds", stalled, status.disk_stalled_seconds)
    yield gauge(f"{RAFT}has_quorum", "1 while a majority of voters is in contact.", int(status.has_quorum))
    yield gauge(f"{RAFT}voters", "Voters of the cluster.", len(status.membership.voters))
    yield gauge(f"{RAFT}learners", "Learners of the cluster.", len(status.membership.learners))
    tolerance = leaders_tolerance(status)
    if tolerance is not None:
        text = "Voters that may still fail, of those heard and nearly level; leader only."
        yield gauge(f"{RAFT}failure_tolerance_nodes", text, tolerance)
    if status.leader_contact_ms is not None:
        seconds = status.leader_contact_ms / 1000
        yield gauge(f"{RAFT}leader_contact_age_seconds", "Time since the leader was last heard.", seconds)
    yield gauge(f"{RAFT}purged_index", "Index of the last purged log entry.", (status.purged or LogId()).index)
    if status.clock_offset_ms is not None:
        text = "This node's wall clock less that of the majority of voters."
        yield gauge(f"{NODE}clock_offset_seconds", text, status.clock_offset_ms / 1000)
    text = "How far the log's time is ahead of this node's wall clock."
    yield gauge(f"{RAFT}log_time_ahead_seconds", text, status.log_time_ahead_ms / 1000)
    yield from _limit_families(status)
    yield gauge(f"{NODE}state_size_bytes", "Bytes of the state on disk.", status.state_size_bytes)
    sizes: dict[Labels, float] = {(("file", name),): size for name, size in status.file_sizes_bytes().items()}
    yield labelled(f"{NODE}file_size_bytes", "gauge", "Bytes of each kind of file on disk.", sizes)


def _limit_families(status: RaftStatus) -> Iterator[Family]:
    limits = status.limits
    text = "1 while the cluster takes no writes, because an operator said so."
    yield gauge("metasrv_cluster_read_only", text, int(limits.read_only is not None))
    yield gauge("metasrv_cluster_data_size_bytes", "All keys and values together.", status.data_size_bytes)
    text = "What they may take together, 0 without a quota."
    yield gauge("metasrv_cluster_quota_bytes", text, limits.quota_bytes)
    text = "Writes that read-only or the quota kept out, of those that this node applied."
    yield counter("metasrv_cluster_writes_refused_total", text, status.writes_refused)
    yield gauge(f"{NODE}drained", "1 while an operator has drained this node.", int(status.drained))


def _peer_families(status: RaftStatus) -> Iterator[Family]:
    connected: dict[Labels, float] = {}
    ages: dict[Labels, float] = {}
    lags: dict[Labels, float] = {}
    others: dict[Labels, float] = {}
    offsets: dict[Labels, float] = {}
    behind: dict[Labels, float] = {}
    for peer in status.peers:
        label: Labels = (("id", str(peer.node_id)),)
        connected[label] = int(peer.connected)
        others[label] = int(peer.other_cluster is not None)
        if peer.clock_offset_ms is not None:
            offsets[label] = peer.clock_offset_ms / 1000
        if peer.last_contact_ms is not None and expects_contact(peer, status):
            ages[label] = peer.last_contact_ms / 1000
        if peer.caught_up is False and peer.learner_for_ms is not None:
            behind[label] = peer.learner_for_ms / 1000
        lag = lag_entries(peer, status)
        if lag is not None:
            lags[label] = lag
    yield labelled(f"{RAFT}peer_connected", "gauge", "1 while the peer is connected.", connected)
    text = "1 while another cluster answers at the peer's address."
    yield labelled(f"{RAFT}peer_other_cluster", "gauge", text, others)
    text = "The peer's wall clock less this node's."
    yield labelled(f"{RAFT}peer_clock_offset_seconds", "gauge", text, offsets)
    text = "Age of a learner that never caught up; leader only."
    yield labelled(f"{RAFT}learner_waiting_seconds", "gauge", text, behind)
    text = "Time since the peer was last heard; off the leader only of the leader."
    yield labelled(f"{RAFT}peer_contact_age_seconds", "gauge", text, ages)
    text = "Entries the peer has not acknowledged, once that is known; leader only."
    yield labelled(f"{RAFT}peer_lag_entries", "gauge", text, lags)


def _copy_families(work: WorkCounters, status: RaftStatus) -> Iterator[Family]:
    damaged = "1 while this node's copy of the state is known to be damaged."
    yield gauge(f"{NODE}copy_damaged", damaged, int(work.copy_damaged))
    differing: dict[Labels, float] = {
        (("id", str(peer.node_id)),): int(peer.node_id in work.copies_differing) for peer in status.peers
    }
    yield labelled(f"{NODE}copy_differs", "gauge", "1 while another node's copy is not this node's.", differing)
    yield counter(f"{NODE}state_scrubs_total", "Complete looks through the state file.", work.scrubs)


def _work_families(work: WorkCounters) -> Iterator[Family]:
    yield histogram(f"{RAFT}log_sync_seconds", "One write and sync of the raft log.", {(): work.log_sync_seconds})
    yield counter(f"{RAFT}log_synced_entries_total", "Log entries synced.", work.log_synced_entries)
    text = "One commit of applied entries to the state file, for which the event loop waits."
    yield histogram(f"{RAFT}state_commit_seconds", text, {(): work.state_commit_seconds})
    yield histogram(f"{RAFT}apply_seconds", "Applying one log entry to the state.", {(): work.apply_seconds})
    pauses = "How long entries waited while the state's write-ahead log began anew."
    yield histogram(f"{RAFT}applying_paused_seconds", pauses, {(): work.applying_paused_seconds})
    stalls: dict[Labels, float] = {(("part", part),): count for part, count in work.disk_stalls.items()}
    text = "How often the disk stopped answering, by what waited for it."
    yield labelled(f"{RAFT}disk_stalls_total", "counter", text, stalls)
    yield counter(f"{RAFT}applied_commands_total", "Commands applied to the state.", work.applied_commands)
    yield gauge(f"{NODE}loop_lag_seconds", "How late the event loop's last beat was.", work.loop_lag_seconds)
    steps: dict[Labels, float] = {(("work", kind),): count for kind, count in work.slow_steps.items()}
    seconds: dict[Labels, float] = {(("work", kind),): spent for kind, spent in work.slow_step_seconds.items()}
    text = f"Steps of the event loop longer than {STEP_TIME_MS_MAX} ms."
    yield labelled(f"{LOOP}slow_steps_total", "counter", text, steps)
    yield labelled(f"{LOOP}slow_step_seconds_total", "counter", "Time spent in these steps.", seconds)
    if work.disk_free_bytes is not None:
        yield gauge(f"{NODE}disk_free_bytes", "Free bytes where the data directory is.", work.disk_free_bytes)


def _client_families(client: ClientCounters) -> Iterator[Family]:
    delays = {"write": client.delay_write_ms, "read": client.delay_read_ms, "other": client.delay_neither_ms}
    ended: dict[Labels, float] = {(("kind", kind),): delay.count for kind, delay in delays.items()}
    yield labelled(f"{GRPC}requests_total", "counter", "Requests of clients that ended, well or not.", ended)
    failures: dict[Labels, float] = {
        (("kind", kind), ("reason", reason)): count for (kind, reason), count in client.failures.items()
    }
    yield labelled(f"{GRPC}requests_failed_total", "counter", "Requests of clients that failed, by why.", failures)
    yield gauge(f"{GRPC}connections", "Open connections of clients.", client.connections)
    refused = client.connections_refused
    yield counter(
        f"{GRPC}connections_refused_total",
        "Connections refused, or closed for new ones, because there are too many.",
        refused,
    )


def _health_families(work: WorkCounters) -> Iterator[Family]:
    newest: dict[Labels, float] = {
        (("type", probe), ("name", check)): int(passed) for (probe, check), passed in work.health.items()
    }
    yield labelled("metasrv_healthcheck", "gauge", "1 when the check passed last time.", newest)
    checks: dict[Labels, float] = {
        (("type", probe), ("name", check), ("status", outcome)): count
        for (probe, check, outcome), count in work.health_checks.values.items()
    }
    yield labelled("metasrv_healthchecks_total", "counter", "Outcomes of checks.", checks)
    requests: dict[Labels, float] = {
        (("route", route), ("method", method), ("code", code)): count
        for (route, method, code), count in work.admin_requests.values.items()
    }
    yield labelled("metasrv_admin_requests_total", "counter", "Requests to the admin API.", requests)

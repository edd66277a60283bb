"""metasrv's own families, which no Databend release has.

`metasrv_raft_*`, `metasrv_node_*`, `metasrv_cluster_*`, `metasrv_loop_*`, `metasrv_grpc_*`, `metasrv_healthcheck*` and
`metasrv_admin_*`, in base units. They answer what operators of such clusters ask for: disk latency, lag of each peer,
what holds the event loop, how many nodes may still fail, why a probe fails, what the cluster refuses. Pure functions over
counters and a status, but for the memory of the process; must not know who counts or who asks.
"""

from __future__ import annotations

from collections.abc import Iterator

from metasrv.metrics.counters import CALL_KINDS, ClientCounters, WorkCounters, kind_of_call
from metasrv.metrics.counting import Histogram
from metasrv.metrics.exposition import Family, Labels, counter, gauge, histogram, labelled
from metasrv.model.limits import STEP_TIME_MS_MAX
from metasrv.model.reach import expects_contact, lag_entries, leaders_tolerance
from metasrv.model.types import LogId, RaftStatus
from metasrv.process.operating_system import memory_limit_bytes, resident_peak_bytes
from metasrv.protocol.methods import METHODS

RAFT = "metasrv_raft_"
NODE = "metasrv_node_"
GRPC = "metasrv_grpc_"
LOOP = "metasrv_loop_"
CLUSTER = "metasrv_cluster_"


def own_families(
    client: ClientCounters,
    work: WorkCounters,
    status: RaftStatus,
    binary_version: str,
    commit: str,
    cluster_name: str,
) -> Iterator[Family]:
    yield from _raft_families(status)
    yield from _peer_families(status)
    yield from _copy_families(work, status)
    yield from _work_families(work)
    yield from call_families(client)
    yield from _health_families(work)
    build: Labels = (("version", binary_version), ("commit", commit))
    yield labelled("metasrv_build_info", "gauge", "Version of this build.", {build: 1})
    belongs: Labels = (("cluster_id", status.cluster_id or ""), ("cluster_name", cluster_name))
    text = "The cluster that this node belongs to; the id is empty while it belongs to none."
    yield labelled(f"{CLUSTER}info", "gauge", text, {belongs: 1})
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
    yield gauge(f"{CLUSTER}read_only", text, int(limits.read_only is not None))
    yield gauge(f"{CLUSTER}keys", "Keys in the applied state.", status.key_count)
    yield gauge(f"{CLUSTER}data_size_bytes", "All keys and values together.", status.data_size_bytes)
    text = "What they may take together, 0 without a quota."
    yield gauge(f"{CLUSTER}quota_bytes", text, limits.quota_bytes)
    text = "Writes that read-only or the quota kept out, of those that this node applied."
    yield counter(f"{CLUSTER}writes_refused_total", text, status.writes_refused)
    text = "1 once the cluster has put this node out, so that it takes part in nothing."
    yield gauge(f"{NODE}removed", text, int(status.removed is not None))
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
    text = "From the entry of a batch into the leader's log to its commit."
    yield histogram(f"{RAFT}commit_seconds", text, {(): work.commit_seconds})
    text = "How long reads waited for a majority to confirm the leader; reads that arrive together wait and count once."
    yield histogram(f"{RAFT}read_index_seconds", text, {(): work.read_index_seconds})
    forwards: dict[Labels, Histogram] = {(("request", name),): times for name, times in work.forward_seconds.items()}
    yield histogram(f"{RAFT}forward_seconds", "Requests that the leader answered for this node.", forwards)
    text = "One commit of applied entries to the state file, for which the event loop waits."
    yield histogram(f"{RAFT}state_commit_seconds", text, {(): work.state_commit_seconds})
    yield histogram(f"{RAFT}apply_seconds", "Applying one log entry to the state.", {(): work.apply_seconds})
    pauses = "How long entries waited while the state's write-ahead log began anew."
    yield histogram(f"{RAFT}applying_paused_seconds", pauses, {(): work.applying_paused_seconds})
    stalls: dict[Labels, float] = {(("part", part),): count for part, count in work.disk_stalls.items()}
    text = "How often the disk stopped answering, by what waited for it."
    yield labelled(f"{RAFT}disk_stalls_total", "counter", text, stalls)
    yield counter(f"{RAFT}applied_commands_total", "Commands applied to the state.", work.applied_commands)
    yield histogram(f"{LOOP}lag_seconds", "How late the event loop's beats were.", {(): work.loop_lag_seconds})
    took: dict[Labels, Histogram] = {(("work", kind),): times for kind, times in work.step_seconds.items() if times.count}
    yield histogram(f"{LOOP}step_seconds", "Steps of the event loop, by what took most of them.", took)
    steps: dict[Labels, float] = {(("work", kind),): count for kind, count in work.slow_steps.items()}
    seconds: dict[Labels, float] = {(("work", kind),): spent for kind, spent in work.slow_step_seconds.items()}
    text = f"Steps of the event loop longer than {STEP_TIME_MS_MAX} ms."
    yield labelled(f"{LOOP}slow_steps_total", "counter", text, steps)
    yield labelled(f"{LOOP}slow_step_seconds_total", "counter", "Time spent in these steps.", seconds)
    text = "The most resident memory that the process has had."
    yield gauge(f"{NODE}memory_peak_bytes", text, resident_peak_bytes())
    limit_bytes = memory_limit_bytes()
    if limit_bytes is not None:
        text = "Memory that the process may use: its container's limit, or the machine's memory."
        yield gauge(f"{NODE}memory_limit_bytes", text, limit_bytes)
    if work.disk_free_bytes is not None:
        yield gauge(f"{NODE}disk_free_bytes", "Free bytes where the data directory is.", work.disk_free_bytes)


def call_families(client: ClientCounters) -> Iterator[Family]:
    ended: dict[Labels, float] = {(("kind", kind),): client.delay_ms(kind).count for kind in CALL_KINDS}
    yield labelled(f"{GRPC}requests_total", "counter", "Requests of clients that ended, well or not.", ended)
    failures: dict[Labels, float] = {
        (("kind", kind), ("reason", reason)): count for (kind, reason), count in client.failures.items()
    }
    yield labelled(f"{GRPC}requests_failed_total", "counter", "Requests of clients that failed, by why.", failures)
    by_method: dict[Labels, Histogram] = {
        (("kind", kind_of_call(method)), ("method", method.name)): in_seconds(client.delays_ms[method.name])
        for method in METHODS
        if client.delays_ms[method.name].count
    }
    yield histogram(f"{GRPC}request_seconds", "Requests of clients, by method, once there was one.", by_method)
    of_methods: dict[Labels, float] = {
        (("method", method), ("reason", reason)): count
        for (method, reason), count in client.method_failures.values.items()
    }
    text = "The failed requests of clients by method."
    yield labelled(f"{GRPC}method_failures_total", "counter", text, of_methods)
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


def in_seconds(milliseconds: Histogram) -> Histogram:
    """The same counts with bounds and sum in seconds."""
    seconds = Histogram(tuple(bound / 1000 for bound in milliseconds.bounds))
    seconds.counts, seconds.sum = list(milliseconds.counts), milliseconds.sum / 1000
    return seconds

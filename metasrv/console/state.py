"""The state that the console shows: the cluster, every node and what is wrong, as this node knows it.

What other members said of themselves is shown with its age, and nothing of it stands in for what this node sees: a
member that it does not hear is unreachable, whatever it said last. Numbers that are not known are None. Pure but for
what it is given; must not know HTTP.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from metasrv.console.known_nodes import KnownNode, KnownNodes
from metasrv.console.problems import RUNBOOK_OF_CHECK, Seen, problems
from metasrv.console.sampling import PeerRates
from metasrv.model.reach import Tolerance, members_heard, tolerance
from metasrv.model.summary import CheckResult, NodeSummary
from metasrv.model.types import Node, PeerProgress, RaftStatus
from metasrv.node.context import NodeContext

SCHEMA = 1
View = dict[str, Any]
_NO_LEADER = "no leader is known"


class Knowledge(NamedTuple):
    """Everything a state is made of, at one instant."""

    context: NodeContext
    status: RaftStatus
    own: NodeSummary
    known: KnownNodes
    rates: PeerRates


def state_view(knowledge: Knowledge) -> View:
    """The shape of `GET /v1/console`."""
    context, status = knowledge.context, knowledge.status
    now = context.clock.monotonic()
    heard = members_heard(status)
    summaries = {status.node_id: knowledge.own}
    for node_id in heard:
        node = knowledge.known.get(node_id)
        if node.summary is not None and node.is_fresh(now):
            summaries[node_id] = node.summary
    lags = _lags(status, summaries)
    held = tolerance(status, heard, lags)
    silent = {peer.node_id: peer.last_contact_ms for peer in status.peers if peer.node_id not in heard}
    last_words = {node_id: words for node_id in silent if (words := _last_words(knowledge.known.get(node_id)))}
    seen = Seen(status, held, heard, silent, summaries, lags, last_words, status.removed)
    return {
        "schema": SCHEMA,
        "now_ms": context.clock.wall_ms(),
        "answered_by": status.node_id,
        "cluster": _cluster_view(knowledge, held),
        "nodes": [_node_view(knowledge, node, seen, now) for node in _members(status)],
        "problems": problems(seen),
    }


def _cluster_view(knowledge: Knowledge, held: Tolerance) -> View:
    context, status = knowledge.context, knowledge.status
    membership = status.membership
    switched_off = status.limits.read_only is not None
    # Stale reads are all that is answered without a leader, or by a node that was removed.
    silent = bool(membership.voters) and (status.leader_id is None or status.removed is not None)
    refusal = _NO_LEADER if status.removed is None else held.text
    return {
        "name": context.config.raft_config.cluster_name,
        "id": status.cluster_id,
        "leader_id": status.leader_id,
        "term": status.term,
        "voters": sorted(membership.voters),
        "learners": sorted(membership.learners),
        "failure_tolerance": held.failures,
        "tolerance_text": held.text,
        "read_only": switched_off or silent,
        "read_only_reason": status.limits.read_only if switched_off else refusal if silent else None,
        "data_bytes": status.data_size_bytes,
        "quota_bytes": status.limits.quota_bytes or None,
        "empty": context.machine.key_count == 0,
        "joined": context.joined,
        "waiting_for": context.waiting_for or None,
    }


def _members(status: RaftStatus) -> list[Node]:
    """All members by id; this node too, when it is none."""
    nodes = {node.node_id: node for node in (*status.voter_nodes(), *status.learner_nodes())}
    own = status.nodes.get(status.node_id)
    if own is not None:
        nodes.setdefault(own.node_id, own)
    return [nodes[node_id] for node_id in sorted(nodes)]


def _last_words(node: KnownNode) -> tuple[CheckResult, ...]:
    """The checks that failed when it last told of itself; what follows from the cluster's state aside."""
    checks = () if node.summary is None else node.summary.checks
    return tuple(check for check in checks if not check.passed and check.name not in ("leader", "joined"))


def _lags(status: RaftStatus, summaries: dict[int, NodeSummary]) -> dict[int, int]:
    """As the leader knows them, from whichever node that is."""
    leader = None if status.leader_id is None else summaries.get(status.leader_id)
    return {} if leader is None else dict(leader.lags)


def _node_view(knowledge: Knowledge, node: Node, seen: Seen, now: float) -> View:
    context, status, node_id = knowledge.context, knowledge.status, node.node_id
    own = node_id == status.node_id
    peer = next((peer for peer in status.peers if peer.node_id == node_id), None)
    known = knowledge.known.get(node_id)
    summary = knowledge.own if own else known.summary
    fresh = node_id in seen.summaries
    age_ms = None if own or summary is None else int((now - known.told_at) * 1000)
    bound_raft = context.listeners.get("raft")
    view: View = {
        "id": node_id,
        "name": f"node {node_id}",
        "role": _role(status, node_id, seen, summary if fresh else None, own),
        "votes": node_id in status.membership.voters,
        "reachable": own or node_id in seen.heard,
        "grpc_address": node.grpc_api_advertise_address or node.grpc_api_addr or None,
        "raft_address": str(bound_raft if own and bound_raft is not None and not node.endpoint.port else node.endpoint),
        "lag_entries": seen.lags.get(node_id, 0 if node_id == status.leader_id else None),
        "summary_age_ms": age_ms,
        **_told(summary, fresh, age_ms),
        **_measured(knowledge, node, peer, known if fresh and not own else KnownNode()),
    }
    if view["clock_offset_ms"] is None and peer is not None and fresh:
        view["clock_offset_ms"] = _offset_here(status, peer)
    return view


def _role(status: RaftStatus, node_id: int, seen: Seen, summary: NodeSummary | None, own: bool) -> str:
    if not own and node_id not in seen.heard:
        return "unreachable"
    if summary is not None and summary.role == "removed":
        return "removed"
    if node_id == status.leader_id:
        return "leader"
    if summary is not None and summary.role != "leader":
        return summary.role
    return "follower" if node_id in status.membership.voters else "learner"


def _told(summary: NodeSummary | None, fresh: bool, age_ms: int | None) -> View:
    """What the node says of itself. What may have changed since an old summary is not known any more."""
    if summary is None:
        names = ("term", "version", "admin_address", "admin_url", "uptime_ms", "clock_offset_ms", "last_log_index")
        more = ("applied_index", "database_bytes", "log_bytes", "ready", "draining")
        return dict.fromkeys((*names, *more)) | {"checks": []}
    scheme = "https" if summary.admin_tls else "http"
    return {
        "term": summary.term,
        "version": summary.version,
        "admin_address": summary.admin_address or None,
        "admin_url": f"{scheme}://{summary.admin_address}" if summary.admin_address else None,
        "uptime_ms": summary.uptime_ms + (age_ms or 0) if fresh else None,
        "clock_offset_ms": summary.clock_offset_ms if fresh else None,
        "last_log_index": summary.last_log_index,
        "applied_index": summary.applied_index,
        "database_bytes": summary.database_bytes,
        "log_bytes": summary.log_bytes,
        "ready": summary.ready if fresh else None,
        "draining": not summary.passes("draining") if fresh else None,
        "checks": [_check_view(*check) for check in summary.checks] if fresh else [],
    }


def _check_view(name: str, passed: bool, warns: bool, reason: str) -> View:
    failing = not passed or warns
    runbook = RUNBOOK_OF_CHECK.get(name) if failing else None
    return {"name": name, "ok": passed, "warns": warns, "reason": reason, "runbook": runbook}


def _measured(knowledge: Knowledge, node: Node, peer: PeerProgress | None, known: KnownNode) -> View:
    rates = knowledge.rates
    return {
        "last_contact_ms": None if peer is None else peer.last_contact_ms,
        "round_trip_ms": known.round_trip_ms,
        "bytes_sent_per_second": None if peer is None else rates.sent(node.node_id),
        "bytes_received_per_second": None if peer is None else rates.received(str(node.endpoint)),
    }


def _offset_here(status: RaftStatus, peer: PeerProgress) -> int | None:
    """The peer's clock less the majority's, as this node measures it."""
    if peer.clock_offset_ms is None or status.clock_offset_ms is None:
        return None
    return peer.clock_offset_ms + status.clock_offset_ms

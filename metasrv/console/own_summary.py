"""What this node says of itself, for its own console and for those of the others.

Made from one status and the checks of readiness. Must not know who asks. Runs on the event loop.
"""

from __future__ import annotations

import ipaddress

from metasrv.model.reach import lag_entries
from metasrv.model.summary import CheckResult, NodeSummary
from metasrv.model.types import Endpoint, RaftState, RaftStatus
from metasrv.node.context import NodeContext
from metasrv.node.health import DirectoryReport, check_readiness

ROLES = {
    RaftState.LEADER: "leader",
    RaftState.FOLLOWER: "follower",
    RaftState.CANDIDATE: "candidate",
    RaftState.LEARNER: "learner",
    RaftState.SHUTDOWN: "unreachable",
}


def own_summary(
    context: NodeContext, status: RaftStatus, directory: DirectoryReport | None, sync_seconds: float | None
) -> NodeSummary:
    """`directory` is the last look at the data directory; without one yet, its check is left out."""
    checks = check_readiness(context, directory)
    if directory is None:
        checks = [check for check in checks if check.name != "data_directory"]
    admin = admin_address(context)
    return NodeSummary(
        node_id=status.node_id,
        role="removed" if status.removed is not None else ROLES[status.state],
        term=status.term,
        leader_id=status.leader_id,
        version=context.binary_version,
        admin_address="" if admin is None else str(admin),
        admin_tls=bool(context.config.admin_tls_server_cert),
        uptime_ms=max(0, context.clock.wall_ms() - context.started_at_ms),
        clock_offset_ms=status.clock_offset_ms,
        last_log_index=status.last_log_id.index,
        applied_index=status.last_applied.index,
        database_bytes=status.state_size_bytes,
        log_bytes=status.raft_log.wal_total_size,
        sync_microseconds=None if sync_seconds is None else round(sync_seconds * 1_000_000),
        checks=tuple(CheckResult(check.name, check.passed, check.warns, check.reason) for check in checks),
        lags=tuple((peer.node_id, lag) for peer in status.peers if (lag := lag_entries(peer, status)) is not None),
        other_clusters=tuple((peer.node_id, peer.other_cluster) for peer in status.peers if peer.other_cluster),
    )


def admin_address(context: NodeContext) -> Endpoint | None:
    """Where others reach this node's admin API; a listener on every address is reached at the raft port's host."""
    bound = context.listeners.get("admin")
    if bound is None:
        return None
    configured = context.config.admin_endpoint.addr
    if _is_every_address(configured):
        return Endpoint(context.config.raft_config.raft_advertise_host, bound.port)
    return Endpoint(configured, bound.port)


def _is_every_address(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return not host

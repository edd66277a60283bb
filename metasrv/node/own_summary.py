"""What this node says of itself, to its own console and to every member that asks.

Made from one status and the checks of readiness, and answered on the raft port: so any one node can tell how the whole
cluster is, whatever its admin API listens on. Must not know who asks. Runs on the event loop; the data directory is
looked at in a helper thread.
"""

from __future__ import annotations

import asyncio
import ipaddress

from metasrv.model.reach import lag_entries
from metasrv.model.summary import ROLES, CheckResult, NodeSummary, SummaryAnswer, SummaryQuestion
from metasrv.model.types import Endpoint, RaftStatus
from metasrv.node.context import NodeContext
from metasrv.node.directory_probe import DirectoryProbe
from metasrv.node.health import check_readiness

PROBE_AGE_SECONDS = 1.0
"""A look at the data directory that is older is made again: consoles ask every two seconds."""
PROBE_WAIT_SECONDS = 0.3
"""An answer waits no longer for that look, and goes by the last one then: who asks waits less than a second."""


class OwnSummary:
    """Makes the summaries of one node; who makes some keeps one of these."""

    def __init__(self, context: NodeContext) -> None:
        self._context = context
        self._probe = DirectoryProbe(context.config.raft_config.raft_dir, context.clock.monotonic, PROBE_AGE_SECONDS)
        self._looking: asyncio.Task[None] | None = None

    async def answer(self, question: SummaryQuestion) -> SummaryAnswer:
        """What another member is told; the newest events when there are more than fit."""
        await self.look_at_directory()
        events = self._context.events
        after = question.number if question.incarnation == events.incarnation else 0
        newer = events.after(after, question.events_max) if question.events_max else ()
        return SummaryAnswer(self.summary(self._context.consensus.status()), events.incarnation, newer)

    async def own(self) -> NodeSummary:
        """The summary of this instant."""
        await self.look_at_directory()
        return self.summary(self._context.consensus.status())

    async def look_at_directory(self) -> None:
        """Renew the look at the data directory, unless that takes long: then it is renewed once the disk answers."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look(), name="own-summary-directory")
        await asyncio.wait({self._looking}, timeout=PROBE_WAIT_SECONDS)

    async def _look(self) -> None:
        found = self._context.directory = await self._probe.report()
        if found.free_bytes is not None:
            self._context.metrics.disk_free(found.free_bytes)

    def summary(self, status: RaftStatus) -> NodeSummary:
        """From a status, and the last look at the data directory; before the first, its check is left out."""
        context, sync_seconds = self._context, self._context.log_sync_seconds
        checks = check_readiness(context, context.directory)
        if context.directory is None:
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
            started_at_ms=context.started_at_ms,
            certificates=tuple((port, int(at)) for port, at in context.metrics.security.expires_at.items()),
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

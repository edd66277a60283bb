"""What this node says of itself to members that ask: version, positions, readiness, certificates.

Answered on the raft port, so that any one node can tell how the whole cluster is, whatever its admin API listens on.
Must not know who asks. Runs on the node's event loop.
"""

from __future__ import annotations

from metasrv.consensus import MemberReport
from metasrv.node.context import NodeContext
from metasrv.node.health import DirectoryProbe, check_readiness

TEXT_CHARACTERS_MAX = 1000
"""A sentence that is longer is cut: reports of all members are asked for at once."""


class MemberReports:
    """Makes the reports of one node."""

    def __init__(self, context: NodeContext) -> None:
        self._context = context
        self._directory = DirectoryProbe(context.config.raft_config.raft_dir, context.clock.monotonic)

    async def report(self) -> MemberReport:
        """The report of this instant; the data directory may have been looked at a few seconds before."""
        context = self._context
        directory = await self._directory.report()
        checks = check_readiness(context, directory)
        status = context.consensus.status()
        failed = [check.reason for check in checks if not check.passed]
        warnings = [check.reason for check in checks if check.passed and check.warns]
        warnings += [context.copies.peers[node_id] for node_id in sorted(context.copies.peers)]
        return MemberReport(
            binary_version=context.binary_version,
            state=status.state.value,
            term=status.term,
            leader_id=status.leader_id,
            last_log_index=status.last_log_id.index,
            applied_index=status.last_applied.index,
            started_at_ms=context.started_at_ms,
            clock_offset_ms=status.clock_offset_ms,
            not_ready="; ".join(failed)[:TEXT_CHARACTERS_MAX],
            warnings="; ".join(warnings)[:TEXT_CHARACTERS_MAX],
            certificates={port: int(at) for port, at in context.metrics.security.expires_at.items()},
            admin_api_address=context.config.admin_api_address,
        )

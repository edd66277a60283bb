"""Makes the leader's `quota_bytes` the cluster's: the configuration says it, the log decides it.

A quota has to be the same on every node at the same entry, so only the replicated value counts, and the node that leads
proposes its own when the two differ. Runs on the event loop for as long as the node.
"""

from __future__ import annotations

import asyncio
import logging

from metasrv.model.commands import LIMITS_FEATURE, SetQuota
from metasrv.model.errors import NotDoneError, RequestError, UnknownOutcomeError
from metasrv.node.context import NodeContext

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
TIMEOUT_MS = 5_000


class QuotaKeeper:
    """See the module; `look` once a second."""

    def __init__(self, context: NodeContext) -> None:
        self._context = context
        self._warned = False

    async def run(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await self.look()

    async def look(self) -> None:
        """Propose this node's quota if it leads and the cluster has another one."""
        context = self._context
        wanted = context.config.raft_config.quota_bytes
        present = context.machine.limits.quota_bytes
        if wanted == present or not context.joined or not context.consensus.status().is_leader:
            return
        if LIMITS_FEATURE not in context.machine.features:
            self._warn()
            return
        try:
            await context.consensus.propose_local(SetQuota(wanted), TIMEOUT_MS)
        except (NotDoneError, UnknownOutcomeError) as error:
            logger.info("the quota is not set yet: %s", error)
        except RequestError as error:
            logger.error("the quota cannot be set: %s", error)
        else:
            logger.warning(
                "the quota of the cluster is %d bytes now, as this leader's configuration says; it was %d",
                wanted,
                present,
            )

    def _warn(self) -> None:
        """Once: it stays so until an operator does something."""
        if not self._warned:
            self._warned = True
            logger.warning(
                "quota_bytes has no effect while the feature %s is off; turn it on once every node knows it: metactl"
                " set-feature --feature %s --enable true",
                LIMITS_FEATURE,
                LIMITS_FEATURE,
            )

"""Drain of one node: an operator takes it out of the lead and out of service, and it goes on with everything else.

It replicates, votes, applies and answers who asks; it stands for no election, takes no transfer and hands over what it
leads. Nothing of it is stored: a restart is what most drains are for, and a node that comes back takes its part again.
Runs on the event loop.
"""

from __future__ import annotations

import asyncio
import logging

from metasrv.model.errors import NotDoneError
from metasrv.raft.core.engine import LEADER
from metasrv.raft.replica import Replica
from metasrv.raft.transfer import LeadershipTransfer

logger = logging.getLogger(__name__)

AGAIN_SECONDS = 10.0
"""Until the next attempt, when a drained node came to lead after all: each attempt keeps writes waiting."""


class Draining:
    """See the module. `on`: whether this node is drained, so that it must not stand for election."""

    def __init__(self, replica: Replica, transfer: LeadershipTransfer, hand_over_ms: int) -> None:
        self.on = False
        self._replica = replica
        self._transfer = transfer
        self._hand_over_ms = hand_over_ms
        self._again_at = 0.0
        self._task: asyncio.Task[bool] | None = None

    async def drain(self, timeout_ms: int) -> None:
        """Lead no more. Raises NotDoneError when nobody else can lead, or takes over; this node is as before then."""
        if self.on:
            return
        node_id, voters = self._replica.node_id, self._replica.engine.membership().voters
        if set(voters) == {node_id}:
            raise NotDoneError(f"node {node_id} is the only voter, so nobody else could lead; it is not drained")
        self.on = True
        if not await self._transfer.hand_over(timeout_ms):
            self.on = False
            raise NotDoneError(
                f"no other voter took leadership over within {timeout_ms} ms, so node {node_id} goes on leading and is"
                " not drained; look which voters are connected and how far they are"
            )
        self._again_at = self._replica.clock.monotonic() + AGAIN_SECONDS
        logger.info("this node is drained: it leads no more until that is ended")

    def end(self) -> None:
        """Let this node lead again."""
        if self.on:
            self.on = False
            logger.info("this node is no longer drained")

    def consider(self) -> None:
        """After each step: hand over what an election under way at the drain may have brought."""
        if not self.on or self._replica.engine.role() != LEADER:
            return
        now = self._replica.clock.monotonic()
        if now < self._again_at or (self._task is not None and not self._task.done()):
            return
        self._again_at = now + AGAIN_SECONDS
        self._task = asyncio.create_task(self._transfer.hand_over(self._hand_over_ms), name="drained-hand-over")

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()

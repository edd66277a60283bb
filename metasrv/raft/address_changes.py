"""The membership's addresses follow the registry's, so that both are one truth.

A node registers its address at every start, and at a join; the leader then changes the address in the membership, by an
entry of the usual form with the same members. Knows no connection: `peer_set.py` dials. Runs on the leader's event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from metasrv.model.errors import MetasrvError
from metasrv.model.types import Endpoint, Member, Membership, Node
from metasrv.process.clock import Clock
from metasrv.raft.core.engine import Engine
from metasrv.raft.membership import MembershipChanges
from metasrv.state.machine import StateMachine

logger = logging.getLogger(__name__)

_TIMEOUT_MS = 1_000
_PAUSE_SECONDS = 0.2
"""Between two attempts, while another change is under way or the majority is away."""


class AddressChanges:
    """At most one entry at a time is on its way."""

    def __init__(
        self,
        *,
        clock: Clock,
        engine: Engine,
        machine: StateMachine,
        changes: MembershipChanges,
        leads: Callable[[], bool],
    ) -> None:
        self._clock = clock
        self._engine = engine
        self._machine = machine
        self._changes = changes
        self._leads = leads
        self._running: asyncio.Task[None] | None = None
        self._not_before = 0.0
        self._agreed: tuple[Membership, Mapping[int, Node]] | None = None
        """What was compared last and found to be the same."""

    def consider(self) -> None:
        """Change the membership if this node leads and the registry has other addresses; called after each step."""
        membership, nodes = self._engine.membership(), self._machine.nodes
        agreed = self._agreed
        if agreed is not None and agreed[0] is membership and agreed[1] is nodes:
            return
        if not self._leads() or self._clock.monotonic() < self._not_before:
            return
        if self._running is not None and not self._running.done():
            return
        if at_registered(membership, nodes) == membership:
            self._agreed = (membership, nodes)
            return
        self._not_before = self._clock.monotonic() + _PAUSE_SECONDS
        self._running = asyncio.create_task(self._run(), name="address-change")

    async def stop(self) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    async def _run(self) -> None:
        before = self._engine.membership()
        try:
            await self._changes.move(lambda now: at_registered(now, self._machine.nodes), _TIMEOUT_MS)
        except MetasrvError as error:
            logger.debug("the addresses of members were not changed yet: %s", error)
            return
        after = self._engine.membership()
        for node_id, was, now in _moves(before, after):
            logger.info("the cluster now has node %d at %s; it was at %s", node_id, now, was)


def at_registered(membership: Membership, nodes: Mapping[int, Node]) -> Membership:
    """The same members, each at its registered address."""

    def group_at(group: Mapping[int, Member]) -> dict[int, Member]:
        return {
            node_id: member._replace(endpoint=nodes[node_id].endpoint) if node_id in nodes else member
            for node_id, member in group.items()
        }

    return Membership(group_at(membership.voters), group_at(membership.learners))


def _moves(before: Membership, after: Membership) -> list[tuple[int, Endpoint, Endpoint]]:
    """Who moved, from where, and where to."""
    moves = []
    for node_id in (*before.voters, *before.learners):
        was, now = before.member(node_id), after.member(node_id)
        if was is not None and now is not None and was.endpoint != now.endpoint:
            moves.append((node_id, was.endpoint, now.endpoint))
    return moves

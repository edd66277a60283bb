"""Whether this node is still a member of its cluster, with this data directory.

A node that was removed hears no leader any more, or reads in its own log that it is out. Both are only doubts: a
change may follow that this node does not have yet. So a node in doubt asks the others, and the leader answers after a
majority has confirmed that it leads. One whose id was given to another directory may even be sent heartbeats that are
meant for that one, so every node asks its leader now and then. A node that is out says so for ever (`node.json`),
campaigns no more and dials nobody. It goes on to run, because nobody asked it to stop: status and readiness say what
it is. Runs on the node's event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from metasrv.consensus import Place
from metasrv.model.errors import FatalError, RequestError
from metasrv.model.types import Endpoint
from metasrv.raft.forwarding import Forwarding
from metasrv.raft.replica import Replica

logger = logging.getLogger(__name__)

ANSWER_TIMEOUT_MS = 2_000
SURE_PAUSES = 10
"""A node without a doubt asks its leader after this number of the longest election timeouts, 15 s by default."""


class Belonging:
    """One node's doubts about its membership, and what the leader says about that of others."""

    def __init__(self, replica: Replica, forwarding: Forwarding) -> None:
        self._replica = replica
        self._forwarding = forwarding
        self._pause_seconds = replica.resources.settings.election_timeout_max_ms / 1000
        self._missed = 0
        self._sure = 0
        self._task: asyncio.Task[None] | None = None
        self.asks_to_join = False
        """This node is asking to become a member, so it is no wonder that it is none."""
        self.addresses: Sequence[Endpoint] = ()
        """Where members may be found besides the addresses that this node knows from the log."""
        self.on_removed: Callable[[str], None] = lambda _reason: None
        """Called once, with the reason, when this node learns that it is out."""

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._watch(), name="belonging")

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def place(self, node_id: int, incarnation: str) -> Place:
        """What the applied membership says about a node; of use only right after a confirmed read index."""
        machine = self._replica.machine
        member = machine.membership.member(node_id)
        if member is None or member.incarnation == incarnation:
            return Place(member is not None, None)
        registered = machine.nodes.get(node_id)
        return Place(False, member.endpoint if registered is None else registered.endpoint)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._pause_seconds)
            reason = await self._ask_all(self._whom_to_ask())
            if reason is not None and not self.asks_to_join:
                try:
                    self._out(reason)
                except FatalError as error:
                    self._replica.driver.fail(error)
                return

    def _whom_to_ask(self) -> list[int | Endpoint]:
        replica = self._replica
        leader_id = replica.leader_id()
        membership = replica.machine.membership
        if self.asks_to_join or replica.driver.fatal is not None or replica.leads() or not membership.voters:
            self._missed = self._sure = 0
            return []
        member = membership.member(replica.node_id)
        self._missed = 0 if leader_id is not None else self._missed + 1
        if member is None or member.incarnation != self._incarnation or self._missed > 1:
            self._sure = 0
            return self._targets()
        self._sure += 1
        return [leader_id] if leader_id is not None and self._sure % SURE_PAUSES == 0 else []

    @property
    def _incarnation(self) -> str:
        return self._replica.resources.directory.identity.incarnation

    async def _ask_all(self, targets: Sequence[int | Endpoint]) -> str | None:
        """Why this node is out, if any of these has a leader that says so."""
        places = await asyncio.gather(*(self._ask(target) for target in targets))
        for place in places:
            if place is not None and not place.member:
                return self._reason(place)
        return None

    def _targets(self) -> list[int | Endpoint]:
        """The other members as far as this node knows, by id where it is connected to them, and the given addresses."""
        replica = self._replica
        membership, nodes = replica.machine.membership, replica.machine.nodes
        own = replica.resources.settings.endpoint
        known: list[int | Endpoint] = []
        endpoints = dict.fromkeys(self.addresses)
        for node_id in sorted({*membership.voters, *membership.learners} - {replica.node_id}):
            if replica.peers.transport.is_connected(node_id):
                known.append(node_id)
                continue
            member, registered = membership.member(node_id), nodes.get(node_id)
            if registered is not None:
                endpoints[registered.endpoint] = None
            elif member is not None:
                endpoints[member.endpoint] = None
        endpoints.pop(own, None)
        return [*known, *endpoints]

    async def _ask(self, target: int | Endpoint) -> Place | None:
        try:
            return await self._forwarding.place(
                target, self._replica.node_id, self._incarnation, ANSWER_TIMEOUT_MS, hops=1
            )
        except RequestError:
            return None  # no answer, or no leader: it is asked again

    def _reason(self, place: Place) -> str:
        own_id = self._replica.node_id
        if place.holder is None:
            return f"node {own_id} was removed from its cluster"
        return (
            f"node {own_id} was put out of its cluster: its id belongs to another data directory now, at {place.holder}"
        )

    def _out(self, reason: str) -> None:
        replica = self._replica
        replica.resources.directory.set_removed(reason)
        replica.guards.silent = True
        replica.peers.dial_nobody()
        logger.error("NO LONGER A MEMBER: %s. It serves nothing; see docs/runbooks/removed-node.md", reason)
        self.on_removed(reason)

"""Finding the members again when addresses have changed: asks other nodes where the members are.

A node that does not reach a member, or hears of no leader, asks the addresses in its configuration and every member
that it reaches. Asking also tells the other node where this one is (`peer_set.py`). So a cluster finds itself although
all its nodes have moved, if each knows one right address or is asked by another. Runs on the event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from metasrv.model.errors import MetasrvError
from metasrv.model.types import Endpoint
from metasrv.process.clock import Clock
from metasrv.raft.core.engine import Engine
from metasrv.raft.forwarding import Forwarding
from metasrv.raft.peer_set import Peers

logger = logging.getLogger(__name__)

ANSWER_TIMEOUT_MS = 2_000
_LONGEST_PAUSE_SECONDS = 2.0


class MemberSearch:
    """Runs from the start of a node to its end."""

    def __init__(
        self,
        *,
        clock: Clock,
        engine: Engine,
        peers: Peers,
        forwarding: Forwarding,
        leader_id: Callable[[], int | None],
        hints: Sequence[Endpoint],
        patience_seconds: float,
    ) -> None:
        """`hints`: where members may be, from the configuration. Nobody is asked before a member has been out of reach
        for `patience_seconds`."""
        self._clock = clock
        self._engine = engine
        self._peers = peers
        self._forwarding = forwarding
        self._leader_id = leader_id
        own = peers.own_endpoint
        self._hints = tuple(endpoint for endpoint in hints if endpoint != own)
        self._patience_seconds = patience_seconds
        self._running: asyncio.Task[None] | None = None
        self._said = ""

    def start(self) -> None:
        self._running = asyncio.create_task(self._run(), name="member-search")

    async def stop(self) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    async def _run(self) -> None:
        pause = self._patience_seconds
        whole_at = self._clock.monotonic()
        while True:
            await asyncio.sleep(pause)
            now = self._clock.monotonic()
            if self._leader_id() is not None and not self._peers.unreached():
                whole_at, pause = now, self._patience_seconds
            elif now - whole_at >= self._patience_seconds:
                await self.ask()
                pause = min(1.5 * pause, _LONGEST_PAUSE_SECONDS)

    async def ask(self) -> None:
        """Ask everybody once who may know where the members are."""
        unreached = self._peers.unreached()
        if self._peers.cluster_id is None or (not unreached and self._leader_id() is not None):
            return
        reached = [i for i in self._engine.membership().voters if self._peers.transport.is_connected(i)]
        known = {self._peers.transport.known_endpoint(i) for i in reached}
        addresses = [one for one in dict.fromkeys((*self._hints, *unreached.values())) if one not in known]
        if unreached and self._leader_id() is None:
            self._say(unreached, addresses)
        targets: list[int | Endpoint] = [*reached, *addresses]
        answers = await asyncio.gather(*(self._ask(target) for target in targets))
        told = {node_id: endpoint for places in answers for node_id, endpoint in places.items()}
        for places in answers:  # what a node says of itself, the last one of its answer, counts more than hearsay
            told.update(list(places.items())[-1:])
        self._peers.told(told)

    async def _ask(self, target: int | Endpoint) -> dict[int, Endpoint]:
        try:
            return await self._forwarding.places(target, ANSWER_TIMEOUT_MS)
        except MetasrvError as error:
            logger.debug("%s does not say where the members are: %s", target, error)
            return {}

    def _say(self, unreached: dict[int, Endpoint], addresses: Sequence[Endpoint]) -> None:
        missing = ", ".join(f"node {node_id} at {endpoint}" for node_id, endpoint in sorted(unreached.items()))
        said = f"{missing} cannot be reached; where the members are is asked of {', '.join(map(str, addresses))}"
        if said != self._said:
            logger.warning("no leader is heard of, and %s", said)
            self._said = said

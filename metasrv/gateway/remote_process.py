"""A gateway on a machine without a node: the client-facing service over a link to one node of a list.

It listens once it has been linked for the first time. When the link ends it refuses what needs a node, says NOT_SERVING,
and dials the next node of the list, after a growing pause. It leaves a node that has known no leader for some seconds,
or that is shutting down. Runs on its own process's event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from metasrv import __version__
from metasrv.config.model import Config
from metasrv.gateway.messages import REMOTE_VERSION, FromGateway, FromNode
from metasrv.gateway.remote_context import Greeting, RemoteContext
from metasrv.gateway.remote_methods import BEGAN_WITH, RemoteGrpcService
from metasrv.gateway.standing_link import StandingLink
from metasrv.metrics.registry import MetricsRegistry
from metasrv.model.errors import PeerUnreachableError
from metasrv.model.limits import HANDSHAKE_TIMEOUT_MS
from metasrv.model.types import Endpoint
from metasrv.model.wire import integer, string
from metasrv.process.build_info import binary_version
from metasrv.raft.peers.connection import Connection
from metasrv.raft.peers.dialling import Dialler
from metasrv.raft.peers.handshake import LocalIdentity, Role
from metasrv.raft.peers.security import PeerSecurity
from metasrv.tracing.choosing import tracer_of

logger = logging.getLogger(__name__)

REDIAL_SECONDS_MIN = 0.05
REDIAL_SECONDS_MAX = 5.0
"""The pause doubles with each attempt that fails, and begins anew after a link that held for a while."""
GOOD_SECONDS = 10.0
LOOK_SECONDS = 0.25
SILENCE_SECONDS_MAX = 5.0
"""The node asks for a sign of life twice a second; one that says nothing for this time is given up."""
LEADERLESS_SECONDS_MAX = 5.0
OLDER_NODE_TEXT = "; that node is of a release that knows no gateways on other machines"
_ROLE_NOT_KNOWN = "is not a valid Role"


class RemoteGateway:
    """See the module."""

    def __init__(self, config: Config, commit: str, security: PeerSecurity) -> None:
        self.config = config
        self.metrics = MetricsRegistry(binary_version(commit), commit, config.raft_config.cluster_name)
        self.link = StandingLink(self._received, self._link_ended)
        self.context: RemoteContext | None = None
        self.ready: Callable[[Endpoint], None] = lambda _endpoint: None
        """Called once it serves."""
        self._loop = asyncio.get_running_loop()
        self._nodes: Sequence[Endpoint] = [Endpoint.parse(text) for text in config.gateway_nodes]
        host = config.grpc_api_advertise_host or config.raft_config.raft_advertise_host
        self._name = str(Endpoint(host, config.grpc_endpoint.port))
        self._identity = LocalIdentity(None, "", Endpoint(host, config.grpc_endpoint.port), None)
        self.dialler = Dialler(self._identity, security)
        self._greeted: asyncio.Future[None] | None = None
        self._down = asyncio.Event()
        self._stop = asyncio.Event()
        self._said = ""
        """Why there is no link, as the log has it; empty while there is one."""
        self._handles: dict[int, Callable[..., None]] = {
            FromNode.GREETED: self._on_greeted,
            FromNode.REFUSED: lambda sentence: self.link.cut(f"the node refused: {string(sentence)}"),
            FromNode.PING: lambda: self.link.send((FromGateway.PONG,)),
        }

    @property
    def standing(self) -> tuple[bool, str]:
        """Whether requests can be served, and why, as one sentence."""
        context = self.context
        if context is None or not self.link.is_up:
            return (
                False,
                f"this gateway is not linked to a node: {self._said or self.link.failure or 'it is being greeted'}",
            )
        status = context.consensus.status()
        if context.draining:
            return False, "this gateway is shutting down"
        if status.leader_id is None:
            return False, f"node {status.node_id}, to which this gateway is linked, knows no leader"
        return True, f"this gateway is linked to node {status.node_id} at {self.link.address}"

    @property
    def watchers(self) -> int:
        """Watch streams of clients."""
        return 0 if self.context is None else self.context.watches.count

    def request_stop(self) -> bool:
        """Begin an orderly stop; whether it had begun already."""
        had_begun = self._stop.is_set()
        self._stop.set()
        return had_begun

    async def run(self, grace_ms: int) -> None:
        """Serve until asked to stop. Raises BindError, ConfigError."""
        linking = asyncio.create_task(self._keep_link(), name="link")
        stopping = asyncio.create_task(self._stop.wait(), name="stop")
        first = asyncio.create_task(self._until_linked(), name="first-link")
        try:
            await asyncio.wait({first, stopping, linking}, return_when=asyncio.FIRST_COMPLETED)
            if linking.done():
                await linking
            if self.context is not None and not self._stop.is_set():
                await self._serve(self.context, {stopping, linking}, grace_ms)
        finally:
            for task in (linking, stopping, first):
                task.cancel()
            await asyncio.gather(linking, stopping, first, return_exceptions=True)
            self.link.finish("this gateway is shutting down")
            await asyncio.sleep(0)

    async def _serve(self, context: RemoteContext, ends: set[asyncio.Task[Any]], grace_ms: int) -> None:
        service = RemoteGrpcService(context)
        endpoint = await service.start()
        reloads = asyncio.create_task(context.reloader.run(), name="reloads")
        try:
            self.ready(endpoint)
            done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            context.draining = True
        finally:
            await service.stop(grace_ms)
            reloads.cancel()
            await asyncio.gather(reloads, return_exceptions=True)
            await context.watch.close()
        for task in done:
            await task  # raises what ended it

    # ------------------------------------------------------------------------- the link

    async def _until_linked(self) -> None:
        while self.context is None:  # noqa: ASYNC110 - once in a process's life
            await asyncio.sleep(REDIAL_SECONDS_MIN)

    async def _keep_link(self) -> None:
        pause, turn = REDIAL_SECONDS_MIN, 0
        while not self._stop.is_set():
            endpoint = self._nodes[turn % len(self._nodes)]
            turn += 1
            began_at = self._loop.time()
            try:
                await self._link_to(endpoint)
                await self._watch_over(endpoint)
                reason = self.link.failure
            except (PeerUnreachableError, TimeoutError) as error:
                reason = str(error) or "it did not greet this gateway in time"
                self.link.cut(reason)
            self._say(endpoint, reason)
            lasted = self._loop.time() - began_at
            pause = REDIAL_SECONDS_MIN if lasted >= GOOD_SECONDS else min(2 * pause, REDIAL_SECONDS_MAX)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), pause)

    async def _link_to(self, endpoint: Endpoint) -> None:
        """Dial, and be greeted. Raises PeerUnreachableError, TimeoutError."""
        self._down.clear()
        self._greeted = self._loop.create_future()
        owner = _Owner(self.link)
        connection = await self.dialler.dial(endpoint, Role.GATEWAY, None, owner)
        remote = connection.remote
        if remote is not None and self._identity.cluster_id is None:
            self._identity.cluster_id = remote.cluster_id  # from now on a node of another cluster is refused
        self.link.send((FromGateway.GREET, REMOTE_VERSION, self._name, self.metrics.binary_version))
        down = asyncio.create_task(self._down.wait())
        waiting: set[asyncio.Future[Any]] = {self._greeted, down}
        try:
            await asyncio.wait(waiting, timeout=HANDSHAKE_TIMEOUT_MS / 1000, return_when=asyncio.FIRST_COMPLETED)
        finally:
            down.cancel()
        if not self._greeted.done():
            raise PeerUnreachableError(self.link.failure or "it did not greet this gateway in time")

    async def _watch_over(self, endpoint: Endpoint) -> None:
        """Return once the link has ended, or is given up for a better node."""
        self._said = ""
        logger.info("linked to node %s at %s", self._status_id(), endpoint)
        led_at = self._loop.time()
        while not self._down.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._down.wait(), LOOK_SECONDS)
            now = self._loop.time()
            if self.context is None or self._down.is_set():
                continue
            if self.context.consensus.status().leader_id is not None and self.context.copies.serves:
                led_at = now
            if now - self.link.heard_at > SILENCE_SECONDS_MAX:
                self.link.cut(f"the node has said nothing for {now - self.link.heard_at:.1f} s")
            elif len(self._nodes) > 1 and now - led_at > LEADERLESS_SECONDS_MAX:
                self.link.cut(f"the node has known no leader, or not served, for {LEADERLESS_SECONDS_MAX:.0f} s")
            elif len(self._nodes) > 1 and self.context.machine.pulse.draining:
                self.link.cut("the node is shutting down")

    def _status_id(self) -> int:
        return 0 if self.context is None else self.context.consensus.status().node_id

    def _say(self, endpoint: Endpoint, reason: str) -> None:
        if _ROLE_NOT_KNOWN in reason:
            reason += OLDER_NODE_TEXT
        sentence = reason if str(endpoint) in reason else f"{endpoint}: {reason}"
        if sentence != self._said:
            self._said = sentence
            logger.warning("not linked to a node: %s", sentence)

    # ------------------------------------------------------------------------- what the node says

    def _received(self, messages: tuple[Any, ...]) -> None:
        for kind, *fields in messages:
            self._handles[integer(kind)](*fields)

    def _link_ended(self, reason: str) -> None:
        self._down.set()
        if self.context is not None:
            self.context.lost(reason)

    def _on_greeted(self, release: Any, status: Any, registry: Any, pulse: Any) -> None:
        greeting = Greeting(release, status, registry, pulse)
        if self.context is None:
            self.context = self._make_context(greeting)
            self._handles.update(self.context.handles())
        self.context.greeted(greeting)
        self.link.is_up = True
        if self._greeted is not None and not self._greeted.done():
            self._greeted.set_result(None)

    def _make_context(self, greeting: Greeting) -> RemoteContext:
        context = RemoteContext(self.config, self.link, greeting, self.metrics)
        context.machine.began_with = BEGAN_WITH.get
        context.watch.tracer = tracer_of(
            self.config.tracing,
            node_id=greeting.status.node_id,
            version=__version__,
            cluster_name=self.config.raft_config.cluster_name,
        )
        return context


class _Owner:
    """Owner of one dialled connection: gives its frames to the link from the moment at which it is established."""

    def __init__(self, link: StandingLink) -> None:
        self._link = link

    def established(self, connection: Connection) -> None:
        connection.gateway = self._link.attach(connection)

    def lost(self, connection: Connection) -> None:
        """The link hears it itself."""

    def flow_changed(self, connection: Connection) -> None:
        """The link hears it itself."""

    def sent(self, connection: Connection, size_bytes: int) -> None:
        """Nobody counts it."""

    received = sent

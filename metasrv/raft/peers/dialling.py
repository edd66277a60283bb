"""Reaching peers: resolve a name, connect, finish the handshake; and keep one connection to a peer while it is wanted.

Names are resolved anew at every attempt, off the loop, so a peer that moved is found. Knows nothing of accepted
connections or of Raft. Runs on the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable
from typing import Protocol

from metasrv.model.errors import PeerUnreachableError
from metasrv.model.limits import HANDSHAKE_TIMEOUT_MS
from metasrv.model.types import Endpoint
from metasrv.process.accepting import SHORTAGES
from metasrv.process.clock import Clock
from metasrv.raft.peers.connection import Connection, ConnectionEvents
from metasrv.raft.peers.dialled_connection import DialledConnection
from metasrv.raft.peers.handshake import LocalIdentity, RemoteIdentity, Role
from metasrv.raft.peers.security import PeerSecurity

_LOGGER = logging.getLogger(__name__)

CONNECT_TIMEOUT_MS = 2_000
"""Time for one address to answer; short, because the system's own retries slow down while a network is down."""
RESOLVE_TIMEOUT_MS = 5_000
"""Time for the resolver."""
REDIAL_DELAY_MS_MIN = 20
REDIAL_DELAY_MS_MAX = 500
"""The delay doubles from the minimum to the maximum; it starts anew after a connection that held for the maximum."""
HURRIED_DELAY_MS = REDIAL_DELAY_MS_MIN
"""Time after which a peer that was heard of is dialled again."""


class Dialler:
    """Opens connections as one node, with its identity and what it can prove."""

    def __init__(
        self, identity: LocalIdentity, security: PeerSecurity, give_descriptor: Callable[[], bool] = lambda: False
    ) -> None:
        """`give_descriptor` frees a spare one when this process has no other, and says whether it did."""
        self._identity = identity
        self._give_descriptor = give_descriptor
        self.security = security
        """What is proved and demanded from the next attempt on."""

    async def dial(
        self, endpoint: Endpoint, role: Role, expected_node_id: int | None, events: ConnectionEvents
    ) -> DialledConnection:
        """An established connection; raises PeerUnreachableError with the last reason once all addresses were tried."""
        reason = "the name has no address"
        for family, address in await self._addresses(endpoint):
            connection = DialledConnection(self._identity, self.security, role, expected_node_id, events, endpoint.addr)
            try:
                try:
                    await self._connect(connection, endpoint, family, address)
                except OSError as error:
                    if error.errno not in SHORTAGES or not self._give_descriptor():
                        raise
                    await self._connect(connection, endpoint, family, address)
                failure = await connection.ready
            except (OSError, UnicodeError) as error:
                connection.abort("the attempt failed")
                reason = _reason(error)
            except BaseException:
                connection.abort("the attempt was given up")
                raise
            else:
                if failure is None:
                    return connection
                reason = failure
        raise PeerUnreachableError(f"{endpoint} cannot be reached: {reason}")

    async def _addresses(self, endpoint: Endpoint) -> list[tuple[int, tuple[str, int]]]:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(RESOLVE_TIMEOUT_MS / 1000):
                found = await loop.getaddrinfo(endpoint.addr, endpoint.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise PeerUnreachableError(f"{endpoint.addr} cannot be resolved: {_reason(error)}") from error
        return [(family, (str(address[0]), int(address[1]))) for family, _, _, _, address in found]

    async def _connect(
        self, connection: DialledConnection, endpoint: Endpoint, family: int, address: tuple[str, int]
    ) -> None:
        context = self.security.client_context
        loop = asyncio.get_running_loop()
        timeout_ms = CONNECT_TIMEOUT_MS if context is None else HANDSHAKE_TIMEOUT_MS
        async with asyncio.timeout(timeout_ms / 1000):
            await loop.create_connection(
                lambda: connection,
                address[0],
                address[1],
                family=family,
                ssl=context,
                server_hostname=None if context is None else endpoint.addr,
            )


class LinkEvents(Protocol):
    """What a link tells its owner."""

    def link_established(self, link: PeerLink) -> None: ...

    def link_lost(self, link: PeerLink, connection: Connection) -> None:
        """The established connection is gone; the next attempt comes by itself."""
        ...

    def link_flow_changed(self, link: PeerLink) -> None: ...

    def link_failed(self, link: PeerLink, reason: str) -> None:
        """One attempt to connect failed."""
        ...

    def link_sent(self, link: PeerLink, size_bytes: int) -> None: ...

    def link_received(self, link: PeerLink, remote: RemoteIdentity, size_bytes: int) -> None: ...


class PeerLink:
    """Keeps one dialled connection to one peer, dialling again while it is down, until it is stopped."""

    def __init__(self, node_id: int, endpoint: Endpoint, dialler: Dialler, events: LinkEvents, clock: Clock) -> None:
        self.node_id = node_id
        self.endpoint = endpoint
        self.failure = "it was not yet dialled"
        """Why there is no connection."""
        self.connection: DialledConnection | None = None
        """The established connection."""
        self.other_cluster: str | None = None
        """The cluster that answers there instead of this node's own."""
        self._dialler = dialler
        self._events = events
        self._clock = clock
        self._lost = asyncio.Event()
        self._hurried = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"link to node {node_id}")

    @property
    def is_open(self) -> bool:
        """Established."""
        return self.connection is not None and self.connection.is_open

    @property
    def is_up(self) -> bool:
        """Established, and below the high-water mark."""
        return self.connection is not None and self.connection.is_open and not self.connection.paused

    def stop(self, reason: str) -> None:
        """Close at once and dial no more. `link_lost` still comes for an established connection, from the loop."""
        self._task.cancel()
        if self.connection is not None:
            self.connection.abort(reason)

    def finish(self, reason: str) -> None:
        """Dial no more, send what waits, close."""
        self._task.cancel()
        if self.connection is not None:
            self.connection.close(reason)

    def hurry(self) -> None:
        """The peer was heard of: if there is no connection, dial now instead of at the next attempt."""
        self._hurried.set()

    async def wait_stopped(self) -> None:
        """Return when the link has ended, after `stop` or `finish`."""
        await asyncio.wait({self._task})

    async def _run(self) -> None:
        delay_ms = REDIAL_DELAY_MS_MIN
        while True:
            self._hurried.clear()
            if await self._keep_connection():
                delay_ms = REDIAL_DELAY_MS_MIN
            # Otherwise two nodes whose connections end at once would hurry each other without a pause.
            await asyncio.sleep(HURRIED_DELAY_MS / 1000)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._hurried.wait(), max(0, delay_ms - HURRIED_DELAY_MS) / 1000)
            delay_ms = min(2 * delay_ms, REDIAL_DELAY_MS_MAX)

    async def _keep_connection(self) -> bool:
        """Dial, then wait until the connection ends. Whether it held long enough to dial again at once."""
        self._lost.clear()
        try:
            await self._dialler.dial(self.endpoint, Role.PEER, self.node_id, self)
        except PeerUnreachableError as error:
            self._failed(str(error))
            return False
        except Exception as error:
            _LOGGER.exception("dialling node %d at %s failed unexpectedly", self.node_id, self.endpoint)
            self._failed(f"{type(error).__name__}: {error}")
            return False
        established_at = self._clock.monotonic()
        await self._lost.wait()
        return self._clock.monotonic() - established_at >= REDIAL_DELAY_MS_MAX / 1000

    def _failed(self, reason: str) -> None:
        self.failure = reason
        self._events.link_failed(self, reason)

    # ------------------------------------------------------------------------- events of the connection

    def established(self, connection: Connection) -> None:
        if isinstance(connection, DialledConnection):
            self.connection = connection
            self._events.link_established(self)

    def flow_changed(self, connection: Connection) -> None:
        if connection is self.connection:
            self._events.link_flow_changed(self)

    def lost(self, connection: Connection) -> None:
        if connection is self.connection:
            self.connection = None
            self.failure = connection.failure or "the connection ended"
            self._lost.set()
            self._events.link_lost(self, connection)

    def sent(self, connection: Connection, size_bytes: int) -> None:
        self._events.link_sent(self, size_bytes)

    def received(self, connection: Connection, size_bytes: int) -> None:
        if connection.remote is not None:
            self._events.link_received(self, connection.remote, size_bytes)


def _reason(error: BaseException) -> str:
    """A system error as the end of a sentence."""
    if isinstance(error, TimeoutError) and not str(error):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__

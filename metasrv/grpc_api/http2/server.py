"""A gRPC server inside the event loop: its connections, the deadlines of its calls, its orderly end.

Knows methods only as paths with a function each. Runs on the event loop.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Mapping
from typing import Protocol

import grpc

from metasrv.grpc_api.http2.budget import Budget
from metasrv.grpc_api.http2.call import Route, ServerCall
from metasrv.grpc_api.http2.connection import Connection

logger = logging.getLogger(__name__)

TICK_SECONDS = 5.0
"""Between two looks at every connection (`Connection.tick`)."""
DEADLINE_SECONDS = 0.05
"""Calls are ended so soon after their deadline; the client counts for itself."""
CLOSE_SECONDS = 0.5
"""For the last bytes of connections that are closed."""
TLS_HANDSHAKE_SECONDS = 10.0
"""A connection that has not finished its TLS handshake by then is closed."""


class ConnectionObserver(Protocol):
    """Is told how many clients there are."""

    def client_connections(self, count: int) -> None:
        """So many connections are open."""

    def client_connection_refused(self) -> None:
        """One was closed at once, because there are too many."""


class GrpcServer:
    """Serves `routes` (by path) on sockets that are given to it."""

    def __init__(
        self,
        routes: Mapping[str, Route],
        observer: ConnectionObserver,
        *,
        message_size_bytes_max: int,
        streams_max: int,
        connections_max: int,
        held_size_bytes_max: int,
    ) -> None:
        self.routes = routes
        self.message_size_bytes_max = message_size_bytes_max
        self.streams_max = streams_max
        """Calls under way on one connection."""
        self.connections_max = connections_max
        self.budget = Budget(held_size_bytes_max)
        self.loop = asyncio.get_running_loop()
        self.connections: set[Connection] = set()
        self._observer = observer
        self._refused = 0
        """Connections since the last tick."""
        self._listeners: list[asyncio.Server] = []
        self._timed: set[ServerCall] = set()
        self._deadline_timer: asyncio.TimerHandle | None = None
        self._tick_timer: asyncio.TimerHandle | None = None
        self._calls = 0
        """Under way on all connections."""
        self._idle: asyncio.Event | None = None
        """While the server stops: set once no call is under way."""

    async def start(self, sockets: list[socket.socket], tls: ssl.SSLContext | None) -> None:
        """Accept connections on listening sockets, which belong to the server from now on."""
        for listening in sockets:
            self._listeners.append(
                await self.loop.create_server(
                    lambda: Connection(self),
                    sock=listening,
                    ssl=tls,
                    ssl_handshake_timeout=None if tls is None else TLS_HANDSHAKE_SECONDS,
                )
            )
        self._tick_timer = self.loop.call_later(TICK_SECONDS, self._tick)

    async def stop(self, grace_seconds: float) -> None:
        """Take no more calls, give those under way `grace_seconds`, end the rest, close."""
        for listener in self._listeners:
            listener.close()
        for connection in tuple(self.connections):
            connection.go_away()
        self._idle = asyncio.Event()
        self._set_if_idle()
        try:
            async with asyncio.timeout(grace_seconds):
                await self._idle.wait()
        except TimeoutError:
            for connection in tuple(self.connections):
                for call in tuple(connection.calls.values()):
                    call.cut(grpc.StatusCode.ABORTED, "this node stopped before the outcome of the call was known")
        for timer in (self._tick_timer, self._deadline_timer):
            if timer is not None:
                timer.cancel()
        for connection in tuple(self.connections):
            connection.close()
        until = self.loop.time() + CLOSE_SECONDS
        while self.connections and self.loop.time() < until:  # noqa: ASYNC110 - sockets flush without a word
            await asyncio.sleep(0.005)
        for connection in tuple(self.connections):
            connection.abort()

    # ------------------------------------------------------------------------- for connections

    def admit(self, connection: Connection) -> bool:
        """Whether there is room for a new connection. The client of one that is closed at once tries another node."""
        if len(self.connections) >= self.connections_max:
            self._refused += 1
            self._observer.client_connection_refused()
            return False
        self.connections.add(connection)
        self._observer.client_connections(len(self.connections))
        return True

    def lost(self, connection: Connection) -> None:
        self.connections.discard(connection)
        self._observer.client_connections(len(self.connections))

    def timed(self, call: ServerCall) -> None:
        """The call has a deadline."""
        self._timed.add(call)
        if self._deadline_timer is None:
            self._deadline_timer = self.loop.call_later(DEADLINE_SECONDS, self._expire)

    def call_began(self) -> None:
        self._calls += 1

    def call_ended(self, call: ServerCall) -> None:
        self._calls -= 1
        self._timed.discard(call)
        if self._idle is not None:
            self._set_if_idle()

    def _set_if_idle(self) -> None:
        if self._idle is not None and not self._calls:
            self._idle.set()

    # ------------------------------------------------------------------------- timers

    def _expire(self) -> None:
        """One look at all deadlines costs less than a timer for each call."""
        now = self.loop.time()
        for call in [call for call in self._timed if call.deadline is not None and call.deadline <= now]:
            call.expire()
        self._deadline_timer = self.loop.call_later(DEADLINE_SECONDS, self._expire) if self._timed else None

    def _tick(self) -> None:
        if self._refused:
            text = "%d connections of gRPC clients were refused in %.0f s: there are %d, the limit; does one leak them?"
            logger.warning(text, self._refused, TICK_SECONDS, self.connections_max)
            self._refused = 0
        for connection in tuple(self.connections):
            connection.tick()
        self._tick_timer = self.loop.call_later(TICK_SECONDS, self._tick)

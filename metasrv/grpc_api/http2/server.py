"""A gRPC server inside the event loop: accepts connections, ends calls at their deadline, stops in order.

Knows paths with a handler each, and nothing of what they mean. Runs on the event loop.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from typing import Protocol

from metasrv.grpc_api.http2.admission import Admission
from metasrv.grpc_api.http2.budget import Budget
from metasrv.grpc_api.http2.call_places import CallingConnection, CallPlaces
from metasrv.grpc_api.http2.connection import Connection
from metasrv.grpc_api.http2.deadlines import Deadlines
from metasrv.grpc_api.http2.headers import Metadata
from metasrv.grpc_api.http2.interfaces import ServedConnection
from metasrv.grpc_api.http2.messages import Compressed, inflated
from metasrv.grpc_api.http2.peer_name import is_loopback
from metasrv.grpc_api.http2.portions import Portions, portions_of
from metasrv.grpc_api.http2.route import Route
from metasrv.grpc_api.http2.sending import TICK_SECONDS
from metasrv.grpc_api.http2.status import StatusCode
from metasrv.grpc_api.http2.turns import Turns

logger = logging.getLogger(__name__)

CONNECTIONS_PER_STEP = 256
"""So many are looked after before the rest of the loop has its turn."""
CLOSE_SECONDS = 0.5
"""How long connections may take to send their last bytes when the server stops."""


class Listener(Protocol):
    """What accepts the connections of a listening socket."""

    def close(self) -> None:
        """Accept no more; connections that are open stay."""

    async def wait_closed(self) -> None:
        """Return once no connection is on its way to its protocol."""


Accept = Callable[[socket.socket, Callable[[], asyncio.BaseProtocol]], Listener]
"""Begins to accept on a listening socket, which belongs to the listener then, and makes each connection a protocol."""


class ConnectionObserver(Protocol):
    """Is told how many clients are connected."""

    def client_connections(self, count: int) -> None:
        """This many connections are open now."""

    def client_connection_refused(self) -> None:
        """A connection was closed, because there are too many."""


class GrpcServer:
    """Serves `routes` (by path) on sockets that are given to it; implements `interfaces.ConnectionServer`."""

    def __init__(
        self,
        routes: Mapping[str, Route],
        observer: ConnectionObserver,
        *,
        message_size_bytes_max: int,
        streams_max: int,
        calls_max: int,
        connections_max: int,
        held_size_bytes_max: int,
        refusal_metadata: Metadata,
        is_member: Callable[[str], bool] = lambda host: False,
        divide: Callable[[int], Portions] = portions_of,
        thread_began: Callable[[], None] | None = None,
    ) -> None:
        """`held_size_bytes_max` is the limit of the `Budget`, `calls_max` that of all calls.

        For the others see `interfaces.ConnectionServer`.

        `is_member` says whether a member of the cluster has this IP address. `thread_began` is called in the thread that
        decompresses, once it is needed.
        """
        self.routes = routes
        self.message_size_bytes_max = message_size_bytes_max
        self.streams_max = streams_max
        self.connections_max = connections_max
        self.refusal_metadata = refusal_metadata
        self.budget = Budget(divide(held_size_bytes_max))
        self.loop = asyncio.get_running_loop()
        self.turns = Turns(self.loop)
        self.deadlines = Deadlines(self.loop)
        self._admission: Admission[ServedConnection] = Admission(divide(connections_max))
        self._observer = observer
        self._is_member = is_member
        self._refused = 0
        """Connections refused, or closed for others, since the last tick."""
        self.inflater = ThreadPoolExecutor(1, "inflate", thread_began)
        """One thread, so that one decompressed message at a time is not yet counted."""
        self._listeners: list[Listener] = []
        self._tick_timer: asyncio.TimerHandle | None = None
        self.places = CallPlaces(divide(calls_max))
        self.call_began = self.places.take
        self._idle: asyncio.Event | None = None
        """While the server stops: set once no call is under way."""

    def start(self, sockets: Iterable[socket.socket], accept: Accept) -> None:
        """Have `accept` accept connections on listening sockets."""
        for listening in sockets:
            self._listeners.append(accept(listening, lambda: Connection(self)))
        self._tick_timer = self.loop.call_later(TICK_SECONDS, self._tick)

    async def stop(self, grace_seconds: float) -> None:
        """Take no more calls, give those under way `grace_seconds`, end the rest, close the connections."""
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
                connection.cut_calls(StatusCode.ABORTED, "this node stopped before the outcome of the call was known")
        if self._tick_timer is not None:
            self._tick_timer.cancel()
        self.deadlines.stop()
        for connection in tuple(self.connections):
            connection.close()
        until = self.loop.time() + CLOSE_SECONDS
        while self.connections and self.loop.time() < until:  # noqa: ASYNC110 - nothing tells when a socket is flushed
            await asyncio.sleep(0.005)
        for connection in tuple(self.connections):
            connection.abort()
        for listener in self._listeners:
            await listener.wait_closed()
        self.inflater.shutdown(wait=False, cancel_futures=True)

    # ------------------------------------------------------------------------- for connections

    @property
    def connections(self) -> set[ServedConnection]:
        return self._admission.connections

    def is_near(self, host: str) -> bool:
        return is_loopback(host) or self._is_member(host)

    def admit(self, connection: ServedConnection) -> bool:
        """Whether there is room for a new connection; a client whose connection is closed at once tries another node."""
        displaced = self._admission.displaced
        is_admitted = self._admission.admit(connection)
        if not is_admitted or self._admission.displaced > displaced:
            self._refused += 1
            self._observer.client_connection_refused()
        if not is_admitted:
            return False
        self._observer.client_connections(len(self.connections))
        return True

    def proved(self, connection: ServedConnection) -> None:
        self._admission.proved(connection)

    def lost(self, connection: ServedConnection) -> None:
        self._admission.lost(connection)
        self._observer.client_connections(len(self.connections))

    def make_room(self, connection: ServedConnection) -> bool:
        largest = self.budget.largest(connection.account)
        if largest is not None and largest.held_bytes > connection.held_bytes:
            largest.give_way()
        return not connection.is_over

    async def inflate(self, message: Compressed) -> bytes:
        return await self.loop.run_in_executor(self.inflater, inflated, message, self.message_size_bytes_max)

    def call_ended(self, connection: CallingConnection) -> None:
        self.places.give_back(connection)
        if self._idle is not None:
            self._set_if_idle()

    def _set_if_idle(self) -> None:
        if self._idle is not None and not self.places.in_use:
            self._idle.set()

    # ------------------------------------------------------------------------- the timer

    def _tick(self) -> None:
        if self._refused:
            text = "%d connections of gRPC clients were refused or gave way in %.0f s"
            text += ": the limit is %d; does a client leak them?"
            logger.warning(text, self._refused, TICK_SECONDS, self.connections_max)
            self._refused = 0
        self._tick_connections(iter(tuple(self.connections)))

    def _tick_connections(self, connections: Iterator[ServedConnection]) -> None:
        """Look after some connections, then after the others; all of them at once would hold the loop."""
        for connection in islice(connections, CONNECTIONS_PER_STEP):
            connection.tick()
        rest = next(connections, None)
        if rest is None:
            self._tick_timer = self.loop.call_later(TICK_SECONDS, self._tick)
        else:
            self._tick_timer = self.loop.call_later(0, self._tick_connections, chain((rest,), connections))

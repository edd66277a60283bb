"""A simulated process's event loop with the network methods of asyncio that peer connections call.

Host names, connecting and listening lead to the process's streams. TLS is not simulated.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, cast

from metasrv.model.types import Endpoint
from verification.simulation.loop import SimulatedLoop
from verification.simulation.streams import SimulatedStream, Streams


class NetworkedLoop(SimulatedLoop):
    """`streams` is set once the process's side of the network is made."""

    streams: Streams

    async def getaddrinfo(self, host: Any, port: Any, *, flags: int = 0, **_hints: Any) -> list[Any]:
        """Every name has one address: itself. A process's own name is known without asking."""
        if not flags & socket.AI_PASSIVE:
            await self.streams.resolved(str(host))
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port))]

    async def create_connection(  # type: ignore[override]
        self, protocol_factory: Callable[[], asyncio.Protocol], host: str, port: int, *, ssl: Any, **_names: Any
    ) -> tuple[SimulatedStream, asyncio.Protocol]:
        _without_tls(ssl)
        stream = await self.streams.connect(Endpoint(host, port))
        protocol = protocol_factory()
        stream.start(protocol)
        try:
            await asyncio.sleep(0)  # asyncio too returns after `connection_made`
        except asyncio.CancelledError:
            stream.close()
            raise
        return stream, protocol

    def start_accepting(
        self,
        _port: str,
        listening: socket.socket,
        make_protocol: Callable[[], asyncio.BaseProtocol],
        tls: Callable[[], Any],
        _observer: Any,
    ) -> SimulatedServer:
        """Replaces `metasrv.process.accepting.AcceptingSocket`: the network has descriptors for everybody."""
        _without_tls(tls())
        host, port = listening.getsockname()
        self.streams.listen(Endpoint(host, port), make_protocol)
        return SimulatedServer(self.streams, listening)


class ListeningSocket:
    """What the product binds; knows only its address."""

    def __init__(self, address: tuple[Any, ...]) -> None:
        self._address = address

    def getsockname(self) -> tuple[Any, ...]:
        return self._address


def listening_socket(_family: int, address: tuple[Any, ...], _backlog: int) -> socket.socket:
    """Replaces `metasrv.process.listening_socket`: every address is free."""
    return cast(socket.socket, ListeningSocket(address))


class SimulatedServer:
    """Implements `metasrv.process.accepting.Server`."""

    def __init__(self, streams: Streams, sock: socket.socket) -> None:
        self._socket = sock
        self._streams = streams

    def close(self) -> None:
        host, port = self._socket.getsockname()
        self._streams.unlisten(Endpoint(host, port))

    def give_descriptor(self) -> bool:
        """There is no shortage."""
        return False

    async def wait_closed(self) -> None:
        """Return at once: asyncio waits for connections, which the product has closed before."""


def _without_tls(context: Any) -> None:
    if context is not None:
        raise ValueError("TLS is not simulated")

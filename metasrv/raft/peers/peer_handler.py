"""The seam between a node's consensus and its peer transport: what each asks of the other.

`transport.py` implements `Transport` over sockets, the simulator over a virtual network. Knows nothing of connections.
Everything is called on the event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Protocol

from metasrv.model.errors import InvalidRequestError
from metasrv.model.types import Endpoint
from metasrv.process.clock import Clock
from metasrv.raft.observer import RaftObserver
from metasrv.raft.peers.gateway_streams import GatewayDoor
from metasrv.raft.peers.handshake import LocalIdentity, RemoteIdentity
from metasrv.raft.peers.security import PeerSecurity


class PeerHandler(Protocol):
    """Implemented by the node's consensus."""

    def peer_connected(self, node_id: int) -> None:
        """The connection that this node dialled is up, or no longer paused."""
        ...

    def peer_disconnected(self, node_id: int) -> None:
        """It went down, or is paused because too much waits to be sent; then the transport's `is_connected` still holds.

        Called again when a paused connection goes down, since what waited to be sent is lost.
        """
        ...

    def peer_lost(self, node_id: int) -> None:
        """The connection on which that node sends was closed: a hint that the node failed."""
        ...

    def message_received(self, node_id: int, generation: int, payload: bytes) -> None:
        """A raft message. Generations of one node never go back.

        Raising a PeerError, CodecError or OverloadedError closes the connection with its text.
        """
        ...

    def message_arrives(self, node_id: int) -> None:
        """A part of a large raft message arrived; what was sent after it waits behind it."""
        ...

    def admit(self, remote: RemoteIdentity) -> str | None:
        """The reason to refuse a node that wants to send raft messages, or None."""
        ...

    def request_received(self, remote: RemoteIdentity, method: str, payload: bytes) -> Coroutine[Any, Any, bytes]:
        """The answer to a request; a RequestError is raised again at the node that asked, as the same class."""
        ...


class Transport(Protocol):
    """The connections of one node to all others; see `transport.PeerTransport` for the contract of each method."""

    async def listen(self, host: str, port: int) -> Endpoint: ...

    def secure(self, security: PeerSecurity) -> None: ...

    def serve_gateways(self, door: GatewayDoor | None) -> None: ...

    def set_peers(self, endpoints: Mapping[int, Endpoint]) -> None: ...

    async def close(self) -> None: ...

    def send(self, node_id: int, payload: bytes) -> bool: ...

    async def request(self, target: int | Endpoint, method: str, payload: bytes, timeout_ms: int) -> bytes: ...

    def is_connected(self, node_id: int) -> bool: ...

    def hurry(self, node_id: int) -> None: ...

    def last_contact(self, node_id: int) -> float | None: ...

    def other_cluster(self, node_id: int) -> str | None: ...

    def known_endpoint(self, node_id: int) -> Endpoint | None: ...

    def known_directory(self, node_id: int) -> str | None: ...


TransportFactory = Callable[[LocalIdentity, PeerSecurity, PeerHandler, RaftObserver, Clock], Transport]
"""Makes the transport of one node."""


class OneShotHandler:
    """For a process that only asks and never listens."""

    def peer_connected(self, node_id: int) -> None:
        del node_id

    def peer_disconnected(self, node_id: int) -> None:
        del node_id

    def peer_lost(self, node_id: int) -> None:
        del node_id

    def message_received(self, node_id: int, generation: int, payload: bytes) -> None:
        del node_id, generation, payload

    def message_arrives(self, node_id: int) -> None:
        del node_id

    def admit(self, remote: RemoteIdentity) -> str | None:
        return f"this is a one-shot client, not a peer of node {remote.node_id}"

    async def request_received(self, remote: RemoteIdentity, method: str, payload: bytes) -> bytes:
        del remote, payload
        raise InvalidRequestError(f"a one-shot client does not answer {method!r}")

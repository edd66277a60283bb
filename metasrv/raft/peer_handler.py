"""What the peer transport tells and asks its node.

Knows nothing of connections. Everything is called on the event loop.
"""

from __future__ import annotations

from typing import Protocol

from metasrv.errors import InvalidRequestError
from metasrv.raft.handshake import RemoteIdentity


class PeerHandler(Protocol):
    """Implemented by the node's consensus."""

    def peer_connected(self, node_id: int) -> None:
        """The connection that this node dialled is up, or no longer paused."""
        ...

    def peer_disconnected(self, node_id: int) -> None:
        """It went down, or is paused because too much waits to be sent: then the transport's `is_connected` still holds.

        Alternates with `peer_connected`.
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

    def admit(self, remote: RemoteIdentity) -> str | None:
        """A sentence to refuse a node with that wants to send raft messages, or None."""
        ...

    async def request_received(self, remote: RemoteIdentity, method: str, payload: bytes) -> bytes:
        """The answer to a request; a RequestError is raised again, as the same class, at the node that asked."""
        ...


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

    def admit(self, remote: RemoteIdentity) -> str | None:
        return f"this is a one-shot client, not a peer of node {remote.node_id}"

    async def request_received(self, remote: RemoteIdentity, method: str, payload: bytes) -> bytes:
        del remote, payload
        raise InvalidRequestError(f"a one-shot client does not answer {method!r}")

"""The seam between the raft port and whoever serves gateways on other machines: whole payloads, in order, both ways.

A connection of the role GATEWAY carries frames of the kind GATEWAY and no other. What they hold is the business of
`metasrv/gateway`. Runs on the event loop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class GatewayStream(Protocol):
    """Gets what comes on one connection."""

    def frame_received(self, payload: bytes) -> None:
        """A payload; raising a PeerError, CodecError or OverloadedError closes the connection with its text."""

    def flow_changed(self, paused: bool) -> None:
        """Whether much waits to be sent."""

    def connection_lost(self, reason: str) -> None:
        """The connection is gone."""


class GatewayConnection(Protocol):
    """One connection, as its owner uses it; the ends of `connection.py` are some."""

    @property
    def address(self) -> str: ...

    @property
    def buffered_bytes(self) -> int: ...

    def send_gateway(self, payload: bytes) -> None:
        """Send by the end of this turn of the loop. Raises TooLargeError."""

    def abort(self, reason: str) -> None: ...

    def close(self, reason: str) -> None: ...


GatewayDoor = Callable[[GatewayConnection], GatewayStream]
"""Begins to serve a gateway whose handshake is over."""

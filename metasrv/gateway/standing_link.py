"""The link of a gateway on another machine, whichever node it leads to: one object that outlives connections.

Runs on the gateway's event loop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from metasrv.gateway.frame_link import FrameLink
from metasrv.model.errors import PeerUnreachableError
from metasrv.model.limits import GATEWAY_FRAME_SIZE_BYTES_MAX
from metasrv.raft.peers.gateway_streams import GatewayConnection


class StandingLink(FrameLink):
    """`lost` is called each time the link ends."""

    def __init__(self, received: Callable[[tuple[Any, ...]], None], lost: Callable[[str], None]) -> None:
        super().__init__(_NOTHING, received, lost, GATEWAY_FRAME_SIZE_BYTES_MAX)
        self._ended = "it was not linked to a node yet"
        self.is_up = False
        """A node has greeted this gateway, and the link holds."""
        self.count = 0
        """Links so far."""

    @property
    def failure(self) -> str:
        """Why there is no link."""
        return self._ended

    def check(self) -> None:
        """Raise PeerUnreachableError while there is no link: nothing was done, and another server may do it."""
        if not self.is_up:
            raise PeerUnreachableError(
                f"this gateway is not linked to a node now: {self._ended or 'it is being greeted'}"
            )

    def attach(self, connection: GatewayConnection) -> Attached:
        """Go on over a new connection; returns what takes its frames."""
        self._connection = connection
        self._waiting, self._waiting_size_bytes, self._ended = [], 0, ""
        self._drop_parts()
        self._resumed.set()
        self.heard_at = self._loop.time()
        self.count += 1
        return Attached(self, connection)

    def holds(self, connection: GatewayConnection) -> bool:
        """Whether this is the connection that the link goes over."""
        return self._connection is connection and not self._ended

    def _end(self, reason: str) -> None:
        self.is_up = False
        super()._end(reason)


class Attached:
    """Implements `GatewayStream` for one connection; those that were replaced are no longer heard."""

    def __init__(self, link: StandingLink, connection: GatewayConnection) -> None:
        self._link = link
        self._connection = connection

    def frame_received(self, payload: bytes) -> None:
        """See `GatewayStream`."""
        if self._link.holds(self._connection):
            self._link.frame_received(payload)

    def flow_changed(self, paused: bool) -> None:
        """See `GatewayStream`."""
        if self._link.holds(self._connection):
            self._link.flow_changed(paused)

    def connection_lost(self, reason: str) -> None:
        """See `GatewayStream`."""
        if self._link.holds(self._connection):
            self._link.connection_ended(reason)


class _NoConnection:
    """Before the first one."""

    address = "nowhere"
    buffered_bytes = 0

    def send_gateway(self, payload: bytes) -> None:
        """Nobody is there."""

    def abort(self, reason: str) -> None:
        """Nobody is there."""

    close = abort


_NOTHING = _NoConnection()

"""One end of the link between a node and a gateway on another machine: frames of the peer protocol (`raft/peers`).

Integrity and TLS are the connection's. Has the interface of `link.Link`, and the same bounds. The other end may be of
another release, or hostile: what is not understood ends the link. Runs on the event loop.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from metasrv.gateway.link import Link
from metasrv.model.errors import CodecError, FrameError, RequestError, TooLargeError
from metasrv.model.wire import unpack
from metasrv.raft.peers.gateway_streams import GatewayConnection

logger = logging.getLogger(__name__)

UNSENT_SIZE_BYTES_MAX = 128 * 1024 * 1024
"""What one end may have sent that the other has not taken; past it the link is cut. Holds the largest frame and more."""


class FrameLink(Link):
    """Implements `GatewayStream`; carries messages over one connection."""

    def __init__(
        self,
        connection: GatewayConnection,
        received: Callable[[tuple[Any, ...]], None],
        lost: Callable[[str], None],
    ) -> None:
        super().__init__(received, lost)
        self._connection = connection

    @property
    def address(self) -> str:
        """The other end's."""
        return self._connection.address

    @property
    def unsent_size_bytes(self) -> int:
        return self._connection.buffered_bytes

    def cut(self, reason: str) -> None:
        self._connection.abort(reason)
        self._end(reason)

    def finish(self, reason: str) -> None:
        """Send what waits, then end the link."""
        self._turn_ended()
        self._connection.close(reason)
        self._end(reason)

    def _put(self, data: bytes) -> None:
        try:
            self._connection.send_gateway(data)
        except TooLargeError as error:
            self.cut(f"a message is too large for the link: {error}")
            return
        if self._connection.buffered_bytes > UNSENT_SIZE_BYTES_MAX:
            self.cut(f"more than {UNSENT_SIZE_BYTES_MAX} bytes wait to be taken")

    @property
    def _is_open(self) -> bool:
        return not self._ended

    # ------------------------------------------------------------------------- GatewayStream

    def frame_received(self, payload: bytes) -> None:
        """See `GatewayStream`."""
        if self._ended:
            return
        try:
            messages = unpack(payload)
            if type(messages) is not tuple:
                raise CodecError("a frame that is no list of messages")
            self._received(messages)
        except (CodecError, RequestError, TypeError, ValueError, LookupError, AttributeError) as error:
            raise FrameError(f"a message of a gateway's link is not understood: {error}") from error

    def flow_changed(self, paused: bool) -> None:
        """See `GatewayStream`."""
        (self.pause_writing if paused else self.resume_writing)()

    def connection_lost(self, reason: Any) -> None:
        """See `GatewayStream`."""
        self.connection_ended(str(reason))

    def connection_ended(self, reason: str) -> None:
        """The connection is gone."""
        self._end(reason)

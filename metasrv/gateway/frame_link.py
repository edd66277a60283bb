"""One end of the link between a node and a gateway on another machine: frames of the peer protocol (`raft/peers`).

    payload   1 if more of it follows in the next payload, else 0, 1 byte · a part of a msgpack array of messages

Integrity and TLS are the connection's. Has the interface of `link.Link`, and the same bounds; what is larger than a frame
of the peer protocol takes is sent in parts. The other end may be of another release, or hostile: what is not understood
ends the link. Runs on the event loop.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from metasrv.gateway.link import Link
from metasrv.model.errors import CodecError, FrameError, RequestError
from metasrv.model.limits import GATEWAY_UNSENT_SIZE_BYTES_MAX
from metasrv.model.wire import unpack
from metasrv.raft.peers.gateway_streams import GatewayConnection

logger = logging.getLogger(__name__)

PART_SIZE_BYTES = 4 * 1024 * 1024
_LAST, _MORE = b"\0", b"\1"


class FrameLink(Link):
    """Implements `GatewayStream`; carries messages over one connection."""

    def __init__(
        self,
        connection: GatewayConnection,
        received: Callable[[tuple[Any, ...]], None],
        lost: Callable[[str], None],
        message_size_bytes_max: int,
    ) -> None:
        """`message_size_bytes_max` is for what arrives together."""
        super().__init__(received, lost)
        self._connection = connection
        self._message_size_bytes_max = message_size_bytes_max
        self.heard_at = self._loop.time()
        """When a payload came, of whatever size."""
        self._parts: list[bytes] = []
        self._parts_size_bytes = 0

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
        end = 0
        while len(data) - end > PART_SIZE_BYTES:
            self._connection.send_gateway(_MORE + data[end : end + PART_SIZE_BYTES])
            end += PART_SIZE_BYTES
        self._connection.send_gateway(_LAST + data[end:])
        if self._connection.buffered_bytes > GATEWAY_UNSENT_SIZE_BYTES_MAX:
            self.cut(f"more than {GATEWAY_UNSENT_SIZE_BYTES_MAX} bytes wait to be taken")

    @property
    def _is_open(self) -> bool:
        return not self._ended

    # ------------------------------------------------------------------------- GatewayStream

    def frame_received(self, payload: bytes) -> None:
        """See `GatewayStream`."""
        if self._ended:
            return
        self.heard_at = self._loop.time()
        self._parts.append(payload[1:])
        self._parts_size_bytes += len(payload)
        if self._parts_size_bytes > self._message_size_bytes_max:
            raise FrameError(f"messages of more than {self._message_size_bytes_max} bytes came together")
        if payload[:1] == _MORE:
            return
        whole = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._drop_parts()
        try:
            if payload[:1] != _LAST:
                raise CodecError("a payload that is neither a part nor the last one")
            messages = unpack(whole)
            if type(messages) is not tuple:
                raise CodecError("a frame that is no list of messages")
            self._received(messages)
        except (CodecError, RequestError, TypeError, ValueError, LookupError, AttributeError) as error:
            raise FrameError(f"a message of a gateway's link is not understood: {error}") from error

    def _drop_parts(self) -> None:
        self._parts, self._parts_size_bytes = [], 0

    def flow_changed(self, paused: bool) -> None:
        """See `GatewayStream`."""
        (self.pause_writing if paused else self.resume_writing)()

    def connection_lost(self, reason: Any) -> None:
        """See `GatewayStream`."""
        self.connection_ended(str(reason))

    def connection_ended(self, reason: str) -> None:
        """The connection is gone."""
        self._end(reason)

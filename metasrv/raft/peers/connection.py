"""One end of a peer connection as an asyncio protocol: frames in and out of a byte stream, gathered and bounded.

Holds what is the same for the end that dialled and the end that accepted. What a connection means for its node is decided
by its owner (`dialling.py`, `listener.py`). Knows nothing of redialling, listeners or Raft. Runs on the event loop, over
any byte stream.
"""

from __future__ import annotations

import asyncio
import socket
from abc import ABC, abstractmethod
from typing import Any, Protocol, cast

from metasrv.model.errors import CodecError, FrameError, OverloadedError, PeerError
from metasrv.model.limits import (
    HANDSHAKE_TIMEOUT_MS,
    HELLO_SIZE_BYTES_MAX,
    PEER_BUFFER_HIGH_BYTES,
    PEER_BUFFER_LOW_BYTES,
    PEER_FRAME_SIZE_BYTES_MAX,
)
from metasrv.model.wire import unpack
from metasrv.process.certificates import Certificate, certificate_in
from metasrv.raft.peers.frames import (
    ChecksumIntegrity,
    DamagedHeadError,
    Frame,
    FrameKind,
    FrameReader,
    Integrity,
    KeyedIntegrity,
    frame_parts,
)
from metasrv.raft.peers.gateway_streams import GatewayStream
from metasrv.raft.peers.handshake import Agreement, RemoteIdentity, Role

FLUSH_SIZE_BYTES = 64 * 1024
"""Frames are gathered until the end of the loop's iteration, or until they have this size."""
UNACKNOWLEDGED_MS_MAX = 3_000
"""A connection is given up when the peer's machine acknowledges no bytes for this long, where the system can do so."""
_KEEPALIVE_IDLE_SECONDS = 5
_KEEPALIVE_INTERVAL_SECONDS = 1


class ConnectionEvents(Protocol):
    """What a connection tells its owner. `lost` is called once for each connection that was begun."""

    def established(self, connection: Connection) -> None: ...

    def flow_changed(self, connection: Connection) -> None:
        """`connection.paused` changed; may be called from within a send."""
        ...

    def lost(self, connection: Connection) -> None: ...

    def sent(self, connection: Connection, size_bytes: int) -> None: ...

    def received(self, connection: Connection, size_bytes: int) -> None: ...


class Connection(asyncio.Protocol, ABC):
    """Frames in and out of one byte stream, gathered and bounded."""

    def __init__(self, events: ConnectionEvents) -> None:
        self.remote: RemoteIdentity | None = None
        """Who is there; None until the handshake is over."""
        self.role = Role.CLIENT
        self.paused = False
        """More than `PEER_BUFFER_HIGH_BYTES` wait to be sent, and not yet less than `PEER_BUFFER_LOW_BYTES`."""
        self.closed = False
        """Nothing is delivered or sent any more."""
        self.failure: str | None = None
        """Why it was closed, as the end of a sentence."""
        self.certificate: Certificate | None = None
        """The other side's certificate, which TLS has verified; None without TLS."""
        self._events = events
        self._loop = asyncio.get_running_loop()
        self.gateway: GatewayStream | None = None
        """What takes the frames of a connection of the role GATEWAY."""
        self.gone: asyncio.Future[None] = self._loop.create_future()
        """Done when the byte stream, once begun, is closed and `lost` was called."""
        self._transport: asyncio.Transport | None = None
        self._handshake_timer: asyncio.TimerHandle | None = None
        self._reader = FrameReader(ChecksumIntegrity(), HELLO_SIZE_BYTES_MAX)
        self._outgoing_integrity: Integrity = ChecksumIntegrity()
        self._outgoing: list[bytes] = []
        self._outgoing_size_bytes = 0

    @property
    def is_open(self) -> bool:
        return self.remote is not None and not self.closed

    @property
    def buffered_bytes(self) -> int:
        """Bytes that wait to be sent."""
        waiting = 0 if self._transport is None else self._transport.get_write_buffer_size()
        return waiting + self._outgoing_size_bytes

    @property
    def address(self) -> str:
        """The other side's socket address, for logs."""
        name = None if self._transport is None else self._transport.get_extra_info("peername")
        return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else "an unknown address"

    def send_gateway(self, payload: bytes) -> None:
        """Send messages of a gateway, or to one, on an open connection. Raises TooLargeError."""
        self._send(FrameKind.GATEWAY, payload)

    def abort(self, reason: str) -> None:
        """Close at once and drop what waits; nothing is delivered after the call. The first reason stays."""
        self._end(reason)
        if self._transport is not None:
            self._transport.abort()

    def close(self, reason: str) -> None:
        """Deliver nothing more, send what waits, then close. The first reason stays."""
        if not self.closed:
            self._flush()
        self._end(reason)
        # Closed a second time, a TLS stream of asyncio could not be cut off any more.
        if self._transport is not None and not self._transport.is_closing():
            self._transport.close()

    # ------------------------------------------------------------------------- called by the loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = cast(asyncio.Transport, transport)
        self._transport = stream
        stream.set_write_buffer_limits(high=PEER_BUFFER_HIGH_BYTES, low=PEER_BUFFER_LOW_BYTES)
        _tune(transport.get_extra_info("socket"))
        self.certificate = _certificate_behind(transport)
        self._handshake_timer = self._loop.call_later(HANDSHAKE_TIMEOUT_MS / 1000, self.handshake_expired)
        if self.closed:
            stream.abort()

    def data_received(self, data: bytes) -> None:
        if self.closed:
            return
        self._events.received(self, len(data))
        self._reader.feed(data)
        try:
            while not self.closed:
                frame = self._reader.next_frame()
                if frame is None:
                    return
                self._frame_received(frame)
        except (PeerError, CodecError, OverloadedError) as error:
            if not self.closed:
                self._fail(str(error) + self._hint(error))

    def pause_writing(self) -> None:
        self.paused = True
        self._events.flow_changed(self)
        if self.gateway is not None:
            self.gateway.flow_changed(True)

    def resume_writing(self) -> None:
        self.paused = False
        self._events.flow_changed(self)
        if self.gateway is not None:
            self.gateway.flow_changed(False)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(f"the connection was lost: {exc}" if exc is not None else "the other side closed the connection")
        self._events.lost(self)
        if self.gateway is not None:
            self.gateway.connection_lost(self.failure or "the connection ended")
        self.gone.set_result(None)

    def handshake_expired(self) -> None:
        """The timer of the handshake ran out."""
        self.abort(f"the handshake was not finished within {HANDSHAKE_TIMEOUT_MS} ms")

    def _hint(self, error: Exception) -> str:
        """What to add to the error about the first frame of an early metasrv 0.1, whose frames had no such check."""
        if self.remote is not None or not isinstance(error, DamagedHeadError):
            return ""
        return ", or the other side runs metasrv 0.1, which speaks another peer protocol, see docs/upgrading.md"

    # ------------------------------------------------------------------------- for the two ends

    @abstractmethod
    def _frame_received(self, frame: Frame) -> None:
        """Take a frame; raises PeerError, CodecError or OverloadedError to close the connection with its text."""

    def _fail(self, reason: str) -> None:
        """The other side broke the rules, or its message cannot be taken."""
        self.abort(reason)

    def _end(self, reason: str) -> None:
        if self.closed:
            return
        self.closed = True
        self.failure = reason
        self._outgoing.clear()
        self._outgoing_size_bytes = 0
        if self._handshake_timer is not None:
            self._handshake_timer.cancel()

    def _agreed(self, agreement: Agreement, dialled: bool) -> None:
        """The handshake is over: from the next frame on, in both directions, its keys and the large limit hold."""
        self.remote, self.role = agreement.remote, agreement.role
        self._reader.frame_size_bytes_max = PEER_FRAME_SIZE_BYTES_MAX
        keys = agreement.keys
        if keys is None:
            self._reader.integrity, self._outgoing_integrity = ChecksumIntegrity(), ChecksumIntegrity()
        else:
            receiving, sending = (keys.acceptor, keys.dialler) if dialled else (keys.dialler, keys.acceptor)
            self._reader.integrity, self._outgoing_integrity = KeyedIntegrity(receiving), KeyedIntegrity(sending)
        if self._handshake_timer is not None:
            self._handshake_timer.cancel()

    def _send(self, kind: FrameKind, payload: bytes) -> None:
        """Write a frame by the end of this iteration of the loop. Raises TooLargeError; then nothing was written."""
        parts = frame_parts(kind, payload, self._outgoing_integrity)
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing += parts
        self._outgoing_size_bytes += sum(map(len, parts))
        if self._outgoing_size_bytes >= FLUSH_SIZE_BYTES:
            self._flush()

    def _flush(self) -> None:
        if not self._outgoing or self._transport is None:
            return
        parts, size_bytes = self._outgoing, self._outgoing_size_bytes
        self._outgoing, self._outgoing_size_bytes = [], 0
        if size_bytes < FLUSH_SIZE_BYTES:
            self._transport.write(b"".join(parts))
        else:
            self._transport.writelines(parts)
        self._events.sent(self, size_bytes)


def triple(payload: bytes) -> tuple[Any, Any, Any]:
    """The three parts of a request or an answer, not yet checked. Raises FrameError, CodecError."""
    tree = unpack(payload)
    if type(tree) is not tuple or len(tree) != 3:
        raise FrameError("a request or an answer does not have its three parts")
    return tree


def _certificate_behind(transport: asyncio.BaseTransport) -> Certificate | None:
    """What the other side showed; None without TLS, or when it is not understood, which counts as none."""
    secured = transport.get_extra_info("ssl_object")
    encoded = None if secured is None else secured.getpeercert(binary_form=True)
    try:
        return None if encoded is None else certificate_in(encoded)
    except ValueError:
        return None


def _tune(peer_socket: socket.socket | None) -> None:
    """Send small frames at once, and find out soon when the machine at the other end is gone."""
    if peer_socket is None:
        return
    options = [
        (socket.IPPROTO_TCP, "TCP_NODELAY", 1),
        (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
        (socket.IPPROTO_TCP, "TCP_KEEPIDLE", _KEEPALIVE_IDLE_SECONDS),
        (socket.IPPROTO_TCP, "TCP_KEEPINTVL", _KEEPALIVE_INTERVAL_SECONDS),
        (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", UNACKNOWLEDGED_MS_MAX),
    ]
    for level, name, value in options:
        option = getattr(socket, name, None)
        if option is not None:
            try:
                peer_socket.setsockopt(level, option, value)
            except OSError:
                continue  # a system without this option, or a connection that is already gone: it works without

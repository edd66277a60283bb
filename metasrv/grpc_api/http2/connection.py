"""One client's connection: frames in, frames out, the peer's settings and windows (RFC 9113).

Runs on the event loop as an asyncio protocol. Every limit on what a peer may make this node keep or do stands here or in
`call.py`; a peer that breaks the protocol or a limit is told so by GOAWAY and cut off.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, cast

import grpc

from metasrv.grpc_api.http2 import frames as f
from metasrv.grpc_api.http2.call import STREAM_WINDOW_SIZE_BYTES, ServerCall
from metasrv.grpc_api.http2.frame_reader import FrameReader, NotHttp2Error
from metasrv.grpc_api.http2.frames import ConnectionBrokenError, ErrorCode, StreamBrokenError
from metasrv.grpc_api.http2.headers import (
    HEADER_LIST_SIZE_BYTES_MAX,
    RESPONSE_BLOCK,
    Request,
    RequestDecoder,
    http_error_block,
    status_block,
)
from metasrv.grpc_api.http2.peer_name import peer_name
from metasrv.grpc_api.http2.sending import Sender, header_frames

if TYPE_CHECKING:
    from metasrv.grpc_api.http2.server import GrpcServer

logger = logging.getLogger(__name__)

CONNECTION_WINDOW_SIZE_BYTES = 16 * 1024 * 1024
CHORES_MAX = 10_000
"""Frames between two ticks of the server that bring no call forward: resets, pings, settings, empty data.

One more for each piece of an answer: a client may measure its connection with a ping for every piece that arrives."""
TICKS_UNTIL_PING = 4
TICKS_UNTIL_DEAD = 6
"""A client that vanished without a word is asked after 20 seconds and cut off, its watchers with it, after 30."""
WRITE_BUFFER_SIZE_BYTES = 1024 * 1024
STALLED_TICKS_MAX = 18
"""A minute and a half: a client that reads nothing of an answer for so long loses the call."""
UNREAD_SIZE_BYTES_MAX = 16 * 1024 * 1024
"""A peer that reads nothing and goes on asking is cut off when so much waits for it in the socket's buffer."""
_UNIMPLEMENTED: int = grpc.StatusCode.UNIMPLEMENTED.value[0]
HTTP1_ANSWER = (
    b"HTTP/1.1 505 HTTP Version Not Supported\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\n"
    b"This port speaks gRPC over HTTP/2; HTTP requests belong to the admin API's port.\n"
)


class Connection(asyncio.Protocol):
    """Implements `sending.Link` for its calls and `frame_reader.FrameSink` for its reader."""

    def __init__(self, server: GrpcServer) -> None:
        self._server = server
        self.loop = server.loop
        self.message_size_bytes_max = server.message_size_bytes_max
        self.budget = server.budget
        self.window = f.WINDOW_SIZE_BYTES_DEFAULT
        self.initial_window = f.WINDOW_SIZE_BYTES_DEFAULT
        self.frame_size_max = f.FRAME_SIZE_BYTES_MAX
        self.paused = False
        self.waiting: dict[int, Sender] = {}
        self.peer = ""
        self.calls: dict[int, ServerCall] = {}
        self.quiet_ticks = 0
        """Ticks of the server since anything was received."""
        self._transport: asyncio.Transport | None = None
        self._decoder = RequestDecoder()
        self._reader = FrameReader(server.loop, self)
        self._last_stream_id = 0
        self._going_away = False
        self._received_bytes = 0
        """Of data, not yet given back to the connection's window."""
        self._chores = 0
        self.data_frames = 0

    # ------------------------------------------------------------------------- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER_SIZE_BYTES)
        self.peer = peer_name(transport.get_extra_info("peername"))
        if not self._server.admit(self):
            self.abort()

    def connection_lost(self, error: Exception | None) -> None:
        del error
        self._transport = None
        self._reader.end()
        self._server.lost(self)
        for call in tuple(self.calls.values()):
            call.close()

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        self._pump()

    def data_received(self, data: bytes) -> None:
        self.quiet_ticks = 0
        transport = self._transport
        # What needs no window, such as refusals, waits in the socket's buffer.
        if self.paused and transport is not None and transport.get_write_buffer_size() > UNREAD_SIZE_BYTES_MAX:
            logger.warning("a gRPC client at %s is cut off: it asks and asks and reads no answer", self.peer)
            self.abort()
            return
        self._reader.feed(data)

    # ------------------------------------------------------------------------- for calls and the server

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def forget(self, stream_id: int, call: ServerCall) -> None:
        """The call is over."""
        self.calls.pop(stream_id, None)
        self._server.call_ended(call)

    def tick(self) -> None:
        """Every few seconds: forget old chores, ask a silent peer whether it lives, cut off what does not move."""
        self._chores = self.data_frames = 0
        for stream_id, sender in tuple(self.waiting.items()):
            sender.stalled_ticks += 1
            if sender.stalled_ticks > STALLED_TICKS_MAX:
                self.calls[stream_id].give_up("the client took nothing of the answer for too long")
        self.quiet_ticks += 1
        if self.quiet_ticks >= TICKS_UNTIL_DEAD:
            self.abort()
        elif self.quiet_ticks >= TICKS_UNTIL_PING and self._reader.greeted:
            self.write(f.frame(f.PING, 0, 0, b"metasrv?"))

    def go_away(self) -> None:
        """Take no more calls; those under way go on."""
        if not self._going_away:
            self._going_away = True
            self.write(f.goaway(self._last_stream_id, ErrorCode.NO_ERROR, "this node is stopping"))

    def close(self) -> None:
        """Close once what was written is sent."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    # ------------------------------------------------------------------------- frames

    def on_greeting(self) -> None:
        """Not before: clients of other protocols would read it as an answer."""
        self.write(
            f.settings_frame(
                {
                    f.SETTING_MAX_CONCURRENT_STREAMS: self._server.streams_max,
                    f.SETTING_INITIAL_WINDOW_SIZE: STREAM_WINDOW_SIZE_BYTES,
                    f.SETTING_MAX_HEADER_LIST_SIZE: HEADER_LIST_SIZE_BYTES_MAX,
                }
            )
            + f.window_update(0, CONNECTION_WINDOW_SIZE_BYTES - f.WINDOW_SIZE_BYTES_DEFAULT)
        )

    def on_error(self, error: Exception) -> None:
        """The peer broke the protocol, or speaks another one."""
        if isinstance(error, ConnectionBrokenError):
            logger.warning("a gRPC client at %s is cut off: %s", self.peer, error)
            self._going_away = True
            self.write(f.goaway(self._last_stream_id, error.code, str(error)))
        elif isinstance(error, NotHttp2Error) and error.http1:
            self.write(HTTP1_ANSWER)
        self.close()

    def on_frame(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if kind == f.DATA:
            self._on_data(flags, stream_id, payload)
        elif kind == f.HEADERS:
            self._on_headers(flags, stream_id, payload)
        else:
            handler = _HANDLERS.get(kind)
            if handler is None:
                self._chore()  # frames of unknown kinds mean nothing (RFC 9113 section 5.5)
            else:
                handler(self, flags, stream_id, payload)

    def hold(self, hold: bool) -> None:
        if self._transport is not None:
            if hold:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    def _on_data(self, flags: int, stream_id: int, payload: bytes) -> None:
        self._received_bytes += len(payload)
        if self._received_bytes > CONNECTION_WINDOW_SIZE_BYTES:
            raise ConnectionBrokenError(ErrorCode.FLOW_CONTROL_ERROR, "more data than the connection's window")
        if self._received_bytes > CONNECTION_WINDOW_SIZE_BYTES // 2:
            self.write(f.window_update(0, self._received_bytes))
            self._received_bytes = 0
        if not payload:
            self._chore()
        call = self.calls.get(stream_id)
        if call is None:
            self._check_was_open(stream_id)  # data on its way while the call ended
            return
        content = payload
        if flags & f.PADDED:
            content = f.without_padding(flags, payload)
            # Padding counts in the stream's window, and nobody will ever take it.
            self.write(f.window_update(stream_id, len(payload) - len(content)))
        try:
            call.receive(content, bool(flags & f.END_STREAM))
        except StreamBrokenError as problem:
            self._reset(stream_id, problem.code)

    def _on_headers(self, flags: int, stream_id: int, block: bytes) -> None:
        ended = bool(flags & f.END_STREAM)
        if stream_id <= self._last_stream_id:
            self._on_trailers(stream_id, ended, block)
            return
        if not stream_id & 1:
            raise ConnectionBrokenError(ErrorCode.PROTOCOL_ERROR, "a client's stream with an even number")
        try:
            request = self._decoder.decode(block)
            if self._going_away:
                return  # its number is above the one that GOAWAY named: the client knows that nothing was done
            self._last_stream_id = stream_id
            if len(self.calls) >= self._server.streams_max:
                self._reset(stream_id, ErrorCode.REFUSED_STREAM)
                return
            self._open(stream_id, request, ended)
        except StreamBrokenError as problem:
            self._last_stream_id = stream_id
            self._reset(stream_id, problem.code)

    def _on_trailers(self, stream_id: int, ended: bool, block: bytes) -> None:
        """A second block of headers on a stream ends the request; gRPC's clients send none."""
        self._check_was_open(stream_id)
        self._decoder.decode_any(block)
        call = self.calls.get(stream_id)
        if call is None:
            return
        try:
            if not ended:
                raise StreamBrokenError(ErrorCode.PROTOCOL_ERROR)
            call.receive(b"", True)
        except StreamBrokenError as problem:
            self._reset(stream_id, problem.code)

    def _open(self, stream_id: int, request: Request, ended: bool) -> None:
        route = self._server.routes.get(request.path)
        if request.http_status != 200 or route is None:
            block = (
                http_error_block(request.http_status)
                if request.http_status != 200
                else RESPONSE_BLOCK + status_block(_UNIMPLEMENTED, f"this server has no method {request.path}")
            )
            self.write(header_frames(stream_id, block, f.END_STREAM, self.frame_size_max))
            if not ended:
                self.write(f.reset(stream_id, ErrorCode.NO_ERROR))
            return
        seconds = request.timeout_seconds
        call = ServerCall(self, stream_id, request, route, None if seconds is None else self.loop.time() + seconds)
        self.calls[stream_id] = call
        self._server.call_began()
        if seconds is not None:
            self._server.timed(call)
        call.begin()
        if ended and not call.closed:
            call.receive(b"", True)

    def _on_reset(self, flags: int, stream_id: int, payload: bytes) -> None:
        del flags
        _check_size("RST_STREAM", payload, 4)
        self._check_was_open(stream_id)
        self._chore()
        call = self.calls.get(stream_id)
        if call is not None:
            call.close()

    def _on_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise ConnectionBrokenError(ErrorCode.PROTOCOL_ERROR, "a SETTINGS frame on a stream")
        if flags & f.ACK:
            _check_size("acknowledging SETTINGS", payload, 0)
            return
        self._chore()
        for setting, value in f.parse_settings(payload):
            if setting == f.SETTING_INITIAL_WINDOW_SIZE:
                self._change_initial_window(value)
            elif setting == f.SETTING_MAX_FRAME_SIZE:
                if not f.FRAME_SIZE_BYTES_MAX <= value < 2**24:
                    raise ConnectionBrokenError(ErrorCode.PROTOCOL_ERROR, f"a maximum frame size of {value}")
                self.frame_size_max = min(value, 4 * f.FRAME_SIZE_BYTES_MAX)
            elif setting == f.SETTING_ENABLE_PUSH and value > 1:
                raise ConnectionBrokenError(ErrorCode.PROTOCOL_ERROR, f"ENABLE_PUSH is {value}")
        self.write(f.frame(f.SETTINGS, f.ACK, 0))
        self._pump()

    def _change_initial_window(self, value: int) -> None:
        if value > f.WINDOW_SIZE_BYTES_MAX:
            raise ConnectionBrokenError(ErrorCode.FLOW_CONTROL_ERROR, f"an initial window of {value}")
        change = value - self.initial_window
        self.initial_window = value
        for call in self.calls.values():
            call.sender.window += change
            if call.sender.window > f.WINDOW_SIZE_BYTES_MAX:
                raise ConnectionBrokenError(ErrorCode.FLOW_CONTROL_ERROR, "a stream's window is too large")

    def _on_ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise ConnectionBrokenError(ErrorCode.PROTOCOL_ERROR, "a PING frame on a stream")
        _check_size("PING", payload, 8)
        if not flags & f.ACK:
            self._chore()
            self.write(f.frame(f.PING, f.ACK, 0, payload))

    def _on_window_update(self, flags: int, stream_id: int, payload: bytes) -> None:
        del flags
        _check_size("WINDOW_UPDATE", payload, 4)
        increment = int.from_bytes(payload, "big") & f.WINDOW_SIZE_BYTES_MAX
        if stream_id == 0:
            self.window += increment
            if not increment or self.window > f.WINDOW_SIZE_BYTES_MAX:
                code = ErrorCode.FLOW_CONTROL_ERROR if increment else ErrorCode.PROTOCOL_ERROR
                raise ConnectionBrokenError(code, f"the connection's window grows by {increment} to {self.window}")
            self._pump()
            return
        self._check_was_open(stream_id)
        call = self.calls.get(stream_id)
        if call is None:
            return
        call.sender.window += increment
        if not increment or call.sender.window > f.WINDOW_SIZE_BYTES_MAX:
            self._reset(stream_id, ErrorCode.FLOW_CONTROL_ERROR if increment else ErrorCode.PROTOCOL_ERROR)
        elif call.sender.waits:
            call.sender.pump()

    def _on_priority(self, flags: int, stream_id: int, payload: bytes) -> None:
        del flags
        if not stream_id:
            raise ConnectionBrokenError(ErrorCode.PROTOCOL_ERROR, "a PRIORITY frame on no stream")
        _check_size("PRIORITY", payload, 5)
        self._chore()

    def _on_push_promise(self, flags: int, stream_id: int, payload: bytes) -> None:
        raise ConnectionBrokenError(ErrorCode.PROTOCOL_ERROR, "a client that pushes")

    # ------------------------------------------------------------------------- small things

    def _reset(self, stream_id: int, code: ErrorCode) -> None:
        self.write(f.reset(stream_id, code))
        self._chore()
        call = self.calls.get(stream_id)
        if call is not None:
            call.close()

    def _check_was_open(self, stream_id: int) -> None:
        if not stream_id or (stream_id > self._last_stream_id and not self._going_away):
            raise ConnectionBrokenError(
                ErrorCode.PROTOCOL_ERROR, f"a frame on stream {stream_id}, which was never opened"
            )

    def _chore(self) -> None:
        self._chores += 1
        if self._chores > CHORES_MAX + self.data_frames:
            raise ConnectionBrokenError(ErrorCode.ENHANCE_YOUR_CALM, "too many frames that bring no call forward")

    def _pump(self) -> None:
        """Let every sender that waits send what it may."""
        for sender in tuple(self.waiting.values()):
            if self.paused or self.window <= 0:
                return
            sender.pump()


_HANDLERS: dict[int, Any] = {
    f.PRIORITY: Connection._on_priority,
    f.RST_STREAM: Connection._on_reset,
    f.SETTINGS: Connection._on_settings,
    f.PUSH_PROMISE: Connection._on_push_promise,
    f.PING: Connection._on_ping,
    f.WINDOW_UPDATE: Connection._on_window_update,
}


def _check_size(name: str, payload: bytes, size_bytes: int) -> None:
    if len(payload) != size_bytes:
        raise ConnectionBrokenError(ErrorCode.FRAME_SIZE_ERROR, f"a {name} frame of {len(payload)} bytes")

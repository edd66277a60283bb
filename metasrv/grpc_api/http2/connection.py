"""One client's connection: frames in, frames out, the peer's settings and windows (RFC 9113 sections 5 and 6).

Runs on the event loop as an asyncio protocol. The limits on what a peer may make this node keep or do are here, in
`frame_reader.py`, `headers.py` and `call.py`; a connection error ends the connection with GOAWAY, a stream error ends one
stream with RST_STREAM.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, cast

from metasrv.grpc_api.http2 import frames as f
from metasrv.grpc_api.http2.call import STREAM_WINDOW_SIZE_BYTES, ServerCall
from metasrv.grpc_api.http2.frame_reader import FrameReader, NotHttp2Error
from metasrv.grpc_api.http2.frames import ErrorCode, Http2ConnectionError, Http2StreamError
from metasrv.grpc_api.http2.headers import (
    HEADER_LIST_SIZE_BYTES_MAX,
    RESPONSE_HEADERS,
    Request,
    RequestDecoder,
    http_error_headers,
    status_trailers,
)
from metasrv.grpc_api.http2.interfaces import ConnectionServer
from metasrv.grpc_api.http2.peer_name import peer_name
from metasrv.grpc_api.http2.sending import header_frames
from metasrv.grpc_api.http2.status import StatusCode

logger = logging.getLogger(__name__)

CONNECTION_WINDOW_SIZE_BYTES = 16 * 1024 * 1024
"""Flow-control window of the connection: what a client may send on all its streams before more is granted."""
CONTROL_FRAMES_MAX = 10_000
"""Frames between two ticks of the server that bring no call forward: resets, pings, settings, empty DATA (RFC 9113
section 10.5).

One more is allowed for each DATA frame sent: a client may measure the connection with a ping for each that arrives."""
TICKS_UNTIL_PING = 4
TICKS_UNTIL_DEAD = 6
"""A client that is silent for 20 seconds is sent a PING; after 30 its connection and its watchers are closed."""
WRITE_BUFFER_SIZE_BYTES = 1024 * 1024
STALLED_TICKS_MAX = 18
"""A client that takes no data of a response for a minute and a half loses the call."""
UNREAD_SIZE_BYTES_MAX = 16 * 1024 * 1024
"""A peer that sends requests without reading is cut off when this much waits for it in the socket's buffer."""
HTTP1_ANSWER = (
    b"HTTP/1.1 505 HTTP Version Not Supported\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\n"
    b"This port speaks gRPC over HTTP/2; HTTP requests belong to the admin API's port.\n"
)


class Connection(asyncio.Protocol):
    """Implements `StreamConnection`, `ServedConnection` and `FrameSink`."""

    def __init__(self, server: ConnectionServer) -> None:
        self._server = server
        self.loop = server.loop
        self.message_size_bytes_max = server.message_size_bytes_max
        self.refusal_metadata = server.refusal_metadata
        self.budget = server.budget
        self.send_window_bytes = f.WINDOW_SIZE_BYTES_DEFAULT
        self.initial_window_bytes = f.WINDOW_SIZE_BYTES_DEFAULT
        self.frame_size_bytes_max = f.PAYLOAD_SIZE_BYTES_MAX
        self.writing_paused = False
        self.waiting: dict[int, None] = {}
        self.peer = ""
        self.calls: dict[int, ServerCall] = {}
        self.silent_ticks = 0
        """Ticks of the server since anything was received."""
        self._transport: asyncio.Transport | None = None
        self._decoder = RequestDecoder()
        self._reader = FrameReader(server.loop, self)
        self._last_stream_id = 0
        self._going_away = False
        self._received_bytes = 0
        """DATA received, and not yet given back to the connection's window with WINDOW_UPDATE."""
        self._control_frames = 0
        """Counted since the server's last tick, as is `data_frames`."""
        self.data_frames = 0

    # ------------------------------------------------------------------------- for asyncio

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
        self.writing_paused = True

    def resume_writing(self) -> None:
        self.writing_paused = False
        self._pump()

    def data_received(self, data: bytes) -> None:
        self.silent_ticks = 0
        transport = self._transport
        # Frames that need no window, such as refusals, wait in the socket's buffer.
        if self.writing_paused and transport is not None and transport.get_write_buffer_size() > UNREAD_SIZE_BYTES_MAX:
            logger.warning("a gRPC client at %s is cut off: it sends requests and reads no answer", self.peer)
            self.abort()
            return
        self._reader.feed(data)

    # ------------------------------------------------------------------------- for calls and the server

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def forget(self, stream_id: int) -> None:
        call = self.calls.pop(stream_id)
        if call.deadline is not None:
            self._server.deadlines.remove(call)
        self._server.call_ended()

    def tick(self) -> None:
        """Reset the counts, send a silent peer a PING, and end what does not move."""
        self._control_frames = self.data_frames = 0
        for stream_id in tuple(self.waiting):
            call = self.calls[stream_id]
            call.sender.stalled_ticks += 1
            if call.sender.stalled_ticks > STALLED_TICKS_MAX:
                call.give_up("the client took nothing of the answer for too long")
        self.silent_ticks += 1
        if self.silent_ticks >= TICKS_UNTIL_DEAD:
            self.abort()
        elif self.silent_ticks >= TICKS_UNTIL_PING and self._reader.preface_received:
            self.write(f.frame(f.PING, 0, 0, b"metasrv?"))

    def go_away(self) -> None:
        if not self._going_away:
            self._going_away = True
            self.write(f.goaway(self._last_stream_id, ErrorCode.NO_ERROR, "this node is stopping"))

    def cut_calls(self, code: StatusCode, text: str) -> None:
        for call in tuple(self.calls.values()):
            call.cut(code, text)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # ------------------------------------------------------------------------- for the frame reader

    def on_preface(self) -> None:
        """Send this server's settings. Not before: clients of other protocols would take them for an answer."""
        self.write(
            f.settings(
                {
                    f.SETTING_MAX_CONCURRENT_STREAMS: self._server.streams_max,
                    f.SETTING_INITIAL_WINDOW_SIZE: STREAM_WINDOW_SIZE_BYTES,
                    f.SETTING_MAX_HEADER_LIST_SIZE: HEADER_LIST_SIZE_BYTES_MAX,
                }
            )
            + f.window_update(0, CONNECTION_WINDOW_SIZE_BYTES - f.WINDOW_SIZE_BYTES_DEFAULT)
        )

    def on_error(self, error: Exception) -> None:
        if isinstance(error, Http2ConnectionError):
            logger.warning("a gRPC client at %s is cut off: %s", self.peer, error)
            self._going_away = True
            self.write(f.goaway(self._last_stream_id, error.code, str(error)))
        elif isinstance(error, NotHttp2Error) and error.http1:
            self.write(HTTP1_ANSWER)
        self.close()

    def on_frame(self, frame_type: int, flags: int, stream_id: int, payload: bytes) -> None:
        if frame_type == f.DATA:
            self._on_data(flags, stream_id, payload)
        elif frame_type == f.HEADERS:
            self._on_headers(flags, stream_id, payload)
        else:
            handler = _HANDLERS.get(frame_type)
            if handler is None:
                self._count_control_frame()  # frames of unknown types are ignored (RFC 9113 section 5.5)
            else:
                handler(self, flags, stream_id, payload)

    def pause_reading(self) -> None:
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._transport is not None:
            self._transport.resume_reading()

    # ------------------------------------------------------------------------- frames

    def _on_data(self, flags: int, stream_id: int, payload: bytes) -> None:
        self._received_bytes += len(payload)
        if self._received_bytes > CONNECTION_WINDOW_SIZE_BYTES:
            raise Http2ConnectionError(ErrorCode.FLOW_CONTROL_ERROR, "more data than the connection's window")
        if self._received_bytes > CONNECTION_WINDOW_SIZE_BYTES // 2:
            self.write(f.window_update(0, self._received_bytes))
            self._received_bytes = 0
        if not payload:
            self._count_control_frame()
        call = self.calls.get(stream_id)
        if call is None:
            self._check_not_idle(stream_id)  # it was sent before the client knew that the call had ended
            return
        content = payload
        if flags & f.PADDED:
            content = f.without_padding(flags, payload)
            # Padding counts in the stream's window, and no handler will ever take it.
            self.write(f.window_update(stream_id, len(payload) - len(content)))
        try:
            call.receive(content, bool(flags & f.END_STREAM))
        except Http2StreamError as problem:
            self._reset(stream_id, problem.code)

    def _on_headers(self, flags: int, stream_id: int, block: bytes) -> None:
        ended = bool(flags & f.END_STREAM)
        if stream_id <= self._last_stream_id:
            self._on_trailers(stream_id, ended, block)
            return
        if not stream_id & 1:
            raise Http2ConnectionError(ErrorCode.PROTOCOL_ERROR, "a client's stream with an even number")
        try:
            request = self._decoder.decode(block)
            if self._going_away:
                return  # above the last stream that GOAWAY named: the client knows that nothing was done
            self._last_stream_id = stream_id
            if len(self.calls) >= self._server.streams_max:
                self._reset(stream_id, ErrorCode.REFUSED_STREAM)
                return
            self._open(stream_id, request, ended)
        except Http2StreamError as problem:
            self._last_stream_id = stream_id
            self._reset(stream_id, problem.code)

    def _on_trailers(self, stream_id: int, ended: bool, block: bytes) -> None:
        """End the request: a second HEADERS frame on a stream must be its trailers. gRPC clients send none."""
        self._check_not_idle(stream_id)
        self._decoder.decode_any(block)
        call = self.calls.get(stream_id)
        if call is None:
            return
        try:
            if not ended:
                raise Http2StreamError(ErrorCode.PROTOCOL_ERROR)
            call.receive(b"", True)
        except Http2StreamError as problem:
            self._reset(stream_id, problem.code)

    def _open(self, stream_id: int, request: Request, ended: bool) -> None:
        route = self._server.routes.get(request.path)
        if request.http_status != 200 or route is None:
            text = f"this server has no method {request.path}"
            block = (
                http_error_headers(request.http_status)
                if request.http_status != 200
                else RESPONSE_HEADERS + status_trailers(StatusCode.UNIMPLEMENTED, text)
            )
            self.write(header_frames(stream_id, block, f.END_STREAM, self.frame_size_bytes_max))
            if not ended:
                self.write(f.rst_stream(stream_id, ErrorCode.NO_ERROR))
            return
        seconds = request.timeout_seconds
        call = ServerCall(self, stream_id, request, route, None if seconds is None else self.loop.time() + seconds)
        self.calls[stream_id] = call
        self._server.call_began()
        if seconds is not None:
            self._server.deadlines.add(call)
        call.begin()
        if ended and not call.closed:
            call.receive(b"", True)

    def _on_reset(self, flags: int, stream_id: int, payload: bytes) -> None:
        del flags
        f.check_size("RST_STREAM", payload, 4)
        self._check_not_idle(stream_id)
        self._count_control_frame()
        call = self.calls.get(stream_id)
        if call is not None:
            call.close()

    def _on_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise Http2ConnectionError(ErrorCode.PROTOCOL_ERROR, "a SETTINGS frame on a stream")
        if flags & f.ACK:
            f.check_size("acknowledging SETTINGS", payload, 0)
            return
        self._count_control_frame()
        for setting, value in f.parse_settings(payload):
            if setting == f.SETTING_INITIAL_WINDOW_SIZE:
                self._change_initial_window(value)
            elif setting == f.SETTING_MAX_FRAME_SIZE:
                self.frame_size_bytes_max = min(value, 4 * f.PAYLOAD_SIZE_BYTES_MAX)
        self.write(f.frame(f.SETTINGS, f.ACK, 0))
        self._pump()

    def _change_initial_window(self, value: int) -> None:
        """Change the window of every stream by the difference (RFC 9113 section 6.9.2)."""
        change = value - self.initial_window_bytes
        self.initial_window_bytes = value
        for call in self.calls.values():
            call.sender.window_bytes += change
            if call.sender.window_bytes > f.WINDOW_SIZE_BYTES_MAX:
                raise Http2ConnectionError(ErrorCode.FLOW_CONTROL_ERROR, "a stream's window is too large")

    def _on_ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise Http2ConnectionError(ErrorCode.PROTOCOL_ERROR, "a PING frame on a stream")
        f.check_size("PING", payload, 8)
        if not flags & f.ACK:
            self._count_control_frame()
            self.write(f.frame(f.PING, f.ACK, 0, payload))

    def _on_window_update(self, flags: int, stream_id: int, payload: bytes) -> None:
        del flags
        f.check_size("WINDOW_UPDATE", payload, 4)
        increment = int.from_bytes(payload, "big") & f.WINDOW_SIZE_BYTES_MAX
        if stream_id == 0:
            self.send_window_bytes += increment
            if not increment or self.send_window_bytes > f.WINDOW_SIZE_BYTES_MAX:
                code = ErrorCode.FLOW_CONTROL_ERROR if increment else ErrorCode.PROTOCOL_ERROR
                text = f"the connection's window grows by {increment} to {self.send_window_bytes}"
                raise Http2ConnectionError(code, text)
            self._pump()
            return
        self._check_not_idle(stream_id)
        call = self.calls.get(stream_id)
        if call is None:
            return
        sender = call.sender
        sender.window_bytes += increment
        if not increment or sender.window_bytes > f.WINDOW_SIZE_BYTES_MAX:
            self._reset(stream_id, ErrorCode.FLOW_CONTROL_ERROR if increment else ErrorCode.PROTOCOL_ERROR)
        elif sender.waits:
            sender.pump()

    def _on_priority(self, flags: int, stream_id: int, payload: bytes) -> None:
        del flags
        if not stream_id:
            raise Http2ConnectionError(ErrorCode.PROTOCOL_ERROR, "a PRIORITY frame on no stream")
        f.check_size("PRIORITY", payload, 5)
        self._count_control_frame()

    def _on_push_promise(self, flags: int, stream_id: int, payload: bytes) -> None:
        raise Http2ConnectionError(ErrorCode.PROTOCOL_ERROR, "a client that pushes")

    # ------------------------------------------------------------------------- helpers

    def _reset(self, stream_id: int, code: ErrorCode) -> None:
        """End a stream with a stream error."""
        self.write(f.rst_stream(stream_id, code))
        self._count_control_frame()
        call = self.calls.get(stream_id)
        if call is not None:
            call.close()

    def _check_not_idle(self, stream_id: int) -> None:
        """Raise a connection error for a stream that was never opened (RFC 9113 section 5.1)."""
        if not stream_id or (stream_id > self._last_stream_id and not self._going_away):
            raise Http2ConnectionError(ErrorCode.PROTOCOL_ERROR, f"a frame on stream {stream_id}, which was never opened")

    def _count_control_frame(self) -> None:
        self._control_frames += 1
        if self._control_frames > CONTROL_FRAMES_MAX + self.data_frames:
            raise Http2ConnectionError(ErrorCode.ENHANCE_YOUR_CALM, "too many frames that bring no call forward")

    def _pump(self) -> None:
        """Let every stream that waits send what it may."""
        for stream_id in tuple(self.waiting):
            if self.writing_paused or self.send_window_bytes <= 0:
                return
            self.calls[stream_id].sender.pump()


_HANDLERS: dict[int, Any] = {
    f.PRIORITY: Connection._on_priority,
    f.RST_STREAM: Connection._on_reset,
    f.SETTINGS: Connection._on_settings,
    f.PUSH_PROMISE: Connection._on_push_promise,
    f.PING: Connection._on_ping,
    f.WINDOW_UPDATE: Connection._on_window_update,
}

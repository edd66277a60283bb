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
from metasrv.grpc_api.http2.call import ServerCall
from metasrv.grpc_api.http2.control_frames import FIELDS_FREE, FIELDS_PER_CONTROL_FRAME, ControlFrames, greeting
from metasrv.grpc_api.http2.field_rules import check_trailers
from metasrv.grpc_api.http2.frame_reader import HTTP1_ANSWER, FrameReader, NotHttp2Error
from metasrv.grpc_api.http2.frames import ErrorCode, Http2ConnectionError, Http2StreamError
from metasrv.grpc_api.http2.headers import Request, RequestDecoder, refusal_block
from metasrv.grpc_api.http2.interfaces import ConnectionServer
from metasrv.grpc_api.http2.messages import Compressed
from metasrv.grpc_api.http2.output import Output
from metasrv.grpc_api.http2.peer_name import certificate_of, host_of, peer_name
from metasrv.grpc_api.http2.portions import Standing
from metasrv.grpc_api.http2.send_windows import SendWindows
from metasrv.grpc_api.http2.sending import header_frames
from metasrv.grpc_api.http2.status import StatusCode
from metasrv.grpc_api.http2.stream_history import StreamHistory
from metasrv.grpc_api.http2.turns import Share

logger = logging.getLogger(__name__)

CONNECTION_WINDOW_SIZE_BYTES = 16 * 1024 * 1024
"""Flow-control window of the connection: what a client may send on all its streams before more is granted."""
TICKS_UNTIL_PING = 4
TICKS_UNTIL_DEAD = 6
"""A client that is silent for 20 seconds is sent a PING; after 30 its connection and its watchers are closed."""
WRITE_BUFFER_SIZE_BYTES = 256 * 1024
"""What may wait in the socket's buffer before responses wait in their streams."""
REQUEST_TICKS_MAX = 24
"""A request that is a single message must be complete within two minutes."""
STALLED_TICKS_MAX = 18
"""A client that takes no data of a response for a minute and a half loses the call."""
UNREAD_SIZE_BYTES_MAX = 2 * 1024 * 1024
"""A peer that sends requests without reading is cut off when this much waits for it in the socket's buffer."""


class Connection(asyncio.Protocol):
    """Implements `StreamConnection`, `ServedConnection`, `FrameSink` and `Worker`."""

    def __init__(self, server: ConnectionServer) -> None:
        self._server = server
        self.loop = server.loop
        output = self._output = Output(server.loop)
        self.write, self.write_soon, self.write_joined = output.write, output.write_soon, output.write_joined
        self.message_size_bytes_max = server.message_size_bytes_max
        self.refusal_metadata = server.refusal_metadata
        self.budget = server.budget
        self.windows = SendWindows()
        self.share = Share()
        self.held_bytes = 0
        self.frame_size_bytes_max = f.PAYLOAD_SIZE_BYTES_MAX
        self.writing_paused = False
        self.peer = ""
        self.peer_certificate: Any = None
        self.host = ""
        self.standing = Standing.STRANGER
        self.is_near = False
        self.account = self.budget.open_account("", Standing.STRANGER)
        self.calls: dict[int, ServerCall] = {}
        self.silent_ticks = 0
        """Ticks of the server since anything was received."""
        self._transport: asyncio.Transport | None = None
        self._decoder = RequestDecoder()
        self._turns = server.turns
        self._reader = FrameReader(server.turns, self)
        self._reading_paused = False
        self._history = StreamHistory()
        self._going_away = False
        self._received_bytes = 0
        """DATA received, and not yet given back to the connection's window with WINDOW_UPDATE."""
        self.data_frames = 0
        self._control = ControlFrames(self)
        self._unread_bytes = 0
        """The part of `held_bytes` that waits in a full socket's buffer."""

    # ------------------------------------------------------------------------- for asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = self._output.transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER_SIZE_BYTES)
        address = transport.get_extra_info("peername")
        self.peer, self.host = peer_name(address), host_of(address)
        self.peer_certificate = certificate_of(transport)
        self.is_near = self._server.is_near(self.host)
        self._count_to(Standing.STRANGER)
        if not self._server.admit(self):
            self.abort()

    def connection_lost(self, error: Exception | None) -> None:
        del error
        self._transport = None
        self._output.transport = None
        self._reader.end()
        self._server.lost(self)
        for call in tuple(self.calls.values()):
            call.close()
        self._count_unread(0)
        self.budget.leave(self.account)

    def pause_writing(self) -> None:
        self.writing_paused = True
        self._count_unread(WRITE_BUFFER_SIZE_BYTES)

    def resume_writing(self) -> None:
        self.writing_paused = False
        self._count_unread(0)
        if self.windows.ready:
            self._turns.work(self)

    def data_received(self, data: bytes) -> None:
        self.silent_ticks = 0
        transport = self._transport
        if transport is None:
            return
        if self.writing_paused:
            # Frames that need no window, such as refusals, wait in the socket's buffer.
            self._count_unread(transport.get_write_buffer_size())
            if self._unread_bytes > UNREAD_SIZE_BYTES_MAX or (self.is_over and not self.make_room()):
                logger.warning("a gRPC client at %s is cut off: it sends requests and reads no answer", self.peer)
                self.abort()
                return
        self._reader.feed(data)
        if self._turns.work(self) and not self._reading_paused:
            self._reading_paused = True
            transport.pause_reading()

    # ------------------------------------------------------------------------- for the turns

    def work(self) -> bool:
        more = self._reader.handle()
        if self.windows.ready and self._pump():
            more = True
        if not more and self._reading_paused:
            self._reading_paused = False
            if self._transport is not None:
                self._transport.resume_reading()
        return more

    def _pump(self) -> bool:
        """Let streams that wait send what they may until the slice ends; return whether some are left that may."""
        windows, turns = self.windows, self._turns
        while windows.ready and windows.connection_bytes > 0 and not self.writing_paused:
            next(iter(windows.ready.values())).pump()
            if turns.clock() >= turns.slice_ends_at:
                return bool(windows.ready) and windows.connection_bytes > 0 and not self.writing_paused
        return False

    # ------------------------------------------------------------------------- for calls and the server

    def hold(self, size_bytes: int) -> None:
        before_bytes = self.held_bytes
        self.held_bytes = after_bytes = before_bytes + size_bytes
        self.budget.count(self, self.account, before_bytes, after_bytes)

    @property
    def is_over(self) -> bool:
        return self.budget.refuses(self.account)

    def prove(self) -> None:
        if self._transport is None:
            return
        self._count_to(Standing.MEMBER if self.is_near else Standing.CLIENT)
        self._server.proved(self)

    def _count_to(self, standing: Standing) -> None:
        """Count what is held to the account of this address and standing."""
        self.standing = standing
        held_bytes = self.held_bytes
        self.hold(-held_bytes)
        self.budget.leave(self.account)
        self.account = self.budget.open_account(self.host, standing)
        self.hold(held_bytes)

    def make_room(self) -> bool:
        return self._server.make_room(self)

    def give_way(self) -> None:
        for call in sorted(self.calls.values(), key=lambda call: call.held_bytes + call.sender.held_bytes, reverse=True):
            if not self.is_over:
                return
            call.give_way()
        if self.is_over and self._unread_bytes:
            self.abort()

    async def inflate(self, message: Compressed) -> bytes:
        return await self._server.inflate(message)

    def forget(self, stream_id: int) -> None:
        call = self.calls.pop(stream_id)
        if not call.request_ended:
            self._history.cut(stream_id)
        if call.deadline is not None:
            self._server.deadlines.remove(call)
        self._server.call_ended(self)

    def tick(self) -> None:
        """Reset the counts, send a silent peer a PING, and end what does not move."""
        self._control.forget()
        self.data_frames = 0
        for call in tuple(self.calls.values()):
            if call.awaits_request:
                call.request_ticks += 1
                if call.request_ticks > REQUEST_TICKS_MAX:
                    call.refuse(StatusCode.DEADLINE_EXCEEDED, "the request was not complete within two minutes")
            elif call.sender.waits:
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
            self.write(f.goaway(self._history.last_id, ErrorCode.NO_ERROR, "this node is stopping"))

    def cut_calls(self, code: StatusCode, text: str) -> None:
        for call in tuple(self.calls.values()):
            call.cut(code, text)

    @property
    def is_idle(self) -> bool:
        return not self.calls

    def displace(self) -> None:
        transport = self._transport
        if transport is None:
            return
        self._output.flush()
        if transport.is_closing() or transport.get_write_buffer_size() or not self._reader.preface_received:
            self.abort()
            return
        self._going_away = True
        text = "another client needs the place of this connection, on which no token was shown"
        self.write(f.goaway(self._history.last_id, ErrorCode.NO_ERROR, text))
        self.close()

    def close(self) -> None:
        self._output.close()

    def abort(self) -> None:
        self._output.transport = None
        if self._transport is not None:
            self._transport.abort()

    # ------------------------------------------------------------------------- for the frame reader

    def on_preface(self) -> None:
        """Send this server's settings. Not before: clients of other protocols would take them for an answer."""
        self.write(greeting(self._server.streams_max, CONNECTION_WINDOW_SIZE_BYTES))

    def on_error(self, error: Exception) -> None:
        if isinstance(error, Http2ConnectionError):
            logger.warning("a gRPC client at %s is cut off: %s", self.peer, error)
            self._going_away = True
            self.write(f.goaway(self._history.last_id, error.code, str(error)))
        elif isinstance(error, NotHttp2Error) and error.http1:
            self.write(HTTP1_ANSWER)
        self.close()

    def on_frame(self, frame_type: int, flags: int, stream_id: int, payload: bytes) -> None:
        if frame_type == f.DATA:
            self._on_data(flags, stream_id, payload)
        elif frame_type == f.HEADERS:
            self._on_headers(flags, stream_id, payload)
        else:
            self._control.on_frame(frame_type, flags, stream_id, payload)

    # ------------------------------------------------------------------------- frames

    def _on_data(self, flags: int, stream_id: int, payload: bytes) -> None:
        self._received_bytes += len(payload)
        if self._received_bytes > CONNECTION_WINDOW_SIZE_BYTES:
            raise Http2ConnectionError(ErrorCode.FLOW_CONTROL_ERROR, "more data than the connection's window")
        if self._received_bytes > CONNECTION_WINDOW_SIZE_BYTES // 2:
            self.write(f.window_update(0, self._received_bytes))
            self._received_bytes = 0
        if not payload:
            self._control.count()
        call = self.calls.get(stream_id)
        if call is None:
            self.check_not_idle(stream_id)
            if stream_id <= self._history.last_id:
                self._history.check_request_frame(stream_id, opens=False, ended=bool(flags & f.END_STREAM))
            return
        content = payload
        if flags & f.PADDED:
            content = f.without_padding(flags, payload)
            # Padding counts in the stream's window, and no handler will ever take it.
            self.write(f.window_update(stream_id, len(payload) - len(content)))
        try:
            call.receive(content, bool(flags & f.END_STREAM))
        except Http2StreamError as problem:
            self.reset(stream_id, problem.code)

    def _on_headers(self, flags: int, stream_id: int, block: bytes) -> None:
        ended = bool(flags & f.END_STREAM)
        if stream_id <= self._history.last_id:
            self._on_trailers(stream_id, ended, block)
            return
        if not stream_id & 1:
            raise Http2ConnectionError(ErrorCode.PROTOCOL_ERROR, "a client's stream with an even number")
        try:
            request = self._decoder.decode(block)
            if request.field_count > FIELDS_FREE:
                self._control.count(request.field_count // FIELDS_PER_CONTROL_FRAME)
            if self._going_away:
                return  # above the last stream that GOAWAY named: the client knows that nothing was done
            self._history.open(stream_id)
            if len(self.calls) >= self._server.streams_max:
                self.reset(stream_id, ErrorCode.REFUSED_STREAM)
                return
            self._open(stream_id, request, ended)
        except Http2StreamError as problem:
            if self._going_away:
                return
            if stream_id > self._history.last_id:
                self._history.open(stream_id)
            self.reset(stream_id, problem.code)
            if ended:
                self._history.client_ended(stream_id)

    def _on_trailers(self, stream_id: int, ended: bool, block: bytes) -> None:
        """End the request: a second HEADERS frame on a stream must be its trailers. gRPC clients send none."""
        self.check_not_idle(stream_id)
        fields = self._decoder.decode_any(block)
        call = self.calls.get(stream_id)
        if call is None:
            self._history.check_request_frame(stream_id, opens=True, ended=ended)
            return
        try:
            if not call.request_ended:
                check_trailers(fields)
                if not ended:
                    raise Http2StreamError(ErrorCode.PROTOCOL_ERROR)
            call.receive(b"", True)
        except Http2StreamError as problem:
            self.reset(stream_id, problem.code)

    def _open(self, stream_id: int, request: Request, ended: bool) -> None:
        route = self._server.routes.get(request.path)
        if request.http_status != 200 or route is None:
            block = refusal_block(request, self.refusal_metadata)
            self.write(header_frames(stream_id, block, f.END_STREAM, self.frame_size_bytes_max))
            if not ended:
                self.write(f.rst_stream(stream_id, ErrorCode.NO_ERROR))
                self._history.cut(stream_id)
            return
        seconds = request.timeout_seconds
        call = ServerCall(self, stream_id, request, route, None if seconds is None else self.loop.time() + seconds)
        refusal = self._server.call_began(self)
        self.calls[stream_id] = call
        if seconds is not None:
            self._server.deadlines.add(call)
        call.begin(refusal)
        if ended and not call.closed:
            call.receive(b"", True)
        elif ended:
            self._history.client_ended(stream_id)

    # ------------------------------------------------------------------------- helpers

    def reset(self, stream_id: int, code: ErrorCode) -> None:
        """End a stream with a stream error."""
        self.write(f.rst_stream(stream_id, code))
        self._control.count()
        call = self.calls.get(stream_id)
        if call is not None:
            call.close()
        self._history.cut(stream_id)

    def client_ended(self, stream_id: int) -> None:
        self._history.client_ended(stream_id)

    def check_not_idle(self, stream_id: int) -> None:
        """Raise a connection error for a stream that was never opened (RFC 9113 section 5.1)."""
        if not self._going_away or not stream_id:
            self._history.check_not_idle(stream_id)

    def _count_unread(self, size_bytes: int) -> None:
        self.hold(size_bytes - self._unread_bytes)
        self._unread_bytes = size_bytes

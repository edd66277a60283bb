"""Frames that bring no call forward: SETTINGS, PING, WINDOW_UPDATE, RST_STREAM and what is ignored (RFC 9113 section 6).

They are counted, because a client can send many for little (RFC 9113 section 10.5). A frame that costs as much as many
counts as many. Runs on the event loop.
"""

from __future__ import annotations

from typing import Any

from metasrv.grpc_api.http2 import frames as f
from metasrv.grpc_api.http2.frames import ErrorCode, Http2ConnectionError
from metasrv.grpc_api.http2.headers import HEADER_LIST_SIZE_BYTES_MAX
from metasrv.grpc_api.http2.interfaces import ControlledConnection
from metasrv.grpc_api.http2.receiving import STREAM_WINDOW_SIZE_BYTES
from metasrv.grpc_api.http2.send_windows import STREAMS_PER_CONTROL_FRAME

CONTROL_FRAMES_MAX = 10_000
"""Between two ticks of the server."""
FRAMES_PER_DATA_FRAME = 3
"""So many more are allowed for each DATA frame sent: a client may grant windows and measure the connection for each."""
SETTINGS_PER_CONTROL_FRAME = 10
FIELDS_FREE = 32
"""A request with more fields counts as frames: a field costs about as much to decode as a small frame to handle."""
FIELDS_PER_CONTROL_FRAME = 4


def greeting(streams_max: int, window_bytes: int) -> bytes:
    """The first frames of the server; `window_bytes` is what a client may send on all streams together."""
    values = {
        f.SETTING_MAX_CONCURRENT_STREAMS: streams_max,
        f.SETTING_INITIAL_WINDOW_SIZE: STREAM_WINDOW_SIZE_BYTES,
        f.SETTING_MAX_HEADER_LIST_SIZE: HEADER_LIST_SIZE_BYTES_MAX,
    }
    return f.settings(values) + f.window_update(0, window_bytes - f.WINDOW_SIZE_BYTES_DEFAULT)


class ControlFrames:
    """Handles and counts the frames of one connection."""

    __slots__ = ("_connection", "_count")

    def __init__(self, connection: ControlledConnection) -> None:
        self._connection = connection
        self._count = 0
        """Since the server's last tick."""

    def count(self, more: int = 0) -> None:
        """Count a frame, and `more` for what it costs. Raises Http2ConnectionError."""
        self._count += 1 + more
        if self._count > CONTROL_FRAMES_MAX + FRAMES_PER_DATA_FRAME * self._connection.data_frames:
            raise Http2ConnectionError(ErrorCode.ENHANCE_YOUR_CALM, "too many frames that bring no call forward")

    def forget(self) -> None:
        """Begin to count anew."""
        self._count = 0

    def on_frame(self, frame_type: int, flags: int, stream_id: int, payload: bytes) -> None:
        """Handle a frame that is neither DATA nor HEADERS. Raises Http2ConnectionError."""
        handler = _HANDLERS.get(frame_type)
        if handler is None:
            self.count()  # frames of unknown types are ignored (RFC 9113 section 5.5)
        else:
            handler(self, flags, stream_id, payload)

    def _on_reset(self, flags: int, stream_id: int, payload: bytes) -> None:
        del flags
        f.check_size("RST_STREAM", payload, 4)
        self._connection.check_not_idle(stream_id)
        self.count()
        call = self._connection.calls.get(stream_id)
        if call is not None:
            call.close()
        self._connection.client_ended(stream_id)

    def _on_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        connection = self._connection
        if stream_id:
            raise Http2ConnectionError(ErrorCode.PROTOCOL_ERROR, "a SETTINGS frame on a stream")
        if flags & f.ACK:
            f.check_size("acknowledging SETTINGS", payload, 0)
            self.count()
            return
        values = f.parse_settings(payload)
        cost = len(payload) // (f.SETTING_SIZE_BYTES * SETTINGS_PER_CONTROL_FRAME)
        frame_size_bytes = values.get(f.SETTING_MAX_FRAME_SIZE)
        if frame_size_bytes is not None:
            connection.frame_size_bytes_max = min(frame_size_bytes, 4 * f.PAYLOAD_SIZE_BYTES_MAX)
        window_bytes = values.get(f.SETTING_INITIAL_WINDOW_SIZE)
        if window_bytes is not None:
            calls = connection.calls
            looked_at = connection.windows.change_initial(window_bytes, lambda: [call.sender for call in calls.values()])
            cost += looked_at // STREAMS_PER_CONTROL_FRAME
        self.count(cost)
        connection.write(f.frame(f.SETTINGS, f.ACK, 0))

    def _on_ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise Http2ConnectionError(ErrorCode.PROTOCOL_ERROR, "a PING frame on a stream")
        f.check_size("PING", payload, 8)
        self.count()
        if not flags & f.ACK:
            self._connection.write(f.frame(f.PING, f.ACK, 0, payload))

    def _on_window_update(self, flags: int, stream_id: int, payload: bytes) -> None:
        del flags
        connection = self._connection
        f.check_size("WINDOW_UPDATE", payload, 4)
        increment_bytes = int.from_bytes(payload, "big") & f.WINDOW_SIZE_BYTES_MAX
        self.count()
        if stream_id == 0:
            connection.windows.grow(increment_bytes)
            return
        connection.check_not_idle(stream_id)
        call = connection.calls.get(stream_id)
        if call is None:
            return
        if not increment_bytes:
            connection.reset(stream_id, ErrorCode.PROTOCOL_ERROR)
        elif not connection.windows.grow_stream(call.sender, increment_bytes):
            connection.reset(stream_id, ErrorCode.FLOW_CONTROL_ERROR)
        elif call.sender.waits:
            call.sender.pump()

    def _on_priority(self, flags: int, stream_id: int, payload: bytes) -> None:
        del flags
        if not stream_id:
            raise Http2ConnectionError(ErrorCode.PROTOCOL_ERROR, "a PRIORITY frame on no stream")
        f.check_size("PRIORITY", payload, f.PRIORITY_SIZE_BYTES)
        f.check_priority(stream_id, payload)
        self.count()

    def _on_goaway(self, flags: int, stream_id: int, payload: bytes) -> None:
        """The client opens no more streams; those under way go on."""
        del flags
        if stream_id:
            raise Http2ConnectionError(ErrorCode.PROTOCOL_ERROR, "a GOAWAY frame on a stream")
        if len(payload) < f.GOAWAY_SIZE_BYTES_MIN:
            raise Http2ConnectionError(ErrorCode.FRAME_SIZE_ERROR, f"a GOAWAY frame of {len(payload)} bytes")
        self.count()

    def _on_push_promise(self, flags: int, stream_id: int, payload: bytes) -> None:
        raise Http2ConnectionError(ErrorCode.PROTOCOL_ERROR, "a client that pushes")


_HANDLERS: dict[int, Any] = {
    f.PRIORITY: ControlFrames._on_priority,
    f.RST_STREAM: ControlFrames._on_reset,
    f.SETTINGS: ControlFrames._on_settings,
    f.PUSH_PROMISE: ControlFrames._on_push_promise,
    f.PING: ControlFrames._on_ping,
    f.GOAWAY: ControlFrames._on_goaway,
    f.WINDOW_UPDATE: ControlFrames._on_window_update,
}

"""The flow-control windows that one peer gives for DATA, and the streams that wait for them (RFC 9113 sections 5.2, 6.9).

A stream's window is what the peer granted on it, together with the peer's initial window. The sum is made when it is
needed, so that a change of the initial window costs the same with one stream and with thousands. Runs on the event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from metasrv.grpc_api.http2 import frames as f
from metasrv.grpc_api.http2.frames import ErrorCode, Http2ConnectionError

STREAMS_PER_CONTROL_FRAME = 8
"""Streams that a frame makes this side look at count as one more frame each so many."""


class WaitingSender(Protocol):
    """The sending half of a stream, which may hold data back."""

    granted_bytes: int

    @property
    def waits(self) -> bool:
        """Whether data is held back."""

    def pump(self) -> None:
        """Send what the windows allow."""


class SendWindows:
    """The windows of one connection."""

    __slots__ = ("_granted_max_bytes", "blocked", "connection_bytes", "initial_bytes", "ready")

    def __init__(self) -> None:
        self.connection_bytes = f.WINDOW_SIZE_BYTES_DEFAULT
        """What the peer takes on all streams together."""
        self.initial_bytes = f.WINDOW_SIZE_BYTES_DEFAULT
        """What the peer takes on a stream before it grants more."""
        self.ready: dict[int, WaitingSender] = {}
        """Streams that hold data back for the connection's window or the socket, in the order of service."""
        self.blocked: dict[int, WaitingSender] = {}
        """Streams that hold data back for their own window."""
        self._granted_max_bytes = 0
        """No stream was granted more than this beyond the initial window."""

    def remove(self, stream_id: int) -> None:
        """The stream waits no more; does nothing when it did not."""
        if self.ready.pop(stream_id, None) is None:
            self.blocked.pop(stream_id, None)

    def hold(self, stream_id: int, sender: WaitingSender) -> None:
        """The stream holds data back, behind those that do so already."""
        self.remove(stream_id)
        waiting = self.ready if self.initial_bytes + sender.granted_bytes > 0 else self.blocked
        waiting[stream_id] = sender

    def grow(self, increment_bytes: int) -> None:
        """The peer grants more for all streams together. Raises Http2ConnectionError."""
        self.connection_bytes += increment_bytes
        if not increment_bytes or self.connection_bytes > f.WINDOW_SIZE_BYTES_MAX:
            code = ErrorCode.FLOW_CONTROL_ERROR if increment_bytes else ErrorCode.PROTOCOL_ERROR
            text = f"the connection's window grows by {increment_bytes} to {self.connection_bytes}"
            raise Http2ConnectionError(code, text)

    def grow_stream(self, sender: WaitingSender, increment_bytes: int) -> bool:
        """The peer grants more on a stream; return whether that may be (RFC 9113 section 6.9.1)."""
        granted_bytes = sender.granted_bytes = sender.granted_bytes + increment_bytes
        self._granted_max_bytes = max(self._granted_max_bytes, granted_bytes)
        return granted_bytes + self.initial_bytes <= f.WINDOW_SIZE_BYTES_MAX

    def change_initial(self, value_bytes: int, senders: Callable[[], Iterable[WaitingSender]]) -> int:
        """Change the window of every stream by the difference (RFC 9113 section 6.9.2); return how many were looked at.

        Raises Http2ConnectionError.
        """
        looked_at = 0
        if value_bytes + self._granted_max_bytes > f.WINDOW_SIZE_BYTES_MAX:
            granted = [sender.granted_bytes for sender in senders()]
            looked_at += len(granted)
            self._granted_max_bytes = max(granted, default=0)
            if value_bytes + self._granted_max_bytes > f.WINDOW_SIZE_BYTES_MAX:
                raise Http2ConnectionError(ErrorCode.FLOW_CONTROL_ERROR, "a stream's window is too large")
        if value_bytes > self.initial_bytes and self.blocked:
            looked_at += len(self.blocked)
            self.ready.update(self.blocked)
            self.blocked.clear()
        self.initial_bytes = value_bytes
        return looked_at

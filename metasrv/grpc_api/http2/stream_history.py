"""Which streams a client has opened, and what it may still send on those that are closed (RFC 9113 section 5.1).

A client that has ended or reset its stream may send nothing more of a request on it. A client whose stream was ended by
this side, before its request was complete, does not know that yet: what it still sends is ignored. Pure.
"""

from __future__ import annotations

from collections import deque

from metasrv.grpc_api.http2.frames import ErrorCode, Http2ConnectionError

CUT_STREAMS_MAX = 4_096
"""Streams that this side ended first and that are remembered; anything is ignored on older ones."""
SKIPPED_RANGES_MAX = 16
"""Ranges of numbers that a client left out and that are remembered; clients leave out none."""


class StreamHistory:
    """The streams of one connection that are not under way."""

    __slots__ = ("_cut", "_forgotten_id", "_skipped", "last_id")

    def __init__(self) -> None:
        self.last_id = 0
        """The highest stream that the client opened."""
        self._cut: dict[int, None] = {}
        """Streams that this side ended first, the oldest first."""
        self._forgotten_id = 0
        """The highest stream that was pushed out of `_cut`."""
        self._skipped: deque[tuple[int, int]] = deque(maxlen=SKIPPED_RANGES_MAX)

    def open(self, stream_id: int) -> None:
        """The client opened a stream with a higher number than any before."""
        if stream_id > self.last_id + 2:
            self._skipped.append((self.last_id + 1, stream_id - 1))
        self.last_id = stream_id

    def cut(self, stream_id: int) -> None:
        """This side ended a stream whose request may go on."""
        cut = self._cut
        cut[stream_id] = None
        if len(cut) > CUT_STREAMS_MAX:
            oldest = next(iter(cut))
            del cut[oldest]
            self._forgotten_id = max(self._forgotten_id, oldest)

    def client_ended(self, stream_id: int) -> None:
        """The client reset or ended a stream; from now on it may send nothing of a request."""
        self._cut.pop(stream_id, None)

    def check_not_idle(self, stream_id: int) -> None:
        """Raise a connection error for a stream that was never opened."""
        if not 0 < stream_id <= self.last_id:
            raise Http2ConnectionError(ErrorCode.PROTOCOL_ERROR, f"a frame on stream {stream_id}, which was never opened")

    def check_request_frame(self, stream_id: int, *, opens: bool, ended: bool) -> None:
        """Raise a connection error unless a part of a request on a closed stream is to be ignored.

        `opens`: the frame could have opened the stream; `ended`: it is the last of its request.
        """
        if stream_id in self._cut or stream_id <= self._forgotten_id:
            if ended:
                self.client_ended(stream_id)
            return
        if opens and any(first <= stream_id <= last for first, last in self._skipped):
            # A stream is closed by the first use of a higher number (RFC 9113 section 5.1.1).
            raise Http2ConnectionError(ErrorCode.PROTOCOL_ERROR, f"stream {stream_id} is opened after higher ones")
        raise Http2ConnectionError(ErrorCode.STREAM_CLOSED, f"a request goes on, on stream {stream_id}, which is closed")

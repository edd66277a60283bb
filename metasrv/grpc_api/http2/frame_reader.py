"""Cuts the bytes of a connection into frames: the preface, whole frames, field blocks (RFC 9113 sections 3.4, 4, 6.10).

Knows no stream. Runs on the event loop, in the slices of `turns.py`.
"""

from __future__ import annotations

from typing import Protocol

from metasrv.grpc_api.http2 import frames as f
from metasrv.grpc_api.http2.frames import ErrorCode, Http2ConnectionError
from metasrv.grpc_api.http2.turns import Turns

FIELD_BLOCK_SIZE_BYTES_MAX = 160 * 1024
CONTINUATIONS_MAX = 16
_HEADERS_FLAGS = f.END_HEADERS | f.PADDED | f.HAS_PRIORITY
HTTP1_ANSWER = (
    b"HTTP/1.1 505 HTTP Version Not Supported\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\n"
    b"This port speaks gRPC over HTTP/2; HTTP requests belong to the admin API's port.\n"
)


class NotHttp2Error(Exception):
    """The peer does not begin with the preface of HTTP/2; `http1` says whether it seems to speak HTTP/1."""

    def __init__(self, http1: bool) -> None:
        super().__init__("no preface of HTTP/2")
        self.http1 = http1


class FrameSink(Protocol):
    """Takes what the reader finds."""

    def on_preface(self) -> None:
        """The peer speaks HTTP/2."""

    def on_frame(self, frame_type: int, flags: int, stream_id: int, payload: bytes, /) -> None:
        """Handle a frame; may raise Http2ConnectionError.

        A HEADERS frame comes with its CONTINUATION frames joined to it, and without padding and priority.
        """

    def on_error(self, error: Exception, /) -> None:
        """Http2ConnectionError or NotHttp2Error; nothing follows."""


class FrameReader:
    """Cuts what one peer sends into frames."""

    def __init__(self, turns: Turns, sink: FrameSink) -> None:
        self._turns = turns
        self._sink = sink
        self._unhandled = b""
        """Received and not yet handled."""
        self.preface_received = False
        self._settings_received = False
        self._ended = False
        self._field_block: tuple[int, int, list[bytes]] | None = None
        """Stream, flags and fragments of a field block that goes on in CONTINUATION frames."""

    def feed(self, data: bytes) -> None:
        """Keep what arrived, to be handled with `handle`; after an error, ignore it."""
        if not self._ended:
            self._unhandled = self._unhandled + data if self._unhandled else data

    def end(self) -> None:
        """Ignore everything from now on."""
        self._ended = True
        self._unhandled = b""

    def handle(self) -> bool:
        """Handle what is there until the slice ends; return whether whole frames may be left."""
        if self._ended:
            return False
        try:
            return (self.preface_received or self._read_preface()) and self._handle_frames()
        except (Http2ConnectionError, NotHttp2Error) as error:
            self.end()
            self._sink.on_error(error)
            return False

    def _read_preface(self) -> bool:
        """Return whether the whole preface is there; raise NotHttp2Error when something else is."""
        received = self._unhandled[: len(f.PREFACE)]
        if not f.PREFACE.startswith(received):
            raise NotHttp2Error(http1=received[:1].isalpha())  # a verb
        if len(received) < len(f.PREFACE):
            return False
        self._unhandled = self._unhandled[len(f.PREFACE) :]
        self.preface_received = True
        self._sink.on_preface()
        return True

    def _handle_frames(self) -> bool:
        """Handle whole frames; return whether some may be left for another slice."""
        data, offset, size = self._unhandled, 0, len(self._unhandled)
        clock, until = self._turns.clock, self._turns.slice_ends_at
        is_over = False
        while size - offset >= f.FRAME_HEADER_SIZE_BYTES and not self._ended:
            length_and_type, flags, stream_id = f.unpack_frame_header(data, offset)
            length = length_and_type >> 8
            if length > f.PAYLOAD_SIZE_BYTES_MAX:
                raise Http2ConnectionError(ErrorCode.FRAME_SIZE_ERROR, f"a frame of {length} bytes")
            end = offset + f.FRAME_HEADER_SIZE_BYTES + length
            if end > size:
                break
            if is_over:
                self._unhandled = data[offset:]
                return True
            payload = data[offset + f.FRAME_HEADER_SIZE_BYTES : end]
            offset = end
            frame_type = length_and_type & 0xFF
            is_whole = frame_type == f.DATA or (frame_type == f.HEADERS and flags & _HEADERS_FLAGS == f.END_HEADERS)
            if is_whole and self._settings_received and self._field_block is None:  # nearly all of them
                self._sink.on_frame(frame_type, flags, stream_id & f.STREAM_ID_MAX, payload)
            else:
                self._handle_frame(frame_type, flags, stream_id & f.STREAM_ID_MAX, payload)
            is_over = clock() >= until
        if not self._ended:
            self._unhandled = data[offset:] if offset else data
        return False

    def _handle_frame(self, frame_type: int, flags: int, stream_id: int, payload: bytes) -> None:
        if not self._settings_received:
            if frame_type != f.SETTINGS:
                raise Http2ConnectionError(ErrorCode.PROTOCOL_ERROR, "the first frame is not SETTINGS")
            self._settings_received = True
        if frame_type == f.CONTINUATION:
            self._continue(flags, stream_id, payload)
            return
        if self._field_block is not None:
            raise Http2ConnectionError(ErrorCode.PROTOCOL_ERROR, "a header block that does not go on")
        if frame_type == f.HEADERS:
            if flags & (f.PADDED | f.HAS_PRIORITY):
                payload = _field_block_fragment(flags, stream_id, payload)
            if not flags & f.END_HEADERS:
                self._field_block = (stream_id, flags, [payload])
                return
        self._sink.on_frame(frame_type, flags, stream_id, payload)

    def _continue(self, flags: int, stream_id: int, payload: bytes) -> None:
        if self._field_block is None or self._field_block[0] != stream_id:
            raise Http2ConnectionError(ErrorCode.PROTOCOL_ERROR, "a CONTINUATION frame that continues nothing")
        _, first_flags, fragments = self._field_block
        fragments.append(payload)
        if len(fragments) > CONTINUATIONS_MAX or sum(map(len, fragments)) > FIELD_BLOCK_SIZE_BYTES_MAX:
            raise Http2ConnectionError(ErrorCode.ENHANCE_YOUR_CALM, "a header block that is too long")
        if flags & f.END_HEADERS:
            self._field_block = None
            self._sink.on_frame(f.HEADERS, first_flags, stream_id, b"".join(fragments))


def _field_block_fragment(flags: int, stream_id: int, payload: bytes) -> bytes:
    """The payload of a HEADERS frame without padding and priority; raises Http2ConnectionError."""
    content = f.without_padding(flags, payload)
    if not flags & f.HAS_PRIORITY:
        return content
    if len(content) < f.PRIORITY_SIZE_BYTES:
        if len(payload) > f.PRIORITY_SIZE_BYTES and flags & f.PADDED:
            raise Http2ConnectionError(ErrorCode.PROTOCOL_ERROR, "a HEADERS frame whose padding is too long")
        raise Http2ConnectionError(ErrorCode.FRAME_SIZE_ERROR, "a HEADERS frame without its priority")
    f.check_priority(stream_id, content)
    return content[f.PRIORITY_SIZE_BYTES :]

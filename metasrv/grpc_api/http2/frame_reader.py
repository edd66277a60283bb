"""From the bytes of a connection to its frames: the preface, whole frames, header blocks that go on (RFC 9113 3.4, 4).

Knows no stream. Runs on the event loop and lets the rest of it run after so many frames; nothing more is read meanwhile.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from metasrv.grpc_api.http2 import frames as f
from metasrv.grpc_api.http2.frames import ConnectionBrokenError, ErrorCode

FRAMES_A_STEP = 128
"""Frames that are handled before the rest of the event loop has its turn."""
HEADER_BLOCK_SIZE_BYTES_MAX = 65_536
CONTINUATIONS_MAX = 16


class NotHttp2Error(Exception):
    """The peer does not begin as a client of HTTP/2 does; `http1` says whether it seems to speak HTTP/1."""

    def __init__(self, http1: bool) -> None:
        super().__init__("no preface of HTTP/2")
        self.http1 = http1


class FrameSink(Protocol):
    """What becomes of the frames."""

    def on_greeting(self) -> None:
        """The peer speaks HTTP/2."""

    def on_frame(self, kind: int, flags: int, stream_id: int, payload: bytes, /) -> None:
        """A whole frame; a header block as one HEADERS frame with its end. May raise ConnectionBrokenError."""

    def on_error(self, error: Exception, /) -> None:
        """ConnectionBrokenError or NotHttp2Error; nothing follows."""

    def hold(self, hold: bool, /) -> None:
        """Stop reading from the peer, or go on."""


class FrameReader:
    """Cuts what one peer sends into frames."""

    def __init__(self, loop: asyncio.AbstractEventLoop, sink: FrameSink) -> None:
        self._loop = loop
        self._sink = sink
        self._rest = b""
        """Received and not yet handled."""
        self._resting = False
        self.greeted = False
        """Whether the peer has sent its whole preface."""
        self._settled = False
        self._ended = False
        self._block: tuple[int, int, list[bytes]] | None = None
        """Stream, flags and pieces of a header block that goes on in CONTINUATION frames."""

    def feed(self, data: bytes) -> None:
        """Handle what arrived; after a problem nothing is handled any more."""
        if self._ended:
            return
        self._rest = self._rest + data if self._rest else data
        if not self._resting and self._handle():
            self._sink.hold(True)

    def end(self) -> None:
        """Handle nothing any more."""
        self._ended = True
        self._rest = b""

    def _handle_rest(self) -> None:
        if not self._handle() and not self._ended:
            self._sink.hold(False)

    def _handle(self) -> bool:
        """Handle what is there; whether more is left than one step takes."""
        self._resting = False
        try:
            if self.greeted or self._greet():
                self._resting = self._handle_frames()
        except (ConnectionBrokenError, NotHttp2Error) as error:
            self.end()
            self._sink.on_error(error)
        if self._resting:
            self._loop.call_soon(self._handle_rest)
        return self._resting

    def _greet(self) -> bool:
        """Whether the peer has sent its whole preface; raises NotHttp2Error."""
        received = self._rest[: len(f.PREFACE)]
        if not f.PREFACE.startswith(received):
            raise NotHttp2Error(http1=received[:1].isalpha())  # a verb
        if len(received) < len(f.PREFACE):
            return False
        self._rest = self._rest[len(f.PREFACE) :]
        self.greeted = True
        self._sink.on_greeting()
        return True

    def _handle_frames(self) -> bool:
        """Whether whole frames are left for another step."""
        data, offset, size = self._rest, 0, len(self._rest)
        left = FRAMES_A_STEP
        while left and size - offset >= f.HEADER_SIZE_BYTES and not self._ended:
            length_and_kind, flags, stream_id = f.unpack_header(data, offset)
            length = length_and_kind >> 8
            if length > f.FRAME_SIZE_BYTES_MAX:
                raise ConnectionBrokenError(ErrorCode.FRAME_SIZE_ERROR, f"a frame of {length} bytes")
            end = offset + f.HEADER_SIZE_BYTES + length
            if end > size:
                break
            left -= 1
            payload = data[offset + f.HEADER_SIZE_BYTES : end]
            offset = end
            self._handle_frame(length_and_kind & 0xFF, flags, stream_id & f.STREAM_ID_MAX, payload)
        if not self._ended:
            self._rest = data[offset:] if offset else data
        return not left and not self._ended

    def _handle_frame(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if not self._settled:
            if kind != f.SETTINGS:
                raise ConnectionBrokenError(ErrorCode.PROTOCOL_ERROR, "the first frame is not SETTINGS")
            self._settled = True
        if kind == f.CONTINUATION:
            self._continue(flags, stream_id, payload)
            return
        if self._block is not None:
            raise ConnectionBrokenError(ErrorCode.PROTOCOL_ERROR, "a header block that does not go on")
        if kind == f.HEADERS:
            if flags & (f.PADDED | f.HAS_PRIORITY):
                payload = _without_priority(flags, f.without_padding(flags, payload))
            if not flags & f.END_HEADERS:
                self._block = (stream_id, flags, [payload])
                return
        self._sink.on_frame(kind, flags, stream_id, payload)

    def _continue(self, flags: int, stream_id: int, payload: bytes) -> None:
        if self._block is None or self._block[0] != stream_id:
            raise ConnectionBrokenError(ErrorCode.PROTOCOL_ERROR, "a CONTINUATION frame that continues nothing")
        _, first_flags, pieces = self._block
        pieces.append(payload)
        if len(pieces) > CONTINUATIONS_MAX or sum(map(len, pieces)) > HEADER_BLOCK_SIZE_BYTES_MAX:
            raise ConnectionBrokenError(ErrorCode.ENHANCE_YOUR_CALM, "a header block that is too long")
        if flags & f.END_HEADERS:
            self._block = None
            self._sink.on_frame(f.HEADERS, first_flags, stream_id, b"".join(pieces))


def _without_priority(flags: int, payload: bytes) -> bytes:
    if not flags & f.HAS_PRIORITY:
        return payload
    if len(payload) < 5:
        raise ConnectionBrokenError(ErrorCode.FRAME_SIZE_ERROR, "a HEADERS frame without its priority")
    return payload[5:]

"""HTTP/2 frames (RFC 9113 sections 4, 6 and 7): numbers, layout, and the two kinds of errors. Pure."""

from __future__ import annotations

from enum import IntEnum
from struct import Struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_HEADER_SIZE_BYTES = 9
PAYLOAD_SIZE_BYTES_MAX = 16_384
"""The largest payload of one frame that this server accepts: the default of HTTP/2, which need not be announced."""
WINDOW_SIZE_BYTES_DEFAULT = 65_535
WINDOW_SIZE_BYTES_MAX = 2**31 - 1
STREAM_ID_MAX = 2**31 - 1
PRIORITY_SIZE_BYTES = 5
GOAWAY_SIZE_BYTES_MIN = 8

DATA = 0x0
HEADERS = 0x1
PRIORITY = 0x2
RST_STREAM = 0x3
SETTINGS = 0x4
PUSH_PROMISE = 0x5
PING = 0x6
GOAWAY = 0x7
WINDOW_UPDATE = 0x8
CONTINUATION = 0x9

END_STREAM = 0x1
ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
HAS_PRIORITY = 0x20

SETTING_ENABLE_PUSH = 0x2
SETTING_MAX_CONCURRENT_STREAMS = 0x3
SETTING_INITIAL_WINDOW_SIZE = 0x4
SETTING_MAX_FRAME_SIZE = 0x5
SETTING_MAX_HEADER_LIST_SIZE = 0x6

_FRAME_HEADER = Struct(">IBI")
_SETTING = Struct(">HI")
pack_frame_header = _FRAME_HEADER.pack
unpack_frame_header = _FRAME_HEADER.unpack_from
"""`(length << 8 | type, flags, stream id)`: the 24 bits of the length and the 8 bits of the type as one number."""


class ErrorCode(IntEnum):
    """RFC 9113 section 7."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    ENHANCE_YOUR_CALM = 0xB


class Http2ConnectionError(Exception):
    """A connection error (RFC 9113 section 5.4.1): the connection ends with GOAWAY, which carries this text."""

    def __init__(self, code: ErrorCode, text: str) -> None:
        super().__init__(text)
        self.code = code


class Http2StreamError(Exception):
    """A stream error (RFC 9113 section 5.4.2): the stream ends with RST_STREAM; the connection goes on."""

    def __init__(self, code: ErrorCode) -> None:
        super().__init__(code.name)
        self.code = code


def frame(frame_type: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """One encoded frame."""
    return pack_frame_header(len(payload) << 8 | frame_type, flags, stream_id) + payload


def settings(values: dict[int, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(*item) for item in values.items()))


SETTING_SIZE_BYTES = _SETTING.size


def parse_settings(payload: bytes) -> dict[int, int]:
    """The last value of each identifier, all of them checked (RFC 9113 section 6.5.2); raises Http2ConnectionError."""
    if len(payload) % _SETTING.size:
        raise Http2ConnectionError(ErrorCode.FRAME_SIZE_ERROR, "a SETTINGS frame that is not a multiple of six bytes")
    values = list(_SETTING.iter_unpack(payload))
    for setting, value in values:
        if setting == SETTING_INITIAL_WINDOW_SIZE and value > WINDOW_SIZE_BYTES_MAX:
            raise Http2ConnectionError(ErrorCode.FLOW_CONTROL_ERROR, f"an initial window of {value}")
        if setting == SETTING_MAX_FRAME_SIZE and not PAYLOAD_SIZE_BYTES_MAX <= value < 2**24:
            raise Http2ConnectionError(ErrorCode.PROTOCOL_ERROR, f"a maximum frame size of {value}")
        if setting == SETTING_ENABLE_PUSH and value > 1:
            raise Http2ConnectionError(ErrorCode.PROTOCOL_ERROR, f"ENABLE_PUSH is {value}")
    return dict(values)


def window_update(stream_id: int, size_bytes: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream_id, size_bytes.to_bytes(4, "big"))


def rst_stream(stream_id: int, code: ErrorCode) -> bytes:
    return frame(RST_STREAM, 0, stream_id, code.to_bytes(4, "big"))


def goaway(last_stream_id: int, code: ErrorCode, text: str = "") -> bytes:
    return frame(GOAWAY, 0, 0, last_stream_id.to_bytes(4, "big") + code.to_bytes(4, "big") + text.encode())


def without_padding(flags: int, payload: bytes) -> bytes:
    """The content of a DATA or HEADERS frame; raises Http2ConnectionError."""
    if not flags & PADDED:
        return payload
    if not payload:
        raise Http2ConnectionError(ErrorCode.FRAME_SIZE_ERROR, "a padded frame without the length of its padding")
    if payload[0] >= len(payload):
        raise Http2ConnectionError(ErrorCode.PROTOCOL_ERROR, "a frame with more padding than payload")
    return payload[1 : len(payload) - payload[0]]


def check_size(name: str, payload: bytes, size_bytes: int) -> None:
    """Raise Http2ConnectionError for a frame whose payload has another size than its type prescribes."""
    if len(payload) != size_bytes:
        raise Http2ConnectionError(ErrorCode.FRAME_SIZE_ERROR, f"a {name} frame of {len(payload)} bytes")


def check_priority(stream_id: int, priority: bytes) -> None:
    """Raise Http2ConnectionError for a stream that depends on itself.

    RFC 9113 leaves priorities out, RFC 7540 section 5.3.1 has the rule. The stream may be idle, so the connection ends.
    """
    if int.from_bytes(priority[:4], "big") & STREAM_ID_MAX == stream_id:
        raise Http2ConnectionError(ErrorCode.PROTOCOL_ERROR, f"stream {stream_id} depends on itself")

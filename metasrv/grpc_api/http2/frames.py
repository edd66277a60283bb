"""HTTP/2 frames (RFC 9113 section 4 and 6): numbers, layout, and the two kinds of errors. Pure."""

from __future__ import annotations

from enum import IntEnum
from struct import Struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER_SIZE_BYTES = 9
FRAME_SIZE_BYTES_MAX = 16_384
"""The largest payload that this server takes; the protocol's default, so it need not be announced."""
WINDOW_SIZE_BYTES_DEFAULT = 65_535
WINDOW_SIZE_BYTES_MAX = 2**31 - 1
STREAM_ID_MAX = 2**31 - 1

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

_HEADER = Struct(">IBI")
_SETTING = Struct(">HI")
pack_header = _HEADER.pack
unpack_header = _HEADER.unpack_from
"""`(length << 8 | type, flags, stream id)`: the 24 bits of the length and the type in one number."""


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


class ConnectionBrokenError(Exception):
    """The peer broke the protocol: the whole connection ends with GOAWAY and this text."""

    def __init__(self, code: ErrorCode, text: str) -> None:
        super().__init__(text)
        self.code = code


class StreamBrokenError(Exception):
    """One stream ends with RST_STREAM; the connection goes on."""

    def __init__(self, code: ErrorCode) -> None:
        super().__init__(code.name)
        self.code = code


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """One encoded frame."""
    return pack_header(len(payload) << 8 | kind, flags, stream_id) + payload


def settings_frame(settings: dict[int, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(*item) for item in settings.items()))


def parse_settings(payload: bytes) -> list[tuple[int, int]]:
    """Pairs of identifier and value; raises ConnectionBrokenError."""
    if len(payload) % _SETTING.size:
        raise ConnectionBrokenError(ErrorCode.FRAME_SIZE_ERROR, "a SETTINGS frame that is not a multiple of six bytes")
    return list(_SETTING.iter_unpack(payload))


def window_update(stream_id: int, size_bytes: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream_id, size_bytes.to_bytes(4, "big"))


def reset(stream_id: int, code: ErrorCode) -> bytes:
    return frame(RST_STREAM, 0, stream_id, code.to_bytes(4, "big"))


def goaway(last_stream_id: int, code: ErrorCode, text: str = "") -> bytes:
    return frame(GOAWAY, 0, 0, last_stream_id.to_bytes(4, "big") + code.to_bytes(4, "big") + text.encode())


def without_padding(flags: int, payload: bytes) -> bytes:
    """The content of a DATA or HEADERS frame; raises ConnectionBrokenError."""
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise ConnectionBrokenError(ErrorCode.PROTOCOL_ERROR, "a frame with more padding than payload")
    return payload[1 : len(payload) - payload[0]]

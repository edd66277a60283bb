"""The few bytes of HTTP/2 and protobuf that a load generator has to write itself, made once for each kind of request.

A request that differs from the last one in its stream's number alone costs the generator next to nothing, which matters
where it shares two cores with six servers. Header fields are literals without an index, so that a block can be sent again
on any connection. Pure functions.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from metasrv.model.types import Endpoint
from metasrv.model.varints import varint

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS = 1, 1, 4
HEADER_TABLE_SIZE, INITIAL_WINDOW_SIZE = 1, 4
WINDOW_MAX = 2**31 - 1
WINDOW_DEFAULT = 65_535
FRAME_HEAD_SIZE_BYTES = 9
FRAME_SIZE_BYTES_MAX = 16_384
"""What every server takes (RFC 9113 section 4.2). A message may not be larger than the window it begins with, 65,535."""


def frame(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    """One frame (RFC 9113 section 4.1)."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream_id) + payload


def greeting() -> bytes:
    """What a client sends first: the answers of the server are never held up by our windows, nor indexed."""
    settings = struct.pack(">HIHI", HEADER_TABLE_SIZE, 0, INITIAL_WINDOW_SIZE, WINDOW_MAX)
    window = struct.pack(">I", WINDOW_MAX - WINDOW_DEFAULT)
    return PREFACE + frame(SETTINGS, 0, 0, settings) + frame(WINDOW_UPDATE, 0, 0, window)


def data_frames(stream_id: int, body: bytes, *, last: bool) -> bytes:
    """A message in as many frames as it needs."""
    starts = range(0, max(len(body), 1), FRAME_SIZE_BYTES_MAX)
    return b"".join(
        frame(
            DATA,
            END_STREAM if last and start == starts[-1] else 0,
            stream_id,
            body[start : start + FRAME_SIZE_BYTES_MAX],
        )
        for start in starts
    )


def header_block(endpoint: Endpoint, path: str, headers: Mapping[str, str]) -> bytes:
    """The fields of a gRPC request, coded so that no decoder has to remember any (RFC 7541 section 6.2.2)."""
    fields = {":authority": str(endpoint), "content-type": "application/grpc", "te": "trailers", **headers}
    block = bytearray(b"\x83\x86")  # :method POST, :scheme http
    block += b"\x04" + _text(path)  # :path
    for name, value in fields.items():
        block += b"\x00" + _text(name) + _text(value)
    return bytes(block)


def _text(value: str) -> bytes:
    data = value.encode()
    return integer(len(data), 7) + data


def integer(value: int, prefix_bits: int) -> bytes:
    """An integer of HPACK (RFC 7541 section 5.1)."""
    limit = (1 << prefix_bits) - 1
    if value < limit:
        return bytes((value,))
    rest = bytearray((limit,))
    value -= limit
    while value >= 128:
        rest.append(value & 127 | 128)
        value >>= 7
    rest.append(value)
    return bytes(rest)


def field(number: int, value: bytes) -> bytes:
    """A field of bytes or of a message."""
    return varint(number << 3 | 2) + varint(len(value)) + value


def grpc_message(message: bytes) -> bytes:
    """A message with its length before it."""
    return struct.pack(">BI", 0, len(message)) + message

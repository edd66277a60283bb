"""The HTTP/2 frames of one gRPC call, without a gRPC library: what tonic and other clients see on the wire."""

from __future__ import annotations

import base64
import socket
import struct
from typing import NamedTuple

HEADERS, DATA, RST_STREAM = 1, 0, 3
END_STREAM, END_HEADERS = 0x1, 0x4
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


class Frame(NamedTuple):
    kind: int
    flags: int
    payload: bytes

    @property
    def ends(self) -> bool:
        return bool(self.flags & END_STREAM) or self.kind == RST_STREAM


GREETING = PREFACE + b"\0\0\0\x04" + bytes(5)
"""The preface, and settings that change nothing: 65,535 bytes of answers without a word from the client."""


def request(address: str, stream_id: int, path: str, message: bytes, token: bytes) -> bytes:
    """One message on a new stream."""
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": address,
        "content-type": "application/grpc",
        "te": "trailers",
        "auth-token-bin": base64.b64encode(token).decode(),
    }
    block = b"".join(b"\x00" + _text(name) + _text(value) for name, value in headers.items())
    body = struct.pack(">BI", 0, len(message)) + message
    return _frame(HEADERS, END_HEADERS, stream_id, block) + _frame(DATA, END_STREAM, stream_id, body)


def call(address: str, path: str, message: bytes, token: bytes, timeout_s: float = 5.0) -> list[Frame]:
    """Send one message on stream 1; the frames of that stream until it ends."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout_s) as connection:
        connection.sendall(GREETING + request(address, 1, path, message, token))
        received: list[Frame] = []
        while not (received and received[-1].ends):
            header = _read(connection, 9)
            payload = _read(connection, int.from_bytes(header[:3], "big"))
            if int.from_bytes(header[5:], "big") & 0x7FFFFFFF == 1:
                received.append(Frame(header[3], header[4], payload))
    return received


def _read(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise ConnectionError("the server closed the connection")
        data += part
    return data


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def _text(text: str) -> bytes:
    """A string of HPACK, not compressed: a length in a 7-bit prefix, then the bytes."""
    data = text.encode()
    if len(data) < 127:
        return bytes((len(data),)) + data
    left, encoded = len(data) - 127, b"\x7f"
    while left >= 128:
        encoded += bytes((left % 128 + 128,))
        left //= 128
    return encoded + bytes((left,)) + data

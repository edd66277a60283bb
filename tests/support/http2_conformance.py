"""What RFC 9113 and RFC 7541 ask of a server, as a table: the section, the bytes that a client sends, what must follow.

The cases are those of h2spec, a conformance suite for HTTP/2 servers, turned into gRPC calls, and some of our own. Each
case runs on a new connection after the preface, and ends with a PING, which is answered if the connection goes on.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from metasrv.grpc_api.http2 import frames as f
from metasrv.grpc_api.http2.frames import ErrorCode
from metasrv.grpc_api.http2.headers import literal
from metasrv.grpc_api.http2.messages import length_prefixed
from tests.support.http2_bench import HEADERS

PROBE = b"goes on?"


class Outcome(NamedTuple):
    """What a client sees."""

    ends: str
    """`connection`: with GOAWAY; `stream`: with RST_STREAM; `answered`: the calls succeed; `goes on`: no error."""
    codes: tuple[ErrorCode, ...] = ()
    """Any of them."""
    streams: tuple[int, ...] = ()


class Case(NamedTuple):
    """One row."""

    section: str
    name: str
    sent: bytes
    outcome: Outcome


def connection_error(*codes: ErrorCode) -> Outcome:
    return Outcome("connection", codes)


def stream_error(*codes: ErrorCode, stream: int = 1) -> Outcome:
    return Outcome("stream", codes, (stream,))


def answered(*streams: int) -> Outcome:
    return Outcome("answered", (), streams or (1,))


GOES_ON = Outcome("goes on")
PROTOCOL = ErrorCode.PROTOCOL_ERROR
CLOSED = ErrorCode.STREAM_CLOSED
SIZE = ErrorCode.FRAME_SIZE_ERROR
FLOW = ErrorCode.FLOW_CONTROL_ERROR
COMPRESSION = ErrorCode.COMPRESSION_ERROR
MESSAGE = length_prefixed(b"hello")
Fields = Iterable[tuple[str, str]]


def block_of(fields: Fields) -> bytes:
    return b"".join(literal(name, value) for name, value in fields)


def fields(*more: tuple[str, str], without: str = "", path: str = "/t.T/Echo") -> list[tuple[str, str]]:
    """The headers of a call, changed."""
    kept = [(name, path if name == ":path" else value) for name, value in HEADERS if name != without]
    return [*kept, *more]


def headers(stream_id: int = 1, *more: tuple[str, str], ended: bool = False, path: str = "/t.T/Echo") -> bytes:
    """A HEADERS frame of a call."""
    return raw_headers(stream_id, block_of(fields(*more, path=path)), ended=ended)


def raw_headers(stream_id: int, block: bytes, flags: int = 0, *, ended: bool = False) -> bytes:
    return f.frame(f.HEADERS, flags | f.END_HEADERS | (f.END_STREAM if ended else 0), stream_id, block)


def data(stream_id: int = 1, payload: bytes = MESSAGE, flags: int = f.END_STREAM) -> bytes:
    return f.frame(f.DATA, flags, stream_id, payload)


def call(stream_id: int = 1, *more: tuple[str, str]) -> bytes:
    return headers(stream_id, *more) + data(stream_id)


def running(stream_id: int = 1) -> bytes:
    """A call whose request is complete and whose answer never comes: half-closed (remote)."""
    return headers(stream_id, path="/t.T/Stuck") + data(stream_id)


def malformed(*changed: tuple[str, str]) -> bytes:
    """A call with these fields behind the usual ones."""
    return headers(1, *changed) + data()


def only(listed: Fields) -> bytes:
    """A call with exactly these fields."""
    return raw_headers(1, block_of(listed)) + data()


def request_in_pieces(*flags_and_types: tuple[int, int], between: bytes = b"") -> bytes:
    """A field block in as many frames as there are pairs of type and flags."""
    block = block_of(fields())
    size = len(block) // len(flags_and_types) + 1
    pieces = [block[start : start + size] for start in range(0, len(block), size)]
    frames = [f.frame(kind, flags, 1, piece) for (kind, flags), piece in zip(flags_and_types, pieces, strict=True)]
    return between.join(frames)


def priority(stream_id: int, depends_on: int, weight: int = 255) -> bytes:
    return f.frame(f.PRIORITY, 0, stream_id, depends_on.to_bytes(4, "big") + bytes([weight]))


def setting(identifier: int, value: int) -> bytes:
    return f.settings({identifier: value})


def ping(size: int = 8, flags: int = 0, stream_id: int = 0) -> bytes:
    return f.frame(f.PING, flags, stream_id, bytes(size))


def rst(stream_id: int, size: int = 4) -> bytes:
    return f.frame(f.RST_STREAM, 0, stream_id, bytes(size - 1) + b"\x08" if size else b"")


def updates(stream_id: int, *increments: int) -> bytes:
    return b"".join(f.window_update(stream_id, increment) for increment in increments)

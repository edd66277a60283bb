"""The gRPC port's HTTP/2: bytes of anybody, behind a good beginning or not.

The first byte says whether preface and settings stand before the rest, and in which pieces it arrives. No input may take
the connection down by an exception; at its end it is open, or closed in an orderly way.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from hpack import Encoder

from metasrv.grpc_api.http2 import frames as f
from metasrv.grpc_api.http2.connection import Connection
from metasrv.grpc_api.http2.messages import length_prefixed
from metasrv.grpc_api.http2.route import Route
from metasrv.grpc_api.http2.server import GrpcServer
from metasrv.metrics.registry import MetricsRegistry
from metasrv.testing.memory_stream import MemoryTransport
from verification.fuzz.target import Target, fuzz_loop, no_logged_errors, run_callbacks

_GREETED = 1
_GREETING = f.PREFACE + f.settings({})
_FIELDS = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/t.T/Echo"),
    (":authority", "a"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
]


async def _echo(data: bytes, call: Any) -> bytes:
    return data


async def _each(requests: AsyncIterator[bytes], call: Any) -> None:
    async for data in requests:
        await call.write(data)


async def _server() -> GrpcServer:
    return GrpcServer(
        {"/t.T/Echo": Route(_echo, True, True), "/t.T/Each": Route(_each, False, False)},
        MetricsRegistry("", ""),
        message_size_bytes_max=10_000,
        streams_max=8,
        calls_max=16,
        connections_max=3,
        held_size_bytes_max=50_000,
        refusal_metadata=(),
    )


def _run(data: bytes) -> None:
    with no_logged_errors():
        fuzz_loop().run_until_complete(_connected(data))
        run_callbacks(3)


async def _connected(data: bytes) -> None:
    mode, content = (data[0], data[1:]) if data else (0, b"")
    server = await _server()
    connection = Connection(server)
    transport = MemoryTransport(connection, "127.0.0.1")
    connection.connection_made(transport)
    if mode & _GREETED:
        connection.data_received(_GREETING)
    piece_size_bytes = 1 + (mode >> 1) * 8
    for start in range(0, len(content), piece_size_bytes):
        connection.data_received(content[start : start + piece_size_bytes])
        if transport.is_closing():
            break
    for _ in range(8):
        await asyncio.sleep(0)
    connection.tick()
    connection.connection_lost(None)
    await asyncio.sleep(0)
    if server.connections or server.budget.used_bytes:
        raise AssertionError(f"{len(server.connections)} connections, {server.budget.used_bytes} bytes are left")
    server.inflater.shutdown()


def _request(stream_id: int, *, path: str = "/t.T/Echo", data: bytes = b"message") -> bytes:
    block = Encoder().encode([(name, path if name == ":path" else value) for name, value in _FIELDS])
    return f.frame(f.HEADERS, f.END_HEADERS, stream_id, block) + f.frame(
        f.DATA, f.END_STREAM, stream_id, length_prefixed(data)
    )


TARGET = Target(
    "http2_bytes",
    _run,
    (
        b"\x00GET / HTTP/1.1\r\n\r\n",
        b"\x00" + _GREETING,
        b"\xff" + _request(1) + _request(3, path="/t.T/Each"),
        b"\x7f" + _request(1, path="/none"),
        b"\x07" + f.window_update(0, 100) + f.rst_stream(1, f.ErrorCode.CANCEL) + f.frame(f.PING, 0, 0, b"12345678"),
    ),
)

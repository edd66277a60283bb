"""A gRPC server without a socket, and clients that speak to it frame by frame."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from hpack import Decoder, Encoder

from metasrv.grpc_api.http2 import frames as f
from metasrv.grpc_api.http2.connection import Connection
from metasrv.grpc_api.http2.portions import Portions, undivided
from metasrv.grpc_api.http2.route import Route
from metasrv.grpc_api.http2.server import GrpcServer
from metasrv.metrics.registry import MetricsRegistry

HEADERS = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/t.T/Echo"),
    (":authority", "a"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
]


def compressed(data: bytes) -> bytes:
    return b"\x01" + len(data).to_bytes(4, "big") + data


class FakeTransport:
    """Keeps what was written."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.written = bytearray()
        self.writes = 0
        self.closed = False
        self.held = False
        self.host = host

    def write(self, data: bytes) -> None:
        assert not self.closed, "nothing is written after the end"
        self.written += data
        self.writes += 1

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        assert not self.held
        self.held = True

    def resume_reading(self) -> None:
        assert self.held
        self.held = False

    def set_write_buffer_limits(self, high: int) -> None:
        assert high > 0

    def get_write_buffer_size(self) -> int:
        return len(self.written)

    def get_extra_info(self, name: str) -> tuple[str, int] | None:
        assert name in ("peername", "ssl_object")
        return (self.host, 5) if name == "peername" else None


class Peer:
    """A client of one server, frame by frame."""

    def __init__(self, server: GrpcServer, *, greeted: bool = True, host: str = "127.0.0.1") -> None:
        self.connection = Connection(server)
        self.transport = FakeTransport(host)
        transport: Any = self.transport
        self.connection.connection_made(transport)
        self.encoder = Encoder()
        self.decoder: Any = Decoder()  # its types say bytes, and it gives texts
        if greeted:
            self.send(f.PREFACE + f.settings({}))
            self.frames()

    def send(self, data: bytes) -> None:
        self.connection.data_received(data)

    def request(self, stream_id: int, data: bytes | None, *extra: tuple[str, str], path: str = "/t.T/Echo") -> None:
        headers = [(name, path if name == ":path" else value) for name, value in HEADERS]
        self.send(f.frame(f.HEADERS, f.END_HEADERS, stream_id, self.encoder.encode([*headers, *extra])))
        if data is not None:
            self.send(f.frame(f.DATA, f.END_STREAM, stream_id, data))

    def frames(self) -> list[tuple[int, int, int, bytes]]:
        """What was sent since the last look: kind, flags, stream, payload."""
        data, found = bytes(self.transport.written), []
        self.transport.written.clear()
        while data:
            length_and_type, flags, stream_id = f.unpack_frame_header(data)
            end = f.FRAME_HEADER_SIZE_BYTES + (length_and_type >> 8)
            found.append((length_and_type & 0xFF, flags, stream_id, data[f.FRAME_HEADER_SIZE_BYTES : end]))
            data = data[end:]
        return found

    def decoded(self, block: bytes) -> dict[str, str]:
        return {str(name): str(value) for name, value in self.decoder.decode(block)}

    def headers(self) -> dict[str, str]:
        """All headers and trailers that arrived."""
        blocks = [payload for kind, _, _, payload in self.frames() if kind == f.HEADERS]
        return {str(name): str(value) for block in blocks for name, value in self.decoder.decode(block)}

    def goaway(self) -> tuple[int, str]:
        """The code and the text that the connection ended with."""
        assert self.transport.closed
        (payload,) = [payload for kind, _, _, payload in self.frames() if kind == f.GOAWAY]
        return int.from_bytes(payload[4:8], "big"), payload[8:].decode()


class Bench:
    """A server with five methods and a look at what they do."""

    def __init__(self, divide: Callable[[int], Portions] = undivided) -> None:
        self.cancelled = 0
        self.metrics = MetricsRegistry("", "")
        self.server = GrpcServer(
            {
                "/t.T/Echo": Route(self.echo, True, True),
                "/t.T/Stuck": Route(self.stuck, True, True),
                "/t.T/Each": Route(self.each, False, False),
                "/t.T/Idle": Route(self.stuck, False, False),
                "/t.T/Large": Route(self.large, True, True),
            },
            self.metrics,
            message_size_bytes_max=100_000,
            streams_max=8,
            calls_max=16,
            connections_max=3,
            held_size_bytes_max=150_000,
            divide=divide,
            refusal_metadata=(("x-refused", "nothing was done"),),
        )
        self.now = 0.0
        self.step_seconds = 0.0
        """What each look at the turns' clock takes."""
        self.server.turns.clock = self.clock

    def clock(self) -> float:
        self.now += self.step_seconds
        return self.now

    async def echo(self, data: bytes, call: Any) -> bytes:
        return data

    async def large(self, data: bytes, call: Any) -> bytes:
        return data * 1000

    async def stuck(self, data: Any, call: Any) -> bytes:
        try:
            return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    async def each(self, requests: AsyncIterator[bytes], call: Any) -> None:
        async for data in requests:
            await call.write(data)


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)

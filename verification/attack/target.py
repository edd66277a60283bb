"""What an attacker knows of the port it attacks, and how it speaks to it: plain or TLS, with or without credentials.

Knows the wire alone, no node. Runs in the attacker's process.
"""

from __future__ import annotations

import asyncio
import base64
import os
import ssl
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

from metasrv.grpc_api.http2 import frames as f
from metasrv.grpc_api.http2.headers import literal

OWN_ADDRESS = "127.0.0.2"
"""Where attackers connect from that do not share the address of those whom they harm. Linux gives it to every process."""
STATUS_METHOD = "/meta.MetaService/GetClusterStatus"
TOKEN_FIELD = "auth-token-bin"
EMPTY_MESSAGE = bytes(5)


class Credentials(NamedTuple):
    """What an attacker was given; empty for nothing."""

    grpc_token: str = ""
    """A client's token, in base64."""
    admin_token: str = ""
    """A token of the scope `read`."""
    certificate: str = ""
    """PEM file of a client's certificate, and of its key."""
    key: str = ""

    @classmethod
    def from_environment(cls) -> Credentials:
        return cls(*(os.environ.get(f"ATTACK_{name.upper()}", "") for name in cls._fields))

    def environment(self) -> dict[str, str]:
        return {f"ATTACK_{name.upper()}": value for name, value in self._asdict().items()}


NO_CREDENTIALS = Credentials()


@dataclass(slots=True)
class Target:
    """One port, and until when to attack it."""

    host: str
    port: int
    until: float
    tls: ssl.SSLContext | None = None
    credentials: Credentials = NO_CREDENTIALS
    source: str = ""
    """The address to connect from; empty for any."""
    connections: int = 0
    """Made so far."""
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    def goes_on(self) -> bool:
        return time.monotonic() < self.until

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection over which the port's own protocol is spoken."""
        return await self._connect(self.tls)

    async def connect_plainly(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection on which TLS has not begun."""
        return await self._connect(None)

    async def _connect(self, tls: ssl.SSLContext | None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        self.connections += 1
        source = (self.source, 0) if self.source else None
        return await asyncio.open_connection(self.host, self.port, ssl=tls, local_addr=source)

    def request(
        self, stream_id: int, path: str, *fields: tuple[str, str], ends: bool = False, extra: bytes = b""
    ) -> bytes:
        """The headers of a call, whose body may follow; with the token, where there is one."""
        head = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "a")]
        head += [("content-type", "application/grpc"), ("te", "trailers"), *fields]
        if self.credentials.grpc_token:
            head.append((TOKEN_FIELD, self.credentials.grpc_token))
        block = b"".join(literal(name, value) for name, value in head) + extra
        flags = f.END_STREAM if ends else 0
        if len(block) <= f.PAYLOAD_SIZE_BYTES_MAX:
            return f.frame(f.HEADERS, flags | f.END_HEADERS, stream_id, block)
        size_bytes = f.PAYLOAD_SIZE_BYTES_MAX
        pieces = [block[start : start + size_bytes] for start in range(0, len(block), size_bytes)]
        frames = [f.frame(f.HEADERS, flags, stream_id, pieces[0])]
        for number, piece in enumerate(pieces[1:], 2):
            end = f.END_HEADERS if number == len(pieces) else 0
            frames.append(f.frame(f.CONTINUATION, end, stream_id, piece))
        return b"".join(frames)

    def get(self, path: str, method: str = "GET", *headers: str, host: str = "localhost") -> bytes:
        """A request to the admin port; with the token, where there is one."""
        lines = [f"{method} {path} HTTP/1.1", f"host: {host}", *headers]
        if self.credentials.admin_token:
            lines.append(f"authorization: Bearer {self.credentials.admin_token}")
        return "\r\n".join([*lines, "", ""]).encode()


Attack = Callable[[Target], Awaitable[None]]


class Http2Client:
    """A connection that speaks HTTP/2. What it is told to send may be anything."""

    def __init__(self, target: Target, writer: asyncio.StreamWriter) -> None:
        self._target = target
        self._last_id = -1
        self.writer = writer

    def next_id(self) -> int:
        self._last_id += 2
        return self._last_id

    def call(self, path: str, *fields: tuple[str, str], ends: bool = False, extra: bytes = b"") -> bytes:
        """The headers of a further call."""
        return self._target.request(self.next_id(), path, *fields, ends=ends, extra=extra)

    def whole_call(self, path: str, message: bytes = EMPTY_MESSAGE, *fields: tuple[str, str]) -> bytes:
        """A further call with its only message, which has its five bytes in front."""
        stream_id = self.next_id()
        body = f.frame(f.DATA, f.END_STREAM, stream_id, message)
        return self._target.request(stream_id, path, *fields) + body

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()
        await asyncio.sleep(0)

    async def open_calls(self, count: int, path: str, ends: bool = False) -> None:
        for start in range(0, count, 100):
            await self.send(b"".join(self.call(path, ends=ends) for _ in range(start, min(start + 100, count))))


async def greet(target: Target, *, window: int | None = None, reads: bool = True) -> Http2Client:
    """Connect with HTTP/2; answers are read and forgotten. A token is shown at once, so that the node knows a client."""
    reader, writer = await target.connect()
    client = Http2Client(target, writer)
    writer.write(f.PREFACE + f.settings({} if window is None else {f.SETTING_INITIAL_WINDOW_SIZE: window}))
    if reads:
        target.writers.append(writer)
        asyncio.get_running_loop().create_task(forget(reader))
    if target.credentials.grpc_token:
        await client.send(client.whole_call(STATUS_METHOD))
    return client


async def forget(reader: asyncio.StreamReader) -> None:
    with suppress(OSError):
        while await reader.read(65_536):
            continue


def trusting_tls(credentials: Credentials, *protocols: str) -> ssl.SSLContext:
    """TLS that believes any server: an attacker does not care whom it harms."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if protocols:
        context.set_alpn_protocols(list(protocols))
    if credentials.certificate:
        context.load_cert_chain(credentials.certificate, credentials.key)
    return context


def in_base64(token: bytes) -> str:
    return base64.b64encode(token).rstrip(b"=").decode()

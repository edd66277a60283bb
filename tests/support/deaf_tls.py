"""TLS clients that speak and never listen: they do not answer the end of a connection, as TLS asks of them.

Knows the wire alone. What a server waits for from such a client, it waits for in vain. For tests only.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import suppress

from metasrv.model.types import Endpoint

CONNECT_SECONDS = 10.0


async def speak_without_listening(
    endpoint: Endpoint, words: bytes, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> socket.socket:
    """Connect from `host`, finish the handshake, say something; returns the stream below TLS."""
    return await asyncio.to_thread(_speak, endpoint, words, tls or trusting_anybody(), host)


async def ends(stream: socket.socket, within_seconds: float = 5.0) -> bool:
    """Whether the server closes the stream below TLS, and not only what TLS makes of it."""
    return await asyncio.to_thread(_ends, stream, within_seconds)


def trusting_anybody() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _speak(endpoint: Endpoint, words: bytes, tls: ssl.SSLContext, host: str) -> socket.socket:
    stream = socket.create_connection(endpoint, CONNECT_SECONDS, (host, 0))
    with tls.wrap_socket(stream, server_hostname=endpoint.addr) as secured:
        with suppress(ConnectionError):  # some words are refused before they are over
            secured.sendall(words)
        return socket.socket(fileno=secured.detach())


def _ends(stream: socket.socket, within_seconds: float) -> bool:
    stream.settimeout(within_seconds)
    try:
        while stream.recv(65_536):
            continue
    except TimeoutError:
        return False
    except ConnectionError:
        return True
    return True

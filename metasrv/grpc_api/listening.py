"""Opens the sockets of the gRPC port and reads its TLS files; says in one sentence what is wrong with them.

gRPC clients require that the TLS handshake agrees on HTTP/2 (ALPN). Runs once, at the start.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl

from metasrv.model.errors import BindError, ConfigError
from metasrv.model.types import Endpoint
from metasrv.process.certificates import no_pass_phrase
from metasrv.process.listening_socket import listening_socket

BACKLOG = 1024


async def open_sockets(endpoint: Endpoint) -> list[socket.socket]:
    """Listening sockets for every address of the host, all on one port; raises BindError."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(
            endpoint.addr or None, endpoint.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (socket.gaierror, UnicodeError) as error:
        raise _bind_error(endpoint, f"the host is unknown ({error})") from error
    sockets: list[socket.socket] = []
    failures: list[OSError] = []
    port = endpoint.port
    for family, _, _, _, address in dict.fromkeys(found):
        try:
            listening = listening_socket(family, (address[0], port, *address[2:]), BACKLOG)
        except OSError as error:
            failures.append(error)
            continue
        sockets.append(listening)
        port = listening.getsockname()[1]
    taken = next((error for error in failures if error.errno == errno.EADDRINUSE), None)
    # A host name may resolve to an address family that this machine does not have: one open socket is enough then.
    if taken is not None or not sockets:
        for listening in sockets:
            listening.close()
        failure = taken or failures[0]
        reason = "the address is in use" if taken is not None else os.strerror(failure.errno or 0)
        raise _bind_error(endpoint, reason) from failure
    return sockets


def server_tls(cert_path: str, key_path: str, endpoint: Endpoint) -> ssl.SSLContext | None:
    """The TLS of the port, None without it; raises ConfigError for unreadable files, BindError for unusable ones."""
    if not cert_path or not key_path:
        return None
    problems = []
    for name, path in (("grpc_tls_server_key", key_path), ("grpc_tls_server_cert", cert_path)):
        try:
            with open(path, "rb"):
                pass
        except OSError as error:
            problems.append(f"{name}: {path} cannot be read: {error.strerror}")
    if problems:
        raise ConfigError(problems)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    try:
        context.load_cert_chain(cert_path, key_path, password=no_pass_phrase)
    except (ssl.SSLError, ValueError) as error:
        raise _bind_error(endpoint, "the certificate or its key is not usable") from error
    return context


def _bind_error(endpoint: Endpoint, reason: str) -> BindError:
    return BindError(f"the gRPC API cannot listen at {endpoint}: {reason}")

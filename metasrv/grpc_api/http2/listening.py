"""The sockets and the TLS of the gRPC port, and one clear sentence for whatever is wrong with them.

gRPC's clients want HTTP/2 to be agreed on in the TLS handshake (ALPN). Runs once, at the start.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl

from metasrv.errors import BindError, ConfigError
from metasrv.types import Endpoint

BACKLOG = 1024


def open_sockets(endpoint: Endpoint) -> list[socket.socket]:
    """Listening sockets for every address of the host, all on one port; raises BindError."""
    try:
        found = socket.getaddrinfo(endpoint.addr or None, endpoint.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise _bind_error(endpoint, f"the host is unknown ({error.strerror})") from error
    sockets: list[socket.socket] = []
    failures: list[OSError] = []
    port = endpoint.port
    for family, kind, protocol, _, address in dict.fromkeys(found):
        try:
            listening = _listen(family, kind, protocol, (address[0], port, *address[2:]))
        except OSError as error:
            failures.append(error)
            continue
        sockets.append(listening)
        port = listening.getsockname()[1]
    taken = next((error for error in failures if error.errno == errno.EADDRINUSE), None)
    # A host name may stand for an address family that this machine does not have; one address is enough then.
    if taken is not None or not sockets:
        for listening in sockets:
            listening.close()
        failure = taken or failures[0]
        reason = "the address is in use" if taken is not None else os.strerror(failure.errno or 0)
        raise _bind_error(endpoint, reason) from failure
    return sockets


def _listen(family: int, kind: int, protocol: int, address: tuple[object, ...]) -> socket.socket:
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
        listening.setblocking(False)
    except OSError:
        listening.close()
        raise
    return listening


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
            problems.append(f"{name}: {path} can not be read: {error.strerror}")
    if problems:
        raise ConfigError(problems)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    try:
        context.load_cert_chain(cert_path, key_path)
    except ssl.SSLError as error:
        raise _bind_error(endpoint, "the certificate or its key is not usable") from error
    return context


def _bind_error(endpoint: Endpoint, reason: str) -> BindError:
    return BindError(f"the gRPC API can not listen at {endpoint}: {reason}")

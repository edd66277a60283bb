"""Opens the sockets of the gRPC port and reads its TLS files; says in one sentence what is wrong with them.

gRPC clients require that the TLS handshake agrees on HTTP/2 (ALPN). Runs at the start; the TLS files are
read again, in a helper thread, when they change.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import Callable

from metasrv.config.model import Config
from metasrv.grpc_api.context import GrpcContext
from metasrv.model.errors import BindError, ConfigError
from metasrv.model.types import Endpoint
from metasrv.process.certificates import expiry_of
from metasrv.process.listening_socket import listening_socket
from metasrv.process.reloading import Reloadable
from metasrv.process.tls import TlsSettings, server_context

BACKLOG = 1024
TLS_KEYS = (
    "grpc_tls_server_cert",
    "grpc_tls_server_key",
    "grpc_tls_client_ca_file",
    "grpc_tls_crl_file",
    "grpc_tls_ciphers",
)


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


def tls_files(config: Config) -> list[str]:
    """The files that `server_tls` reads."""
    return [path for path in (getattr(config, key) for key in TLS_KEYS[:4]) if path]


def has_tls(config: Config) -> bool:
    """Whether the port speaks TLS: with a certificate and its key."""
    return bool(config.grpc_tls_server_cert and config.grpc_tls_server_key)


def watch_settings(
    context: GrpcContext, name: str, endpoint: Endpoint, swapped: Callable[[ssl.SSLContext | None], None]
) -> None:
    """Load the TLS files and the settings of the port, now and when they change, and give `swapped` what is in force.

    `name` is the port's in metrics. Raises as `server_tls`.
    """
    had_tls = has_tls(context.config)

    def paths() -> list[str]:
        return [*context.config_paths, *tls_files(context.config)]

    def load() -> tuple[ssl.SSLContext | None, float | None]:
        config = context.config
        if has_tls(config) is not had_tls:
            raise ConfigError(["turning TLS of the gRPC API on or off takes a restart"])
        tls = server_tls(config, endpoint)
        return tls, None if tls is None else expiry_of(config.grpc_tls_server_cert)

    def swap(loaded: tuple[ssl.SSLContext | None, float | None]) -> None:
        tls, expires_at = loaded
        if expires_at is not None:
            context.metrics.certificate_expires(name, expires_at)
        context.watch.set_slow_ms(context.config.slow_request_ms)
        swapped(tls)

    context.reloader.add(Reloadable(name, paths, load, swap))
    swap(load())


def server_tls(config: Config, endpoint: Endpoint) -> ssl.SSLContext | None:
    """The TLS of the port, None without it; raises ConfigError for unreadable files, BindError for unusable ones."""
    settings = TlsSettings(
        config.grpc_tls_server_cert,
        config.grpc_tls_server_key,
        config.grpc_tls_client_ca_file,
        config.grpc_tls_crl_file,
        config.grpc_tls_ciphers,
        TLS_KEYS,
    )
    if not has_tls(config):
        return None
    try:
        context = server_context(settings)
    except (ssl.SSLError, ValueError) as error:
        clients = settings.client_authority or settings.revoked
        more = ", or the authority of clients or its list of revoked certificates" if clients else ""
        # Said at the start and when the files have changed: no word of listening, which goes on with what was there.
        raise BindError(
            f"the gRPC API at {endpoint}: grpc_tls_server_cert {settings.certificate} or grpc_tls_server_key"
            f" {settings.key} is not usable{more}: {error}"
        ) from error
    context.set_alpn_protocols(["h2"])
    return context


def _bind_error(endpoint: Endpoint, reason: str) -> BindError:
    return BindError(f"the gRPC API cannot listen at {endpoint}: {reason}")

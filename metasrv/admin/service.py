"""The admin listener: binds, serves and stops the application inside the node's event loop.

The socket is bound here and not by the server, so that a failure is one clear sentence and the port is known before the
node goes on. The server gets no signal handlers: the node owns signals. Runs on the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import ssl
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple, cast

import uvicorn

from metasrv.admin.app import create_app
from metasrv.admin.connection import BoundedProtocol, CutOffs
from metasrv.model.errors import BindError, ConfigError
from metasrv.model.limits import ADMIN_KEEP_ALIVE_SECONDS_MAX
from metasrv.model.types import Endpoint
from metasrv.node.context import NodeContext
from metasrv.process.accepting import AcceptingObserver, AcceptingSocket, CurrentTls
from metasrv.process.certificates import expiry_of, no_pass_phrase
from metasrv.process.listening_socket import listening_socket
from metasrv.process.open_files import admin_connections_max
from metasrv.process.operating_system import descriptor_limit
from metasrv.process.reloading import Reloadable

logger = logging.getLogger(__name__)

BACKLOG = 512
STOP_MARGIN_SECONDS = 1.0
"""The server checks every 100 ms whether it should stop, then whether its connections are closed."""


class EmbeddedServer(uvicorn.Server):
    """A server that leaves signals alone, says when it listens, and accepts as the raft port does."""

    def __init__(self, config: uvicorn.Config, tls: CurrentTls, observer: AcceptingObserver) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()
        self._tls = tls
        self._observer = observer

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept on the sockets; replaces the server's own, which does not see callers before their TLS handshake."""
        await self.lifespan.startup()

        def make_protocol() -> asyncio.Protocol:
            make: Callable[..., asyncio.Protocol] = self.config.http_protocol_class
            return make(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

        accepting = [
            AcceptingSocket(AdminService.name, listening, make_protocol, self._tls, self._observer)
            for listening in sockets or ()
        ]
        self.servers = cast(list[asyncio.Server], accepting)  # the server closes them, and nothing else
        self.started = True
        self.listening.set()


class AdminService:
    """Implements `Service` (metasrv/node/context.py)."""

    name = "admin"

    def __init__(self, context: NodeContext) -> None:
        self._context = context
        self._server: EmbeddedServer | None = None
        self._serving: asyncio.Task[None] | None = None
        self._tls: ssl.SSLContext | None = None
        """What the next connection is accepted with."""

    async def start(self) -> Endpoint:
        """Bind and serve. Raises BindError for the address, ConfigError for a bad certificate or key."""
        config = self._server_config()
        self._watch_certificate()
        listener = await bind(self._context.config.admin_api_address)
        server = EmbeddedServer(config, lambda: self._tls, self._context.metrics)
        serving = asyncio.create_task(server.serve(sockets=[listener]), name="admin-server")
        listening = asyncio.create_task(server.listening.wait(), name="admin-listening")
        try:
            await asyncio.wait({serving, listening}, return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                await serving
                raise BindError(f"the admin API at {self._context.config.admin_api_address} did not start")
        except BaseException:
            serving.cancel()
            listener.close()
            raise
        finally:
            listening.cancel()
        self._server, self._serving = server, serving
        address = listener.getsockname()
        return Endpoint(address[0], address[1])

    async def stop(self, grace_ms: int) -> None:
        """Stop accepting; requests in flight get `grace_ms`, then they are cancelled."""
        server, serving = self._server, self._serving
        if server is None or serving is None:
            return
        server.config.timeout_graceful_shutdown = grace_ms / 1000  # type: ignore[assignment]  # whole seconds by type only
        server.should_exit = True
        done, _ = await asyncio.wait({serving}, timeout=grace_ms / 1000 + STOP_MARGIN_SECONDS)
        if not done:
            logger.warning("the admin server did not stop within %d ms and is cancelled", grace_ms)
            serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        self._server = self._serving = None

    def _server_config(self) -> uvicorn.Config:
        server_config = uvicorn.Config(
            create_app(self._context),
            loop="none",
            http=partial(BoundedProtocol, CutOffs()),  # type: ignore[arg-type]  # called, as a class is
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=admin_connections_max(descriptor_limit()),
            timeout_keep_alive=ADMIN_KEEP_ALIVE_SECONDS_MAX,
            backlog=BACKLOG,
        )
        server_config.load()
        return server_config

    def _watch_certificate(self) -> None:
        """Load the certificate, and let a changed one take effect. Raises ConfigError."""
        context = self._context
        had_tls = bool(context.config.admin_tls_server_cert and context.config.admin_tls_server_key)

        def paths() -> list[str]:
            config = context.config
            return [*context.config_paths, *filter(None, (config.admin_tls_server_cert, config.admin_tls_server_key))]

        def load() -> ServerTls | None:
            loaded = server_tls(context.config.admin_tls_server_cert, context.config.admin_tls_server_key)
            if (loaded is not None) is not had_tls:
                raise ConfigError(["turning TLS of the admin API on or off takes a restart"])
            return loaded

        def swap(loaded: ServerTls | None) -> None:
            if loaded is not None:
                self._tls = loaded.context
                context.metrics.certificate_expires(self.name, loaded.expires_at)

        context.reloader.add(Reloadable(self.name, paths, load, swap))
        swap(load())


class ServerTls(NamedTuple):
    """The TLS of the port, and when its certificate expires, in seconds since the epoch."""

    context: ssl.SSLContext
    expires_at: float


def server_tls(certificate: str, key: str) -> ServerTls | None:
    """None without a certificate; raises ConfigError for one that cannot be used."""
    if not certificate or not key:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key, password=no_pass_phrase)
        return ServerTls(context, expiry_of(certificate))
    except (OSError, ValueError) as error:
        raise ConfigError(
            [f"admin_tls_server_cert {certificate} and admin_tls_server_key {key} cannot be used: {error}"]
        ) from error


async def bind(address: str) -> socket.socket:
    """A bound socket for `host:port`. Raises BindError with one sentence."""
    endpoint = Endpoint.parse(address)
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(endpoint.addr, endpoint.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise BindError(f"the admin API cannot listen at {address}: the host is unknown ({error})") from error
    family, _, _, _, socket_address = found[0]
    try:
        return listening_socket(family, socket_address, BACKLOG)
    except OSError as error:
        raise BindError(_sentence(address, error)) from error


def _sentence(address: str, error: OSError) -> str:
    reasons = {
        errno.EADDRINUSE: "it is already in use",
        errno.EADDRNOTAVAIL: "it is not an address of this machine",
        errno.EACCES: "this user may not use the port",
    }
    reason = reasons.get(error.errno or 0) or os.strerror(error.errno or 0)
    return f"the admin API cannot listen at {address}: {reason}"

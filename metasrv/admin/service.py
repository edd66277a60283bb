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
from collections.abc import Iterator
from functools import partial

import uvicorn

from metasrv.admin.app import create_app
from metasrv.admin.connection import BoundedProtocol, CutOffs
from metasrv.model.errors import BindError, ConfigError
from metasrv.model.limits import ADMIN_KEEP_ALIVE_SECONDS_MAX
from metasrv.model.types import Endpoint
from metasrv.node.context import NodeContext
from metasrv.process.listening_socket import listening_socket
from metasrv.process.open_files import admin_connections_max
from metasrv.process.operating_system import descriptor_limit
from metasrv.process.tls import FORWARD_SECRET_CIPHERS

logger = logging.getLogger(__name__)

BACKLOG = 512
STOP_MARGIN_SECONDS = 1.0
"""The server checks every 100 ms whether it should stop, then whether its connections are closed."""


class EmbeddedServer(uvicorn.Server):
    """A server that leaves signals alone and says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()


class AdminService:
    """Implements `Service` (metasrv/node/context.py)."""

    name = "admin"

    def __init__(self, context: NodeContext) -> None:
        self._context = context
        self._server: EmbeddedServer | None = None
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> Endpoint:
        """Bind and serve. Raises BindError for the address, ConfigError for a bad certificate or key."""
        config = self._server_config()
        listener = await bind(self._context.config.admin_api_address)
        server = EmbeddedServer(config)
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
        config = self._context.config
        certificate, key = config.admin_tls_server_cert, config.admin_tls_server_key
        secure = bool(certificate and key)
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
            ssl_certfile=certificate if secure else None,
            ssl_keyfile=key if secure else None,
            ssl_ciphers=FORWARD_SECRET_CIPHERS,
        )
        try:
            server_config.load()
        except (ssl.SSLError, OSError) as error:
            raise ConfigError(
                [f"admin_tls_server_cert {certificate} and admin_tls_server_key {key} cannot be used: {error}"]
            ) from error
        return server_config


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

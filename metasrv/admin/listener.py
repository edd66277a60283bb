"""One HTTP listener: binds, serves and stops an application inside the node's event loop.

The socket is bound here and not by the server, so that a failure is one clear sentence and the port is known before the
node goes on. It accepts as the raft port does, which counts silent callers and lets certificates change. The server gets
no signal handlers: the node owns signals. Must not know what is served. Runs on the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
from collections.abc import Callable, Iterator
from typing import cast

import uvicorn

from metasrv.admin.cut_offs import CutOffs
from metasrv.model.errors import BindError
from metasrv.model.types import Endpoint
from metasrv.process.accepting import AcceptingObserver, AcceptingSocket, CurrentTls
from metasrv.process.listening_socket import listening_socket

logger = logging.getLogger(__name__)

BACKLOG = 512
STOP_MARGIN_SECONDS = 1.0
"""The server checks every 100 ms whether it should stop, then whether its connections are closed."""


def no_tls() -> None:
    """The current TLS of a listener that speaks plain HTTP."""
    return


class EmbeddedServer(uvicorn.Server):
    """A server that leaves signals alone, says when it listens, and accepts as the raft port does."""

    def __init__(self, port: str, config: uvicorn.Config, tls: CurrentTls, observer: AcceptingObserver) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()
        self._port = port
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
            AcceptingSocket(self._port, listening, make_protocol, self._tls, self._observer)
            for listening in sockets or ()
        ]
        self.servers = cast(list[asyncio.Server], accepting)  # the server closes them, and nothing else
        self.started = True
        self.listening.set()


class HttpListener:
    """A server at one address.

    `port` names it in metrics and log lines, as `admin`; `what` in sentences, as `the admin API`. `tls` is asked for what
    the next connection is accepted with.
    """

    def __init__(
        self,
        port: str,
        what: str,
        address: str,
        config: uvicorn.Config,
        cut_offs: CutOffs,
        tls: CurrentTls,
        observer: AcceptingObserver,
    ) -> None:
        self._what, self._address = what, address
        self._cut_offs = cut_offs
        self._serving: asyncio.Task[None] | None = None
        self.server = EmbeddedServer(port, config, tls, observer)

    async def start(self) -> Endpoint:
        """Bind and serve; the bound address. Raises BindError with one sentence."""
        listener = await self._bind()
        serving = asyncio.create_task(self.server.serve(sockets=[listener]), name="admin-server")
        listening = asyncio.create_task(self.server.listening.wait(), name="admin-listening")
        try:
            await asyncio.wait({serving, listening}, return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                await serving
                raise BindError(f"{self._what} at {self._address} did not start")
        except BaseException:
            serving.cancel()
            listener.close()
            raise
        finally:
            listening.cancel()
        self._serving = serving
        address = listener.getsockname()
        return Endpoint(address[0], address[1])

    async def stop(self, grace_ms: int) -> None:
        """Stop accepting; requests in flight get `grace_ms`, then they are cancelled."""
        serving = self._serving
        if serving is None:
            return
        self.server.config.timeout_graceful_shutdown = grace_ms / 1000  # type: ignore[assignment]  # whole seconds by type only
        self.server.should_exit = True
        done, _ = await asyncio.wait({serving}, timeout=grace_ms / 1000 + STOP_MARGIN_SECONDS)
        if not done:
            logger.warning("%s did not stop within %d ms and is cancelled", self._what, grace_ms)
            serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        self._cut_offs.report()
        self._serving = None

    async def _bind(self) -> socket.socket:
        endpoint = Endpoint.parse(self._address)
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(endpoint.addr, endpoint.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        except OSError as error:
            raise BindError(f"{self._what} cannot listen at {self._address}: the host is unknown ({error})") from error
        family, _, _, _, socket_address = found[0]
        try:
            return listening_socket(family, socket_address, BACKLOG)
        except OSError as error:
            raise BindError(f"{self._what} cannot listen at {self._address}: {_reason(error)}") from error


def _reason(error: OSError) -> str:
    reasons = {
        errno.EADDRINUSE: "it is already in use",
        errno.EADDRNOTAVAIL: "it is not an address of this machine",
        errno.EACCES: "this user may not use the port",
    }
    return reasons.get(error.errno or 0) or os.strerror(error.errno or 0)

"""The two HTTP listeners of a node: the admin API, and one of its own for probes where `health_api_address` is set.

What each of them serves, with which limits and credentials, and what of these is loaded anew when its files change. The
one for probes has plain HTTP, asks nobody who they are and has connections of its own, so that orchestrators need no way
to the admin API. Runs on the event loop.
"""

from __future__ import annotations

import ssl
from functools import partial

import uvicorn
from fastapi import FastAPI

from metasrv.admin.access import Access, tokens_of
from metasrv.admin.app import create_app, create_health_app
from metasrv.admin.audit import Audit
from metasrv.admin.connection import BoundedProtocol
from metasrv.admin.cut_offs import CutOffs
from metasrv.admin.last_words import say_why
from metasrv.admin.listener import BACKLOG, HttpListener, no_tls
from metasrv.admin.tls import ServerTls, has_tls, server_tls, tls_files
from metasrv.config.admin_tokens import Tokens
from metasrv.config.model import Config
from metasrv.console.console import Console
from metasrv.model.errors import ConfigError
from metasrv.model.limits import ADMIN_KEEP_ALIVE_SECONDS_MAX, HEALTH_CONNECTIONS_MAX
from metasrv.model.types import Endpoint
from metasrv.node.context import NodeContext
from metasrv.process.open_files import admin_connections_max
from metasrv.process.operating_system import descriptor_limit
from metasrv.process.reloading import Reloadable
from metasrv.profiling.continuous import ContinuousProfile

TOKENS_NAME = "admin tokens"
"""What is loaded anew, in log lines and metrics."""


class AdminService:
    """Implements `Service` (metasrv/node/context.py)."""

    name = "admin"

    def __init__(self, context: NodeContext) -> None:
        self._context = context
        self._watch_tokens()
        self.access = Access(context.config)
        """Who may do what; its tokens are loaded anew when they change."""
        self.console = Console(context)
        self._audit = Audit(context)
        self._continuous = ContinuousProfile(context.config.continuous_profile_hertz, context.clock.wall_ms)
        self._listener: HttpListener | None = None
        self._tls: ssl.SSLContext | None = None
        """What the next connection is accepted with."""

    async def start(self) -> Endpoint:
        """Bind and serve. Raises BindError for the address, ConfigError for a bad certificate or key."""
        context = self._context
        cut_offs = CutOffs("the admin API")
        app = create_app(context, self.access, self.console, self._continuous, self._audit)
        config = server_config(app, cut_offs, admin_connections_max(descriptor_limit()))
        self._watch_certificate()
        address, observer = context.config.admin_api_address, context.metrics
        listener = HttpListener(self.name, "the admin API", address, config, cut_offs, lambda: self._tls, observer)
        endpoint = await listener.start()
        self._listener = listener
        self.console.start()
        self._continuous.start()
        return endpoint

    async def stop(self, grace_ms: int) -> None:
        """Stop accepting; requests in flight get `grace_ms`, then they are cancelled. Streams end at once.

        A node that ends for a fault answers everything for some seconds first.
        """
        await say_why(self._context, self.console)
        self._continuous.stop()
        await self.console.stop()
        if self._listener is not None:
            await self._listener.stop(grace_ms)
        self._audit.report()

    def _watch_tokens(self) -> None:
        """Let changed tokens, and what else decides who may do what, take effect."""
        context = self._context

        def paths() -> list[str]:
            return [*context.config_paths, *filter(None, (context.config.admin_tokens_file,))]

        def load() -> tuple[Config, Tokens]:
            config = context.config
            return config, tokens_of(config)

        def swap(loaded: tuple[Config, Tokens]) -> None:
            self.access.use(*loaded)

        context.reloader.add(Reloadable(TOKENS_NAME, paths, load, swap))

    def _watch_certificate(self) -> None:
        """Load the certificates, and let changed ones take effect. Raises ConfigError."""
        context = self._context
        had_tls = has_tls(context.config)

        def paths() -> list[str]:
            return [*context.config_paths, *tls_files(context.config)]

        def load() -> ServerTls | None:
            config = context.config
            if has_tls(config) is not had_tls:
                raise ConfigError(["turning TLS of the admin API on or off takes a restart"])
            return server_tls(config)

        def swap(loaded: ServerTls | None) -> None:
            if loaded is not None:
                self._tls = loaded.context
                context.metrics.certificate_expires(self.name, loaded.expires_at)

        context.reloader.add(Reloadable(self.name, paths, load, swap))
        swap(load())


class HealthService:
    """Implements `Service`: the probes alone, at `health_api_address`, in plain HTTP."""

    name = "health"

    def __init__(self, context: NodeContext) -> None:
        self._context = context
        self._listener: HttpListener | None = None

    async def start(self) -> Endpoint:
        """Bind and serve. Raises BindError."""
        context, what = self._context, "the probes' listener"
        cut_offs = CutOffs(what)
        config = server_config(create_health_app(context), cut_offs, HEALTH_CONNECTIONS_MAX)
        address, observer = context.config.health_api_address, context.metrics
        listener = HttpListener(self.name, what, address, config, cut_offs, no_tls, observer)
        endpoint = await listener.start()
        self._listener = listener
        return endpoint

    async def stop(self, grace_ms: int) -> None:
        """As `AdminService.stop`."""
        if self._listener is not None:
            await self._listener.stop(grace_ms)


def server_config(app: FastAPI, cut_offs: CutOffs, connections_max: int) -> uvicorn.Config:
    """How an application is served here, whatever it serves; TLS is the listener's."""
    return uvicorn.Config(
        app,
        loop="none",
        http=partial(BoundedProtocol, cut_offs),  # type: ignore[arg-type]  # called, as a class is
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=connections_max,
        timeout_keep_alive=ADMIN_KEEP_ALIVE_SECONDS_MAX,
        backlog=BACKLOG,
    )

"""The two HTTP listeners of a node: the admin API, and one of its own for probes where `health_api_address` is set.

What each of them serves, with which limits and certificates. The one for probes has plain HTTP, asks nobody who they are
and has connections of its own, so that orchestrators need no way to the admin API. Runs on the event loop.
"""

from __future__ import annotations

import ssl
from functools import partial
from typing import Any

import uvicorn
from fastapi import FastAPI

from metasrv.admin.access import Access
from metasrv.admin.app import create_app, create_health_app
from metasrv.admin.connection import BoundedProtocol
from metasrv.admin.cut_offs import CutOffs
from metasrv.admin.listener import BACKLOG, HttpListener
from metasrv.model.errors import ConfigError
from metasrv.model.limits import ADMIN_KEEP_ALIVE_SECONDS_MAX, HEALTH_CONNECTIONS_MAX
from metasrv.model.types import Endpoint
from metasrv.node.context import NodeContext
from metasrv.process.open_files import admin_connections_max
from metasrv.process.operating_system import descriptor_limit
from metasrv.process.tls import FORWARD_SECRET_CIPHERS


class AdminService:
    """Implements `Service` (metasrv/node/context.py)."""

    name = "admin"

    def __init__(self, context: NodeContext) -> None:
        self._context = context
        self.access = Access(context.config)
        """Who may do what; it may read its tokens again at any time."""
        self._listener: HttpListener | None = None

    async def start(self) -> Endpoint:
        """Bind and serve. Raises BindError for the address, ConfigError for a bad certificate or key."""
        cut_offs = CutOffs("the admin API")
        app = create_app(self._context, self.access)
        config = server_config(app, cut_offs, admin_connections_max(descriptor_limit()), **self._tls())
        self._load(config)
        listener = HttpListener("the admin API", self._context.config.admin_api_address, config, cut_offs)
        endpoint = await listener.start()
        self._listener = listener
        return endpoint

    async def stop(self, grace_ms: int) -> None:
        """Stop accepting; requests in flight get `grace_ms`, then they are cancelled."""
        if self._listener is not None:
            await self._listener.stop(grace_ms)

    def _tls(self) -> dict[str, Any]:
        config = self._context.config
        if not (config.admin_tls_server_cert and config.admin_tls_server_key):
            return {}
        authority = config.admin_tls_client_ca_file or None
        return {
            "ssl_certfile": config.admin_tls_server_cert,
            "ssl_keyfile": config.admin_tls_server_key,
            "ssl_ca_certs": authority,
            "ssl_ciphers": FORWARD_SECRET_CIPHERS,
            # Probes have no certificate; `access.py` says what needs one.
            "ssl_cert_reqs": ssl.CERT_OPTIONAL if authority else ssl.CERT_NONE,
        }

    def _load(self, server_config: uvicorn.Config) -> None:
        """Read the certificates. Raises ConfigError."""
        try:
            server_config.load()
        except (ssl.SSLError, OSError) as error:
            config = self._context.config
            authority = config.admin_tls_client_ca_file
            raise ConfigError(
                [
                    f"admin_tls_server_cert {config.admin_tls_server_cert} and admin_tls_server_key "
                    f"{config.admin_tls_server_key} cannot be used"
                    + (f", or admin_tls_client_ca_file {authority}" if authority else "")
                    + f": {error}"
                ]
            ) from error


class HealthService:
    """Implements `Service`: the probes alone, at `health_api_address`."""

    name = "health"

    def __init__(self, context: NodeContext) -> None:
        self._context = context
        self._listener: HttpListener | None = None

    async def start(self) -> Endpoint:
        """Bind and serve. Raises BindError."""
        cut_offs = CutOffs("the probes' listener")
        config = server_config(create_health_app(self._context), cut_offs, HEALTH_CONNECTIONS_MAX)
        listener = HttpListener("the probes' listener", self._context.config.health_api_address, config, cut_offs)
        endpoint = await listener.start()
        self._listener = listener
        return endpoint

    async def stop(self, grace_ms: int) -> None:
        """As `AdminService.stop`."""
        if self._listener is not None:
            await self._listener.stop(grace_ms)


def server_config(app: FastAPI, cut_offs: CutOffs, connections_max: int, **tls: Any) -> uvicorn.Config:
    """How an application is served here, whatever it serves; `tls` are the server's own keywords."""
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
        **tls,
    )

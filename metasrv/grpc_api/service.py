"""The gRPC listener of a node: binding, TLS, the three services on it, start and stop.

Composes the methods; each of them stands in its own module. Runs on the node's event loop.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

from metasrv.config.model import Config
from metasrv.grpc_api.cluster import ClusterMethods
from metasrv.grpc_api.context import GrpcContext
from metasrv.grpc_api.dispatch import Dispatcher
from metasrv.grpc_api.export import ExportMethods
from metasrv.grpc_api.failures import NOT_DONE_METADATA
from metasrv.grpc_api.handshake import Authenticator
from metasrv.grpc_api.health import SERVICE_NAME as HEALTH_SERVICE_NAME
from metasrv.grpc_api.health import HealthService
from metasrv.grpc_api.http2.server import GrpcServer
from metasrv.grpc_api.kv import KvMethods
from metasrv.grpc_api.leader import LeaderHint
from metasrv.grpc_api.listening import open_sockets, watch_settings
from metasrv.grpc_api.migrate import MigrateMethod
from metasrv.grpc_api.readers import Readers
from metasrv.grpc_api.reflection import reflection_routes
from metasrv.grpc_api.watch import WatchMethod
from metasrv.model.errors import ConfigError
from metasrv.model.limits import (
    GRPC_CALLS_MAX,
    GRPC_CALLS_PER_CONNECTION_MAX,
    GRPC_HELD_SIZE_BYTES_MAX,
    GRPC_TLS_HANDSHAKES_MAX,
)
from metasrv.model.types import Endpoint
from metasrv.process.accepting import AcceptingSocket, MakeProtocol
from metasrv.process.open_files import client_connections_max
from metasrv.process.operating_system import descriptor_limit, show_thread_name
from metasrv.protocol import methods as m
from metasrv.protocol.versions import ProtocolVersion

HEALTH_SECONDS = 0.5
"""How often the health service checks the node."""


OpenSockets = Callable[[Endpoint], Awaitable[list[socket.socket]]]
"""Listening sockets for an address; as `listening.open_sockets`."""


class GrpcService:
    """MetaService, health and reflection on one port; implements `metasrv.node.context.Service`."""

    name = "grpc"

    def __init__(self, context: GrpcContext, open_sockets: OpenSockets = open_sockets) -> None:
        """`open_sockets` gives the listening sockets. Raises ConfigError."""
        config = context.config
        min_client_version = _version_of("grpc_min_client_version", config.grpc_min_client_version)
        server_version = _version_of("grpc_announced_version", config.grpc_announced_version)
        if server_version.digit == 0:
            raise ConfigError(
                ["grpc_announced_version: 0.0.0 is not a version; clients end themselves when they are told so"]
            )
        self._context = context
        self._open_sockets = open_sockets
        self._tls: ssl.SSLContext | None = None
        """What the next connection is accepted with."""
        self._hint = self._make_hint(context)
        self._authenticator = Authenticator(context, _password_in(config), min_client_version, server_version)
        self._dispatcher = Dispatcher(context, self._authenticator, self._hint)
        self._readers = Readers(context.machine, context.processes)
        self._server: GrpcServer | None = None
        self._health = HealthService(("", m.SERVICE_NAME), self._serves)
        self._health_task: asyncio.Task[None] | None = None

    async def start(self) -> Endpoint:
        """Bind and serve; returns the bound address. Raises BindError."""
        config, processes = self._context.config, self._context.processes
        endpoint = config.grpc_endpoint
        watch_settings(self._context, self.name, endpoint, self._swap)
        # Replies have no limit: a request whose reply is refused as too large was executed all the same.
        self._server = GrpcServer(
            {
                **self._dispatcher.routes(self._bodies()),
                **self._health.routes(),
                **reflection_routes((m.SERVICE_NAME, HEALTH_SERVICE_NAME)),
            },
            self._context.metrics,
            message_size_bytes_max=config.grpc_api_max_message_size,
            streams_max=GRPC_CALLS_PER_CONNECTION_MAX,
            calls_max=GRPC_CALLS_MAX // processes,
            held_size_bytes_max=GRPC_HELD_SIZE_BYTES_MAX // processes,
            refusal_metadata=NOT_DONE_METADATA,
            connections_max=max(1, client_connections_max(descriptor_limit()) // processes),
            is_member=self._is_member,
            thread_began=show_thread_name,
        )
        sockets = await self._open_sockets(endpoint)
        self._server.start(sockets, self._accept)
        self._health_task = asyncio.create_task(self._follow_health(), name="grpc-health")
        return Endpoint(endpoint.addr, sockets[0].getsockname()[1])

    async def stop(self, grace_ms: int) -> None:
        """Stop accepting, end streams, give calls in flight `grace_ms` to finish, close."""
        if self._health_task is not None:
            self._health_task.cancel()
            await asyncio.gather(self._health_task, return_exceptions=True)
            self._health_task = None
        if self._server is not None:
            server, self._server = self._server, None
            await self._health.end()
            self._dispatcher.end_streams()
            await server.stop(grace_ms / 1000)
        await asyncio.to_thread(self._readers.close)

    def _accept(self, listening: socket.socket, make_protocol: MakeProtocol) -> AcceptingSocket:
        """Accept with the newest certificate, and with bounds on callers that do not finish their TLS handshake."""
        observer = self._context.metrics
        return AcceptingSocket(
            self.name, listening, make_protocol, lambda: self._tls, observer, handshakes_max=GRPC_TLS_HANDSHAKES_MAX
        )

    def _swap(self, tls: ssl.SSLContext | None) -> None:
        """Let changed certificates and a changed password take effect."""
        self._tls = tls
        self._authenticator.set_password(_password_in(self._context.config))

    def _make_hint(self, context: GrpcContext) -> LeaderHint:
        return LeaderHint(context)

    def _bodies(self) -> dict[m.Method, Any]:
        kv = KvMethods(self._context, self._hint, self._readers)
        export = ExportMethods(self._context, self._readers, self._authenticator)
        cluster = ClusterMethods(self._context)
        return {
            m.HANDSHAKE: self._authenticator.handshake,
            m.KV_API: kv.kv_api,
            m.KV_READ_V1: kv.kv_read_v1,
            m.KV_LIST: kv.kv_list,
            m.KV_GET_MANY: kv.kv_get_many,
            m.EXPORT: export.export,
            m.EXPORT_V1: export.export_v1,
            m.SNAPSHOT_KEYS_LAYOUT: export.snapshot_keys_layout,
            m.WATCH: WatchMethod(self._context).watch,
            m.TRANSACTION: kv.transaction,
            m.KV_TRANSACTION: kv.kv_transaction,
            m.MEMBER_LIST: cluster.member_list,
            m.GET_CLUSTER_STATUS: cluster.get_cluster_status,
            m.GET_CLIENT_INFO: cluster.get_client_info,
            m.MIGRATE: MigrateMethod(self._context).migrate,
        }

    async def _follow_health(self) -> None:
        """Tell watchers of the health service when the node's health changes."""
        while True:
            await self._health.refresh()
            if not self._context.copies.serves:
                self._dispatcher.drop_streams()
            self._dispatcher.end_refused_streams()
            await asyncio.sleep(HEALTH_SECONDS)

    def _is_member(self, host: str) -> bool:
        """Whether a member is registered at this IP address; names are not resolved."""
        return any(node.endpoint.addr == host for node in self._context.consensus.status().nodes.values())

    def _serves(self) -> bool:
        """Whether this node knows a leader and takes requests."""
        status = self._context.consensus.status()
        takes = self._context.copies.serves and not self._context.draining
        return takes and not status.drained and status.fatal is None and status.leader_id is not None


def _password_in(config: Config) -> str | None:
    return None if config.grpc_password is None else config.grpc_password.get_secret_value()


def _version_of(key: str, text: str) -> ProtocolVersion:
    try:
        return ProtocolVersion.parse(text)
    except ValueError as error:
        raise ConfigError([f"{key}: {error}"]) from error

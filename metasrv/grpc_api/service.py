"""The gRPC listener of a node: binding, TLS, the three services on it, start and stop.

Composes the methods; each of them stands in its own module. Runs on the node's event loop.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from metasrv.context import NodeContext
from metasrv.errors import BindError, ConfigError
from metasrv.grpc_api import methods as m
from metasrv.grpc_api.cluster import ClusterMethods
from metasrv.grpc_api.dispatch import Dispatcher
from metasrv.grpc_api.export import ExportMethods
from metasrv.grpc_api.handshake import Authenticator
from metasrv.grpc_api.kv import KvMethods
from metasrv.grpc_api.leader import LeaderHint
from metasrv.grpc_api.readers import Readers
from metasrv.grpc_api.reflection import add_reflection
from metasrv.grpc_api.versions import ProtocolVersion
from metasrv.grpc_api.watch import WatchMethod
from metasrv.types import Endpoint

# The type information of the package leaves its asyncio half out.
_health_aio: Any = vars(health)["aio"]

HEALTH_SECONDS = 0.5
"""How often the health service looks at the node."""

KEEPALIVE_OPTIONS = (
    # A client that vanished without a word is noticed, and its watchers closed, within half a minute.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # Clients may ask as often as once a second whether this node is alive.
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 1_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
)


class GrpcService:
    """MetaService, health and reflection on one port; implements `metasrv.context.Service`."""

    name = "grpc"

    def __init__(self, context: NodeContext) -> None:
        config = context.config
        min_client_version = _version_of("grpc_min_client_version", config.grpc_min_client_version)
        server_version = _version_of("grpc_announced_version", config.grpc_announced_version)
        if server_version.digit == 0:
            raise ConfigError(
                ["grpc_announced_version: 0.0.0 is no version: clients end themselves when they are told so"]
            )
        password = config.grpc_password
        self._context = context
        self._hint = LeaderHint(context)
        self._authenticator = Authenticator(
            context, None if password is None else password.get_secret_value(), min_client_version, server_version
        )
        self._dispatcher = Dispatcher(context, self._authenticator, self._hint)
        self._readers = Readers(context.machine)
        self._server: Any = None
        self._health = _health_aio.HealthServicer()
        self._health_task: asyncio.Task[None] | None = None

    async def start(self) -> Endpoint:
        """Bind and serve; returns the bound address. Raises BindError."""
        config = self._context.config
        message_size = config.grpc_api_max_message_size
        server = grpc.aio.server(
            options=(
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", message_size),
                # Not limited on the way out: a reply that a client finds too large was executed all the same.
                ("grpc.max_send_message_length", -1),
                *KEEPALIVE_OPTIONS,
            )
        )
        server.add_generic_rpc_handlers((self._dispatcher.handlers(self._bodies()),))
        self._add_companions(server)
        endpoint = config.grpc_endpoint
        credentials = _credentials(config.grpc_tls_server_cert, config.grpc_tls_server_key)
        port = _bind(server, endpoint, credentials)
        self._server = server
        await server.start()
        self._health_task = asyncio.create_task(self._follow_health(), name="grpc-health")
        return Endpoint(endpoint.addr, port)

    async def stop(self, grace_ms: int) -> None:
        """Stop accepting, end streams, give calls in flight `grace_ms` to finish, close."""
        if self._health_task is not None:
            self._health_task.cancel()
            await asyncio.gather(self._health_task, return_exceptions=True)
            self._health_task = None
        if self._server is not None:
            server, self._server = self._server, None
            await self._health.enter_graceful_shutdown()
            self._dispatcher.end_streams()
            await server.stop(grace_ms / 1000)
        await asyncio.to_thread(self._readers.close)

    def _bodies(self) -> dict[m.Method, Any]:
        kv = KvMethods(self._context, self._hint, self._readers)
        export = ExportMethods(self._context, self._readers)
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
        }

    # ------------------------------------------------------------------------- companions

    def _add_companions(self, server: Any) -> None:
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        add_reflection(server, (m.SERVICE_NAME, health.SERVICE_NAME))

    async def _follow_health(self) -> None:
        """Report SERVING while this node knows a leader and takes requests."""
        statuses = health_pb2.HealthCheckResponse
        while True:
            status = self._context.consensus.status()
            able = not self._context.draining and status.fatal is None and status.leader_id is not None
            for service in ("", m.SERVICE_NAME):
                await self._health.set(service, statuses.SERVING if able else statuses.NOT_SERVING)
            await asyncio.sleep(HEALTH_SECONDS)


def _version_of(key: str, text: str) -> ProtocolVersion:
    try:
        return ProtocolVersion.parse(text)
    except ValueError as error:
        raise ConfigError([f"{key}: {error}"]) from error


# ----------------------------------------------------------------------------- binding


def _credentials(cert_path: str, key_path: str) -> Any:
    """Server credentials, None without TLS; raises ConfigError for files that can not be read."""
    if not cert_path or not key_path:
        return None
    contents: list[bytes] = []
    problems = []
    for name, path in (("grpc_tls_server_key", key_path), ("grpc_tls_server_cert", cert_path)):
        try:
            with open(path, "rb") as file:
                contents.append(file.read())
        except OSError as error:
            problems.append(f"{name}: {path} can not be read: {error.strerror}")
    if problems:
        raise ConfigError(problems)
    return grpc.ssl_server_credentials([(contents[0], contents[1])])


def _bind(server: Any, endpoint: Endpoint, credentials: Any) -> int:
    """Open the port and return its number; raises BindError with the system's reason."""
    _probe(endpoint)  # gRPC says only that it failed
    try:
        if credentials is None:
            port: int = server.add_insecure_port(str(endpoint))
        else:
            port = server.add_secure_port(str(endpoint), credentials)
    except RuntimeError as error:
        reason = "the certificate or its key is not usable" if credentials is not None else str(error)
        raise BindError(f"the gRPC API can not listen at {endpoint}: {reason}") from error
    if port == 0:
        raise BindError(f"the gRPC API can not listen at {endpoint}")
    return port


def _probe(endpoint: Endpoint) -> None:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            endpoint.addr, endpoint.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)  # with SO_REUSEADDR only listening tells that the port is taken
    except OSError as error:
        number = error.errno
        reason = "the address is in use" if number == errno.EADDRINUSE else os.strerror(number or 0)
        if isinstance(error, socket.gaierror):
            reason = f"the host is unknown ({error.strerror})"
        raise BindError(f"the gRPC API can not listen at {endpoint}: {reason}") from error

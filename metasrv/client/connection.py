"""One endpoint: its channel, its token, and its calls, whose failures say what happened to the request.

A call is only sent over a connection that has answered a handshake. A handshake is safe to repeat, so an endpoint that
does not answer is noticed before a write leaves. Knows nothing of other endpoints. Runs on the client's event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

import grpc
from google.protobuf.message import Message

from metasrv.client.outcomes import OtherClusterError, Outcome, TokenRefusedError, outcome_of
from metasrv.model.errors import InvalidRequestError, NotDoneError, RequestError, TooLargeError
from metasrv.model.limits import GRPC_MESSAGE_SIZE_BYTES_DEFAULT
from metasrv.protocol import methods as m
from metasrv.protocol.proto import meta_pb2 as pb
from metasrv.protocol.versions import MIN_SERVER_VERSION, SERVER_VERSION, ProtocolVersion

CLIENT_VERSION = SERVER_VERSION
_EOF: Any = vars(grpc.aio)["EOF"]
CONNECT_SECONDS_MAX = 2.0
"""Longest wait for the handshake of one endpoint, since another one may answer."""

CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_http_proxy", 0),
    # Clients of one process share nothing: the close of one must not touch another.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # A server that vanished silently is noticed within 15 seconds, also by a watch.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
)


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who the client is, and how it authenticates servers."""

    username: str = "root"
    password: str = ""
    tls_ca_file: str | None = None
    """PEM file of the authority that signed the servers' certificates; None for connections without TLS."""
    tls_server_name: str | None = None
    """Name in the certificates if it is not the endpoint's host."""
    tls_cert_file: str | None = None
    """PEM file of this client's certificate, whose common name is `username`; it then needs no password."""
    tls_key_file: str | None = None
    """PEM file of that certificate's key."""


class CallFailedError(RequestError):
    """A call failed; `outcome` says what that means. Not raised to users of the library."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(str(outcome.error))
        self.outcome = outcome


class ClusterPin:
    """The cluster that a client belongs to: the one it was given, or the first that a server names."""

    def __init__(self, cluster_id: str | None = None) -> None:
        self.cluster_id = cluster_id

    def check(self, endpoint: str, named: str | None) -> None:
        """Raise CallFailedError when `endpoint` names another cluster; a server that names none is not checked."""
        if named is None or named == self.cluster_id:
            return
        if self.cluster_id is None:
            self.cluster_id = named
            return
        error = OtherClusterError(
            f"{endpoint} belongs to cluster {named}, this client to cluster {self.cluster_id}: nothing was sent there; "
            "check the endpoints, or make a new client if the cluster was replaced on purpose"
        )
        raise CallFailedError(Outcome(error, None))


class Answer(NamedTuple):
    message: Any
    leader_address: str | None
    """Set by a server that forwarded the call."""


class Connection:
    """The channel to one endpoint."""

    def __init__(
        self,
        endpoint: str,
        credentials: Credentials,
        reached: Callable[[str, str | None], None] | None = None,
        cluster: ClusterPin | None = None,
        oldest_server: ProtocolVersion = MIN_SERVER_VERSION,
    ) -> None:
        """`reached` is called after each handshake with the endpoint and the address that its node advertises, None if it
        says none."""
        self._oldest_server = oldest_server
        self._cluster = cluster or ClusterPin()
        self.endpoint = endpoint
        self._credentials = credentials
        self._reached = reached
        self._token: bytes | None = None
        self._live: set[Any] = set()
        self._handshaking = asyncio.Lock()
        self.handshakes = 0
        """Attempts so far."""
        options: list[tuple[str, Any]] = list(CHANNEL_OPTIONS)
        if (credentials.tls_cert_file is None) != (credentials.tls_key_file is None):
            raise InvalidRequestError("a client certificate needs both its file and that of its key")
        if credentials.tls_ca_file is None and credentials.tls_cert_file is not None:
            raise InvalidRequestError("a client certificate needs the authority of the servers' certificates, too")
        if credentials.tls_ca_file is None:
            self._channel: Any = grpc.aio.insecure_channel(endpoint, options=options)
        else:
            if credentials.tls_server_name is not None:
                options.append(("grpc.ssl_target_name_override", credentials.tls_server_name))
            authority, key, certificate = (
                None if path is None else Path(path).read_bytes()
                for path in (credentials.tls_ca_file, credentials.tls_key_file, credentials.tls_cert_file)
            )
            tls = grpc.ssl_channel_credentials(authority, key, certificate)
            self._channel = grpc.aio.secure_channel(endpoint, tls, options=options)
        self._callables = {method: _callable(self._channel, method) for method in m.METHODS}

    async def close(self) -> None:
        """Cancel what is under way and close the channel."""
        for call in tuple(self._live):
            call.cancel()
        await self._channel.close()

    def forget_token(self) -> None:
        self._token = None

    # ------------------------------------------------------------------------- calls

    async def unary(
        self, method: m.Method, request: Message, seconds: float, metadata: tuple[tuple[str, str], ...] = ()
    ) -> Answer:
        """One request, one reply; raises CallFailedError, or TooLargeError before anything is sent."""
        if request.ByteSize() > GRPC_MESSAGE_SIZE_BYTES_DEFAULT:
            raise TooLargeError("the request in bytes", request.ByteSize(), GRPC_MESSAGE_SIZE_BYTES_DEFAULT)
        deadline = monotonic() + seconds
        await self._ready(seconds)
        left = deadline - monotonic()
        call = self._callables[method](request, timeout=left, metadata=self._metadata(method, metadata))
        try:
            leader = _value_of(await call.initial_metadata(), m.LEADER_METADATA_KEY)
            return Answer(await call, leader)
        except grpc.aio.AioRpcError as error:
            raise self._failed(error, write=bool(method.write)) from error

    async def stream(
        self,
        method: m.Method,
        request: Message,
        seconds: float | None,
        metadata: tuple[tuple[str, str], ...] = (),
        start_seconds: float = CONNECT_SECONDS_MAX,
        started: Callable[[], None] | None = None,
    ) -> AsyncGenerator[Answer, None]:
        """One request, many replies; raises CallFailedError.

        The server must begin to answer within `start_seconds` and end within `seconds`; with None it may go on for ever.
        `started` is called when it has begun to answer, which may be long before the first reply.
        """
        await self._ready(start_seconds)
        call = self._callables[method](request, timeout=seconds, metadata=self._metadata(method, metadata))
        self._live.add(call)
        try:
            async with asyncio.timeout(start_seconds):
                metadata_received = await call.initial_metadata()
            # A channel connects again by itself, perhaps to somebody else.
            self._cluster.check(self.endpoint, _value_of(metadata_received, m.CLUSTER_METADATA_KEY))
            leader = _value_of(metadata_received, m.LEADER_METADATA_KEY)
            if started is not None:
                started()
            while (message := await call.read()) is not _EOF:
                yield Answer(message, leader)
        except TimeoutError as error:
            failed = NotDoneError(f"{self.endpoint}: the server did not begin to answer in time")
            raise CallFailedError(Outcome(failed, None, silent=True)) from error
        except grpc.aio.AioRpcError as error:
            raise self._failed(error, write=False) from error
        finally:
            self._live.discard(call)
            call.cancel()

    def _metadata(self, method: m.Method, extra: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str | bytes], ...]:
        if self._token is not None:  # also where upstream asks for none: a server may ask for it (`grpc_require_token`)
            return ((m.TOKEN_METADATA_KEY, self._token), *extra)
        return extra

    def _failed(self, error: grpc.aio.AioRpcError, *, write: bool) -> CallFailedError:
        outcome = outcome_of(error, self.endpoint, write=write)
        if isinstance(outcome.error, TokenRefusedError):
            self._token = None
        return CallFailedError(outcome)

    # ------------------------------------------------------------------------- handshake

    async def _ready(self, seconds: float) -> None:
        """Make sure of a token and a ready connection: one handshake for all calls that wait."""
        if self._is_ready():
            return
        try:
            async with asyncio.timeout(min(seconds, CONNECT_SECONDS_MAX)), self._handshaking:
                if not self._is_ready():
                    self._token = await self._handshake(min(seconds, CONNECT_SECONDS_MAX))
        except TimeoutError as error:
            failed = NotDoneError(f"{self.endpoint}: the server did not answer the handshake in time")
            raise CallFailedError(Outcome(failed, None)) from error

    def _is_ready(self) -> bool:
        return self._token is not None and self._channel.get_state() is grpc.ChannelConnectivity.READY

    async def _handshake(self, seconds: float) -> bytes:
        self.handshakes += 1
        user = pb.BasicAuth(username=self._credentials.username, password=self._credentials.password)
        request = pb.HandshakeRequest(protocol_version=CLIENT_VERSION.digit, payload=user.SerializeToString())
        call = self._callables[m.HANDSHAKE](iter((request,)), timeout=seconds)
        self._live.add(call)
        try:
            received = await call.initial_metadata()
            self._cluster.check(self.endpoint, _value_of(received, m.CLUSTER_METADATA_KEY))
            name = _value_of(received, m.NODE_METADATA_KEY)
            reply = await call.read()
        except grpc.aio.AioRpcError as error:
            raise CallFailedError(self._refused(error)) from error
        finally:
            self._live.discard(call)
            call.cancel()
        if reply is _EOF:
            failed = NotDoneError(f"{self.endpoint}: the server ended the handshake without an answer")
            raise CallFailedError(Outcome(failed, None))
        server = ProtocolVersion.from_digit(reply.protocol_version)
        if server < self._oldest_server:
            raise InvalidRequestError(
                f"server protocol_version({tuple(server)}) < client required({tuple(self._oldest_server)})"
            )
        if self._reached is not None:
            self._reached(self.endpoint, name)
        token: bytes = reply.payload
        return token

    def _refused(self, error: grpc.aio.AioRpcError) -> Outcome:
        outcome = outcome_of(error, self.endpoint, write=False)
        if isinstance(outcome.error, TokenRefusedError):  # here it is the user or the password
            return Outcome(InvalidRequestError(str(outcome.error)), None)
        return outcome


def _callable(channel: Any, method: m.Method) -> Any:
    make = {
        m.Kind.UNARY: channel.unary_unary,
        m.Kind.SERVER_STREAM: channel.unary_stream,
        m.Kind.BIDIRECTIONAL: channel.stream_stream,
    }[method.kind]
    return make(
        method.path,
        request_serializer=method.request.SerializeToString,
        response_deserializer=method.reply.FromString,
    )


def _value_of(metadata: Any, name: str) -> str | None:
    for key, value in metadata or ():
        if key == name:
            return str(value) or None
    return None

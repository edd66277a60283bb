"""A node for the gRPC tests: the real state machine under a consensus that commits at once, or refuses on demand."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any, NoReturn

from google.protobuf.message import Message

from metasrv.config.model import Config
from metasrv.grpc_api.http2.messages import MessageReader
from metasrv.grpc_api.http2.portions import Standing
from metasrv.grpc_api.http2.status import StatusCode
from metasrv.grpc_api.service import GrpcService
from metasrv.model.errors import ConfigError
from metasrv.model.types import LogId, RaftLogStatus, SnapshotStatus
from metasrv.node.context import NodeContext
from metasrv.process.clock import SystemClock
from metasrv.protocol import methods as m
from metasrv.protocol.proto import meta_pb2 as pb
from metasrv.state.machine import StateMachine
from metasrv.testing.fake_consensus import FakeConsensus
from metasrv.testing.fake_node import fake_context, leader_status
from metasrv.testing.hand_clock import HandClock

STATUS = leader_status(
    term=1,
    purged=None,
    replication={1: None, 2: LogId(1, 1, 1), 3: None},
    raft_log=RaftLogStatus(1, 2, 3, 4, 5, 6, 7, {"ChunkId(00_000)": 8}),
    snapshot=SnapshotStatus(LogId(1, 5, 1), 10, 2, 99, False, False, None),
)
"""Node 1 leads three nodes; its positions are those of its state machine."""
NODES = STATUS.nodes


def make_context(
    directory: Path, *, clock: HandClock | None = None, **settings: Any
) -> tuple[NodeContext, FakeConsensus]:
    """A context over a new state file that leads three nodes; `settings` are configuration keys."""
    machine = StateMachine.open(str(directory / "state.db"))
    config = Config(grpc_api_address="127.0.0.1:0", **settings)
    clock = clock or HandClock(epoch_ms=SystemClock().wall_ms())
    return fake_context(machine, config, STATUS, clock, commits=True)


class AbortedCall(Exception):
    def __init__(self, code: StatusCode, details: str, metadata: tuple[tuple[str, str | bytes], ...]) -> None:
        super().__init__(code, details)
        self.code = code
        self.details = details
        self.metadata = dict(metadata)


class FakeCall:
    """What a handler sees of a call, without a socket."""

    def __init__(self, metadata: Iterable[tuple[str, str | bytes]] = (), remaining: float | None = None) -> None:
        self._metadata = tuple(metadata)
        self._remaining = remaining
        self.certificate: Any = None
        self.sent: list[bytes] = []
        self.host = "127.0.0.1"
        self.proved = Standing.STRANGER
        self.stalled = 0.0
        self.initial: dict[str, str | bytes] | None = None

    async def write(self, message: bytes) -> None:
        self.sent.append(message)

    async def write_prefixed(self, messages: bytes) -> None:
        reader = MessageReader("identity", len(messages))
        reader.feed(messages)
        while reader.messages:
            message = reader.take()
            assert isinstance(message, bytes)
            await self.write(message)
        assert not reader.incomplete, "messages are sent whole"

    def write_now(self, messages: bytes) -> bool:
        reader = MessageReader("identity", len(messages))
        reader.feed(messages)
        while reader.messages:
            message = reader.take()
            assert isinstance(message, bytes)
            self.sent.append(message)
        return True

    async def send_initial_metadata(self, metadata: tuple[tuple[str, str | bytes], ...]) -> None:
        assert self.initial is None, "initial metadata is sent once"
        assert not self.sent, "initial metadata comes first"
        self.initial = dict(metadata)

    async def abort(
        self, code: StatusCode, details: str = "", trailing_metadata: tuple[tuple[str, str | bytes], ...] = ()
    ) -> NoReturn:
        raise AbortedCall(code, details, trailing_metadata)

    def invocation_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        return self._metadata

    def time_remaining(self) -> float | None:
        return self._remaining

    def peer_certificate(self) -> Any:
        return self.certificate

    def peer(self) -> str:
        return f"ipv4:{self.host}:5555"

    def standing(self) -> Standing:
        return self.proved

    def prove(self) -> None:
        self.proved = Standing.CLIENT

    def stalled_seconds(self) -> float:
        return self.stalled

    def done(self) -> bool:
        return False


class MethodBench:
    """Calls of single methods as gRPC would make them, without a socket."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        self.context, self.consensus = make_context(directory, **settings)
        try:
            self.service = GrpcService(self.context)
        except ConfigError:
            self.machine.close()
            raise
        self._bodies = self.service._bodies()
        self.token: bytes = b""

    @property
    def machine(self) -> StateMachine:
        return self.context.machine

    @property
    def clock(self) -> HandClock:
        assert isinstance(self.context.clock, HandClock)
        return self.context.clock

    async def handshake(self, username: str = "root", password: str = "xxx", version: int = 0) -> pb.HandshakeResponse:
        user = pb.BasicAuth(username=username, password=password)
        request = pb.HandshakeRequest(protocol_version=version, payload=user.SerializeToString())
        (data,) = (await self.call(m.HANDSHAKE, request)).sent
        reply = pb.HandshakeResponse.FromString(data)
        self.token = reply.payload
        return reply

    async def call(
        self,
        method: m.Method,
        request: Message | bytes | list[Message] | AsyncIterator[Message],
        metadata: tuple[tuple[str, str | bytes], ...] = (),
        certificate: Any = None,
    ) -> FakeCall:
        """The call afterwards; raises AbortedCall. What the handler returns is the last message sent."""
        token: tuple[tuple[str, str | bytes], ...] = ((m.TOKEN_METADATA_KEY, self.token),) if self.token else ()
        call = FakeCall((*token, *metadata))
        call.certificate = certificate
        route = self.service._dispatcher.route(method, self._bodies[method])
        if method.kind is m.Kind.BIDIRECTIONAL:
            await route.function(_each(request), call)
            return call
        assert isinstance(request, (Message, bytes))
        reply = await route.function(_encoded(request), call)
        assert reply is not None or method.kind is m.Kind.SERVER_STREAM, "a method with a single reply returns it"
        if reply is not None:
            call.sent.append(b"".join(reply) if isinstance(reply, list) else reply)
        return call

    async def transact(self, *operations: pb.TxnOp) -> pb.TxnReply:
        call = await self.call(m.TRANSACTION, pb.TxnRequest(if_then=operations))
        return pb.TxnReply.FromString(call.sent[-1])

    async def put(self, key: str, value: bytes = b"v", **options: Any) -> int:
        """Write a value; returns its sequence number."""
        reply = await self.transact(pb.TxnOp(put=pb.TxnPutRequest(key=key, value=value, **options)))
        return reply.responses[0].put.current.seq

    async def read(self, request: dict[str, Any], *metadata: tuple[str, str]) -> list[pb.StreamItem]:
        call = await self.call(m.KV_READ_V1, pb.RaftRequest(data=json.dumps(request)), metadata)
        return [pb.StreamItem.FromString(data) for data in call.sent]

    async def close(self) -> None:
        await self.service.stop(0)
        self.machine.close()


async def _each(requests: Message | bytes | list[Message] | AsyncIterator[Message]) -> AsyncIterator[bytes]:
    if isinstance(requests, AsyncIterator):
        async for request in requests:
            yield _encoded(request)
        return
    for each in requests if isinstance(requests, list) else [requests]:
        yield _encoded(each)


def _encoded(request: Message | bytes) -> bytes:
    return request if isinstance(request, bytes) else request.SerializeToString()

"""A node for the gRPC tests: the real state machine under a consensus that commits at once, or refuses on demand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any, NoReturn

import grpc
from google.protobuf.message import Message

from metasrv.config.model import Config
from metasrv.consensus import JoinRequest, TransferResult
from metasrv.grpc_api.service import GrpcService
from metasrv.metrics.registry import MetricsRegistry
from metasrv.model.commands import Command, Reply
from metasrv.model.entries import MembershipEntry, RegularEntry
from metasrv.model.errors import NotLeaderError
from metasrv.model.types import (
    Endpoint,
    LogId,
    Member,
    Membership,
    Node,
    RaftLogStatus,
    RaftState,
    RaftStatus,
    SnapshotStatus,
)
from metasrv.node.context import NodeContext
from metasrv.process.clock import SystemClock
from metasrv.protocol import methods as m
from metasrv.protocol.proto import meta_pb2 as pb
from metasrv.state.machine import StateMachine
from metasrv.state.snapshot import SnapshotTail, SnapshotWriter

NODES = {
    node_id: Node(
        node_id, Endpoint("localhost", 28100 + node_id), f"0.0.0.0:{9190 + node_id}", f"127.0.0.1:{9190 + node_id}"
    )
    for node_id in (1, 2, 3)
}
MEMBERSHIP = Membership({node_id: Member(node.endpoint, f"i{node_id}") for node_id, node in NODES.items()})


class BenchClock(SystemClock):
    """The machine's clock, which a test can put forward."""

    def __init__(self) -> None:
        self.ahead_ms = 0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead_ms / 1000

    def wall_ms(self) -> int:
        return super().wall_ms() + self.ahead_ms


class InstantConsensus:
    """Commits a proposal as the next entry, at once."""

    def __init__(self, machine: StateMachine, leader_id: int | None = 1) -> None:
        self.machine = machine
        self.leader_id = leader_id
        self.nodes = NODES
        self.barriers = 0
        self.proposals: list[Command] = []
        self.refusal: Exception | None = None
        """Raised instead of doing anything."""
        self.snapshot_path: str | None = None
        """Of the newest snapshot file."""
        self.hold: asyncio.Event | None = None
        """Proposals wait for it before they are committed."""
        if machine.last_applied.index == 0:
            machine.apply_entry(LogId(1, 1, 1), MembershipEntry(1, Membership(), MEMBERSHIP))

    def status(self) -> RaftStatus:
        leader = self.leader_id == 1
        applied = self.machine.last_applied
        return RaftStatus(
            node_id=1,
            cluster_id="c",
            state=RaftState.LEADER if leader else RaftState.FOLLOWER,
            term=1,
            leader_id=self.leader_id,
            last_log_id=applied,
            commit_index=applied.index,
            last_applied=applied,
            purged=None,
            membership=MEMBERSHIP,
            membership_committed=True,
            nodes=self.nodes,
            replication={1: applied, 2: LogId(1, 1, 1), 3: None} if leader else None,
            peers=(),
            leader_contact_ms=0,
            has_quorum=self.leader_id is not None,
            proposals_pending=0,
            proposals_failed=0,
            leader_changes=1,
            last_seq=self.machine.last_seq,
            raft_log=RaftLogStatus(1, 2, 3, 4, 5, 6, 7, {"ChunkId(00_000)": 8}),
            state_size_bytes=sum(self.machine.file_sizes()),
            state_log_size_bytes=self.machine.file_sizes().log_bytes,
            snapshot=SnapshotStatus(LogId(1, 5, 1), 10, 2, 99, False, False, self.snapshot_path),
            fatal=None,
        )

    async def propose(self, command: Command, timeout_ms: int) -> Reply:
        assert timeout_ms > 0
        self.proposals.append(command)
        if self.refusal is not None:
            raise self.refusal
        if self.hold is not None:
            await self.hold.wait()
        last = self.machine.last_applied
        entry = RegularEntry(SystemClock().wall_ms(), 1, (command,))
        (reply,) = self.machine.apply_entry(LogId(last.term, last.index + 1, 1), entry)
        return reply

    async def propose_local(self, command: Command, timeout_ms: int) -> Reply:
        if self.leader_id != 1:
            raise NotLeaderError(self.leader_id)
        return await self.propose(command, timeout_ms)

    async def read_barrier(self, timeout_ms: int) -> None:
        assert timeout_ms > 0
        self.barriers += 1
        if self.refusal is not None:
            raise self.refusal

    async def read_barrier_local(self, timeout_ms: int) -> None:
        if self.leader_id != 1:
            raise NotLeaderError(self.leader_id)
        await self.read_barrier(timeout_ms)

    async def wait_applied(self, index: int, timeout_ms: int) -> None:
        raise AssertionError("no service waits for an index")

    async def trigger_snapshot(self) -> None:
        raise AssertionError("the gRPC API triggers no snapshot")

    def write_snapshot(self, path: Path) -> None:
        """Write a snapshot file of this instant, from now on the newest one."""
        writer = SnapshotWriter(self.machine.path)
        log_id = writer.pin()
        tail = SnapshotTail((b"previous", log_id.index - 1, log_id.term), (b"last", log_id.index, log_id.term))
        self.snapshot_path = writer.write(str(path), tail).path

    async def transfer_leadership(self, to_id: int | None) -> TransferResult:
        raise AssertionError("the gRPC API transfers no leadership")

    async def join(self, request: JoinRequest, timeout_ms: int) -> None:
        raise AssertionError("the gRPC API admits nobody")

    async def leave(self, node_id: int, timeout_ms: int) -> None:
        raise AssertionError("the gRPC API removes nobody")


def make_context(directory: Path, **settings: Any) -> tuple[NodeContext, InstantConsensus]:
    """A context over a new state file; `settings` are configuration keys."""
    machine = StateMachine.open(str(directory / "state.db"))
    consensus = InstantConsensus(machine)
    context = NodeContext(
        config=Config(grpc_api_address="127.0.0.1:0", **settings),
        consensus=consensus,
        machine=machine,
        metrics=MetricsRegistry("0.1.0", "test"),
        clock=BenchClock(),
        started_at_ms=0,
        binary_version="0.1.0",
    )
    return context, consensus


class AbortedCall(Exception):
    def __init__(self, code: grpc.StatusCode, details: str, metadata: tuple[tuple[str, str | bytes], ...]) -> None:
        super().__init__(code, details)
        self.code = code
        self.details = details
        self.metadata = dict(metadata)


class FakeCall:
    """What a handler sees of a call, without a socket."""

    def __init__(self, metadata: Iterable[tuple[str, str | bytes]] = (), remaining: float | None = None) -> None:
        self._metadata = tuple(metadata)
        self._remaining = remaining
        self.sent: list[bytes] = []
        self.initial: dict[str, str | bytes] | None = None

    async def write(self, message: bytes) -> None:
        self.sent.append(message)

    async def send_initial_metadata(self, metadata: tuple[tuple[str, str | bytes], ...]) -> None:
        assert self.initial is None, "initial metadata is sent once"
        assert not self.sent, "initial metadata comes first"
        self.initial = dict(metadata)

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: tuple[tuple[str, str | bytes], ...] = ()
    ) -> NoReturn:
        raise AbortedCall(code, details, trailing_metadata)

    def invocation_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        return self._metadata

    def time_remaining(self) -> float | None:
        return self._remaining

    def peer(self) -> str:
        return "ipv4:127.0.0.1:5555"

    def done(self) -> bool:
        return False


class MethodBench:
    """Calls of single methods as gRPC would make them, without a socket."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        self.context, self.consensus = make_context(directory, **settings)
        self.service = GrpcService(self.context)
        self._bodies = self.service._bodies()
        self.token: bytes = b""

    @property
    def machine(self) -> StateMachine:
        return self.context.machine

    @property
    def clock(self) -> BenchClock:
        assert isinstance(self.context.clock, BenchClock)
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
        request: Message | bytes | list[Message],
        metadata: tuple[tuple[str, str | bytes], ...] = (),
    ) -> FakeCall:
        """The call afterwards; raises AbortedCall. The reply of a unary method is the last message sent."""
        token: tuple[tuple[str, str | bytes], ...] = ((m.TOKEN_METADATA_KEY, self.token),) if self.token else ()
        call = FakeCall((*token, *metadata))
        route = self.service._dispatcher.route(method, self._bodies[method])
        if method.kind is m.Kind.BIDIRECTIONAL:
            requests = request if isinstance(request, list) else [request]
            await route.function(_each(requests), call)
            return call
        assert not isinstance(request, list)
        if method.kind is m.Kind.SERVER_STREAM:
            await route.function(_encoded(request), call)
        else:
            reply = await route.function(_encoded(request), call)
            assert reply is not None, "a method with a single reply returns it"
            call.sent.append(reply)
        return call

    async def transact(self, *operations: pb.TxnOp) -> pb.TxnReply:
        call = await self.call(m.TRANSACTION, pb.TxnRequest(if_then=operations))
        return pb.TxnReply.FromString(call.sent[-1])

    async def put(self, key: str, value: bytes = b"v", **options: int) -> int:
        """Write a value; returns its sequence number."""
        reply = await self.transact(pb.TxnOp(put=pb.TxnPutRequest(key=key, value=value, **options)))
        return reply.responses[0].put.current.seq

    async def read(self, request: dict[str, Any], *metadata: tuple[str, str]) -> list[pb.StreamItem]:
        call = await self.call(m.KV_READ_V1, pb.RaftRequest(data=json.dumps(request)), metadata)
        return [pb.StreamItem.FromString(data) for data in call.sent]

    async def close(self) -> None:
        await self.service.stop(0)
        self.machine.close()


async def _each(requests: Iterable[Message | bytes]) -> AsyncIterator[bytes]:
    for request in requests:
        yield _encoded(request)


def _encoded(request: Message | bytes) -> bytes:
    return request if isinstance(request, bytes) else request.SerializeToString()

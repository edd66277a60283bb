"""A node whose read barriers wait until a test lets them pass, and clients that read and write frame by frame."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

from metasrv.grpc_api.http2 import frames as f
from metasrv.grpc_api.http2.messages import length_prefixed
from metasrv.grpc_api.http2.portions import undivided
from metasrv.grpc_api.http2.server import GrpcServer
from metasrv.protocol import methods as m
from metasrv.protocol.proto import meta_pb2 as pb
from tests.support.grpc_bench import MethodBench
from tests.support.http2_bench import Peer, settle


def get(key: str) -> bytes:
    return pb.RaftRequest(data=json.dumps({"GetKV": {"key": key}})).SerializeToString()


class QuickBench(MethodBench):
    """A node whose barriers wait until a test lets them pass, and its server."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        super().__init__(directory, **settings)
        self.gate = asyncio.Event()
        self.failure: Exception | None = None
        self.timeouts: list[int] = []
        self.given_up = 0
        self.consensus.read_barrier = self.barrier  # type: ignore[method-assign]
        self.dispatcher = self.service._dispatcher
        self.server = GrpcServer(
            self.dispatcher.routes(self._bodies),
            self.context.metrics,
            message_size_bytes_max=100_000,
            streams_max=100,
            calls_max=1000,
            connections_max=10,
            held_size_bytes_max=1_000_000,
            refusal_metadata=(),
            divide=undivided,
        )
        self.server.turns.clock = lambda: 0.0  # a turn lasts as long as it takes

    async def barrier(self, timeout_ms: int) -> None:
        self.timeouts.append(timeout_ms)
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.given_up += 1
            raise
        if self.failure is not None:
            raise self.failure

    async def close(self) -> None:
        """Let everything pass and end; nothing may be left under way."""
        self.gate.set()
        self.server.deadlines.stop()
        await super().close()
        await settle()
        assert self.counters.in_flight == 0
        assert not self.dispatcher._streams
        assert not self.dispatcher._quick_reads._rounds
        assert not self.dispatcher._quick_reads._open

    def peer(self) -> Reader:
        return Reader(self)

    @property
    def counters(self) -> Any:
        return self.context.metrics.client


class Reader(Peer):
    """A client with the token of the bench."""

    def __init__(self, bench: QuickBench) -> None:
        super().__init__(bench.server)
        self.bench = bench

    def read(self, stream_id: int, message: bytes, *extra: tuple[str, str]) -> None:
        self.ask(m.KV_READ_V1, stream_id, message, *extra)

    def ask(self, method: m.Method, stream_id: int, message: bytes, *extra: tuple[str, str]) -> None:
        token = base64.b64encode(self.bench.token).decode()
        self.request(stream_id, length_prefixed(message), ("auth-token-bin", token), *extra, path=method.path)

    def messages(self) -> dict[int, tuple[str, bytes]]:
        """By stream: its status and the bytes of its messages together, for those that have ended."""
        data: dict[int, bytes] = {}
        found: dict[int, tuple[str, bytes]] = {}
        for kind, flags, stream_id, payload in self.frames():
            if kind == f.DATA:
                data[stream_id] = data.get(stream_id, b"") + payload
            elif kind == f.HEADERS:
                fields = self.decoded(payload)
                if flags & f.END_STREAM:
                    found[stream_id] = (fields["grpc-status"], data.pop(stream_id, b"")[5:])
        return found

    def answers(self) -> dict[int, tuple[str, list[pb.StreamItem]]]:
        """By stream: its status and its items, for those that have ended."""
        items: dict[int, list[pb.StreamItem]] = {}
        found: dict[int, tuple[str, list[pb.StreamItem]]] = {}
        for kind, flags, stream_id, payload in self.frames():
            if kind == f.DATA:
                items.setdefault(stream_id, []).append(pb.StreamItem.FromString(payload[5:]))
            elif kind == f.HEADERS:
                fields = self.decoded(payload)
                if flags & f.END_STREAM:
                    found[stream_id] = (fields["grpc-status"], items.pop(stream_id, []))
        return found

    def status(self, stream_id: int) -> dict[str, str]:
        """Everything in the headers of one stream."""
        blocks = [payload for kind, _, stream, payload in self.frames() if kind == f.HEADERS and stream == stream_id]
        return {name: value for block in blocks for name, value in self.decoded(block).items()}

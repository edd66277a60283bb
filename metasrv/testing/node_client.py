"""A gRPC client for exactly one node: no retry and no redirect.

Tests use it to ask exactly one node and to see exactly what it answers; applications use `metasrv.client`. Keeps to
what any foreign client knows: the protobuf messages, the handshake and the token header (docs/contract/grpc.md
section b).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self

import grpc

from metasrv.model.types import Endpoint
from metasrv.protocol.proto import meta_pb2, meta_pb2_grpc

CLIENT_VERSION = 260_629_002_000
"""Announced in the handshake: 260629.2.0 (docs/contract/grpc.md section b.3)."""
TIMEOUT_SECONDS_DEFAULT = 5.0


class NodeClient:
    """Async context manager around one channel; every method raises `grpc.aio.AioRpcError`."""

    def __init__(self, endpoint: Endpoint, timeout_s: float = TIMEOUT_SECONDS_DEFAULT) -> None:
        self.endpoint = endpoint
        self._timeout_s = timeout_s
        self._channel: Any = None
        self._stub: Any = None
        self._metadata: tuple[tuple[str, bytes], ...] = ()

    async def __aenter__(self) -> Self:
        options = [
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
            ("grpc.enable_http_proxy", 0),
            # Otherwise channels to one address share a back-off: a new one to a node that is back would still fail.
            ("grpc.use_local_subchannel_pool", 1),
        ]
        self._channel = grpc.aio.insecure_channel(str(self.endpoint), options=options)
        make_stub: Any = meta_pb2_grpc.MetaServiceStub
        self._stub = make_stub(self._channel)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._channel.close()

    async def handshake(self, user: str = "root", version: int = CLIENT_VERSION) -> bytes:
        """Exchange names for a token, kept for the calls that need one; returns it."""
        name = user.encode()
        # BasicAuth{2: username, 3: password}, both short: a tag byte, a length byte, the bytes
        payload = bytes((0x12, len(name))) + name + bytes((0x1A, 3)) + b"xxx"
        request = meta_pb2.HandshakeRequest(protocol_version=version, payload=payload)
        call = self._stub.Handshake(iter([request]), timeout=self._timeout_s)
        async for response in call:
            token: bytes = response.payload
            self._metadata = (("auth-token-bin", token),)
            return token
        raise ConnectionError(f"{self.endpoint} ended the handshake without an answer")

    async def transaction(self, request: meta_pb2.TxnRequest) -> meta_pb2.TxnReply:
        await self._ensure_token()
        call = self._stub.Transaction(request, metadata=self._metadata, timeout=self._timeout_s)
        reply: meta_pb2.TxnReply = await call
        return reply

    async def kv_api(self, request: meta_pb2.RaftRequest) -> str:
        """A write in JSON; returns the reply's JSON."""
        await self._ensure_token()
        reply: meta_pb2.RaftReply = await self._stub.KvApi(request, metadata=self._metadata, timeout=self._timeout_s)
        return reply.data

    async def put(self, key: str, value: bytes) -> int:
        """Unconditional write; returns the new sequence number."""
        put = meta_pb2.TxnPutRequest(key=key, value=value)
        reply = await self.transaction(meta_pb2.TxnRequest(if_then=[meta_pb2.TxnOp(put=put)]))
        seq: int = reply.responses[0].put.current.seq
        return seq

    async def get(self, key: str) -> bytes | None:
        return (await self.get_many([key]))[0]

    async def get_many(self, keys: Iterable[str]) -> list[bytes | None]:
        """Values in the order of the keys."""
        items = await self._read({"MGetKV": {"keys": list(keys)}})
        return [item.value.data if item.HasField("value") else None for item in items]

    async def list_prefix(self, prefix: str) -> dict[str, bytes]:
        """Records under a prefix, by key."""
        return {item.key: item.value.data for item in await self._read({"ListKV": {"prefix": prefix}})}

    async def _read(self, request: dict[str, Any]) -> list[Any]:
        await self._ensure_token()
        message = meta_pb2.RaftRequest(data=json.dumps(request))
        call = self._stub.KvReadV1(message, metadata=self._metadata, timeout=self._timeout_s)
        return [item async for item in call]

    async def _ensure_token(self) -> None:
        if not self._metadata:
            await self.handshake()

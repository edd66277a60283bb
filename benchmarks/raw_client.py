"""A gRPC client for one node that sends bytes and gets bytes, so that any server can be asked by the same code.

Knows nothing of messages: who asks brings their bytes (`benchmarks/compared/wire.py`). Runs on an event loop.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import grpc

from metasrv.model.types import Endpoint

_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
)


class RawClient:
    """Async context manager around one channel; every call raises `grpc.aio.AioRpcError`."""

    def __init__(self, endpoint: Endpoint, headers: Mapping[str, str], timeout_seconds: float) -> None:
        self._endpoint = endpoint
        self._metadata = tuple((name, _value(name, text)) for name, text in headers.items())
        self._timeout_seconds = timeout_seconds
        self._channel: Any = None

    async def __aenter__(self) -> Self:
        self._channel = grpc.aio.insecure_channel(str(self._endpoint), options=_OPTIONS)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._channel.close()

    async def call(self, path: str, message: bytes) -> bytes:
        """One message for one message."""
        method = self._channel.unary_unary(path)
        answer: bytes = await method(message, metadata=self._metadata, timeout=self._timeout_seconds)
        return answer

    async def drain(self, path: str, message: bytes) -> int:
        """Read a stream of answers to its end; the bytes of its messages together."""
        stream = self._channel.unary_stream(path)(message, metadata=self._metadata, timeout=self._timeout_seconds)
        return sum([len(part) async for part in stream])


def _value(name: str, text: str) -> str | bytes:
    """grpcio encodes the bytes of a `-bin` header itself."""
    return base64.b64decode(text + "=" * (-len(text) % 4)) if name.endswith("-bin") else text

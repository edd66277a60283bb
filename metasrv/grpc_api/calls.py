"""What a handler sees of one call: metadata, deadline, and a counted stream of messages.

The protocol is what handlers need of a server, named as in grpc.aio, so that tests need no server. Runs on the event
loop.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from typing import Any, NoReturn, Protocol

from metasrv.grpc_api.batches import Batch
from metasrv.grpc_api.http2.headers import Metadata
from metasrv.grpc_api.http2.messages import PREFIX_SIZE_BYTES
from metasrv.grpc_api.http2.portions import Standing
from metasrv.grpc_api.http2.status import StatusCode
from metasrv.protocol.methods import CLUSTER_METADATA_KEY, READ_METADATA_KEY, STALE_READ

TIMEOUT_MS_DEFAULT = 10_000
"""How long a call without a deadline waits for consensus; none waits longer."""
ANSWER_MARGIN_MS = 60
"""Subtracted from a client's deadline, so that the true reason arrives before the client itself gives up."""


class Call(Protocol):
    """One call; implemented by `http2.call.ServerCall`."""

    async def write(self, message: bytes, /) -> None: ...

    def write_prefixed(self, messages: bytes, /) -> Awaitable[None]:
        """Send messages of a stream, each behind its length."""

    def write_now(self, messages: bytes, /) -> bool:
        """The same in one step, if headers were sent, nothing waits and the client takes it now; otherwise do nothing."""

    async def send_initial_metadata(self, metadata: Metadata, /) -> None: ...

    async def abort(self, code: StatusCode, details: str = "", trailing_metadata: Metadata = ()) -> NoReturn: ...

    def invocation_metadata(self) -> Iterable[tuple[str, str | bytes]] | None: ...

    def time_remaining(self) -> float | None: ...

    def peer(self) -> str: ...

    def peer_certificate(self) -> Any: ...

    def done(self) -> bool: ...

    def standing(self) -> Standing:
        """What the connection of this call has proved."""

    def prove(self) -> None:
        """A valid token was shown on the connection of this call."""

    def stalled_seconds(self) -> float:
        """How long the client has taken nothing of a response that waits, in steps of seconds; 0 when it takes some."""


class Sink(Protocol):
    """Counts bytes sent to clients (implemented by the metrics registry)."""

    def client_sent_bytes(self, size_bytes: int, /) -> None: ...


class Stream:
    """The responses of a streaming call; `started` is true once anything was sent."""

    __slots__ = ("_sink", "call", "started")

    def __init__(self, call: Call, sink: Sink) -> None:
        self.call = call
        self._sink = sink
        self.started = False

    async def start(self, metadata: Metadata) -> None:
        """Send the initial metadata now, before the first message."""
        self.started = True
        await self.call.send_initial_metadata(metadata)

    async def send(self, message: bytes) -> None:
        self.started = True
        self._sink.client_sent_bytes(len(message))
        await self.call.write(message)

    def send_batch(self, batch: Batch) -> Awaitable[None]:
        """Send messages together; the caller awaits it at once. A coroutine of its own would cost as much as the rest."""
        self.started = True
        self._sink.client_sent_bytes(batch.messages_bytes)
        return self.call.write_prefixed(batch.data)

    def send_now(self, prefixed: bytes) -> bool:
        """Send one message in this very step; false, and nothing is sent, when `send_batch` would have to wait."""
        if not self.call.write_now(prefixed):
            return False
        self._sink.client_sent_bytes(len(prefixed) - PREFIX_SIZE_BYTES)
        return True


def timeout_ms_of(call: Call) -> int:
    """How long this call may wait for consensus: its deadline, at most `TIMEOUT_MS_DEFAULT`."""
    remaining_seconds = call.time_remaining()
    if remaining_seconds is None:
        return TIMEOUT_MS_DEFAULT
    remaining_ms = int(remaining_seconds * 1000) - ANSWER_MARGIN_MS
    return max(1, min(remaining_ms, TIMEOUT_MS_DEFAULT))


def cluster_metadata(cluster_id: str | None) -> Metadata:
    """The initial metadata that names the cluster, so that a client does not mix two; empty before the node has one."""
    return () if cluster_id is None else ((CLUSTER_METADATA_KEY, cluster_id),)


def wants_stale_read(call: Call) -> bool:
    """Whether the client asked for local state, without a confirmation by a quorum."""
    return metadata_value(call, READ_METADATA_KEY) == STALE_READ


def metadata_value(call: Call, name: str) -> str | bytes | None:
    """The first value of a metadata key (lower case), None without one."""
    for key, value in call.invocation_metadata() or ():
        if key == name:
            return value
    return None


def client_address(peer: str) -> str:
    """`ip:port` of a caller from gRPC's `ipv4:1.2.3.4:5` or `ipv6:%5B::1%5D:5`."""
    kind, _, address = peer.partition(":")
    if kind not in ("ipv4", "ipv6"):
        return peer
    return address.replace("%5B", "[").replace("%5D", "]")


def client_host(peer: str) -> str:
    """The caller's IP address, without the port, from the same text."""
    return client_address(peer).rpartition(":")[0].strip("[]")

"""A load generator for what h2load cannot send: requests that differ, mixes of two kinds, streams that stay open.

One thread, one request in flight on each connection. A request has succeeded when its answer brought a message and the
stream ended; an answer of headers alone is an error of gRPC and ends the run. Knows nothing of who is asked.
"""

from __future__ import annotations

import select
import socket
import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from benchmarks.compared import wire
from benchmarks.load import LoadError, Measurement
from metasrv.model.types import Endpoint

RECEIVED_SIZE_BYTES_MAX = 1 << 18
STALLED_SECONDS = 30.0


class Request(NamedTuple):
    """One request, ready to be sent on any stream."""

    block: bytes
    """Its header fields, of `wire.header_block`."""
    body: bytes
    """Its message, of `wire.grpc_message`."""


class Connection:
    """A connection with one request in flight, or with many open streams."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.socket = socket.create_connection((endpoint.addr, endpoint.port), timeout=STALLED_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(wire.greeting())
        self._received = b""
        self.next_stream_id = 1
        self.sent_at = 0.0
        self.messages = 0
        """DATA frames with content since the request was sent."""

    def send(self, request: Request, *, last: bool = True) -> None:
        """Send on a new stream; `last` unless the stream stays open for more requests."""
        stream_id = self.next_stream_id
        self.next_stream_id += 2
        self.messages = 0
        self.sent_at = time.perf_counter()
        self.socket.sendall(
            wire.frame(wire.HEADERS, wire.END_HEADERS, stream_id, request.block)
            + wire.data_frames(stream_id, request.body, last=last)
        )

    def receive(self) -> bool:
        """Read what has come; whether a stream has ended. Raises LoadError for an answer that is an error."""
        received = self.socket.recv(RECEIVED_SIZE_BYTES_MAX)
        if not received:
            raise LoadError("the server closed a connection")
        data = self._received + received
        position, ended = 0, False
        while len(data) - position >= wire.FRAME_HEAD_SIZE_BYTES:
            size = int.from_bytes(data[position : position + 3], "big")
            end = position + wire.FRAME_HEAD_SIZE_BYTES + size
            if len(data) < end:
                break
            ended = self._frame(data[position + 3], data[position + 4], data[end - size : end]) or ended
            position = end
        self._received = data[position:]
        return ended

    def _frame(self, kind: int, flags: int, payload: bytes) -> bool:
        if kind == wire.DATA:
            self.messages += bool(payload)
        elif kind == wire.PING and not flags & wire.ACK:
            self.socket.sendall(wire.frame(wire.PING, wire.ACK, 0, payload))
        elif kind == wire.SETTINGS and not flags & wire.ACK:
            self.socket.sendall(wire.frame(wire.SETTINGS, wire.ACK, 0, b""))
        elif kind in (wire.GOAWAY, wire.RST_STREAM):
            code, words = (payload[4:8], payload[8:]) if kind == wire.GOAWAY else (payload, b"")
            raise LoadError(f"the server ended it, error {int.from_bytes(code, 'big')} {words.decode(errors='replace')}")
        if kind not in (wire.DATA, wire.HEADERS) or not flags & wire.END_STREAM:
            return False
        if not self.messages:
            raise LoadError("an answer without a message: an error of gRPC")
        return True

    def close(self) -> None:
        self.socket.close()


def drive_raw(endpoint: Endpoint, clients: int, requests: int, next_request: Callable[[], Request]) -> Measurement:
    """Send `requests` requests over `clients` connections, one in flight on each."""
    connections = {
        connection.socket.fileno(): connection for connection in (Connection(endpoint) for _ in range(clients))
    }
    took: list[float] = []
    poll = select.epoll()
    try:
        started = time.perf_counter()
        for number, connection in connections.items():
            poll.register(number, select.EPOLLIN)
            connection.send(next_request())
        sent = clients
        while len(took) < requests:
            ready = poll.poll(STALLED_SECONDS)
            if not ready:
                raise LoadError(f"no answer for {STALLED_SECONDS:g} s")
            for number, _ in ready:
                connection = connections[number]
                if not connection.receive():
                    continue
                took.append(time.perf_counter() - connection.sent_at)
                if sent < requests:
                    sent += 1
                    connection.send(next_request())
        elapsed = time.perf_counter() - started
    finally:
        poll.close()
        for connection in connections.values():
            connection.close()
    percentiles = statistics.quantiles(took, n=100)
    return Measurement(requests, len(took) / elapsed, percentiles[49] * 1000, percentiles[98] * 1000)


class Streams:
    """Open streams over a few connections, such as watches; counts the messages that come."""

    def __init__(self, endpoint: Endpoint, connections: int, requests: Sequence[Request], *, stay_open: bool) -> None:
        """`stay_open`: the server ends a stream whose client has said all its requests."""
        self._connections = [Connection(endpoint) for _ in range(connections)]
        self._poll = select.epoll()
        for connection in self._connections:
            self._poll.register(connection.socket.fileno(), select.EPOLLIN)
        self._by_number = {connection.socket.fileno(): connection for connection in self._connections}
        for number, request in enumerate(requests):
            self._connections[number % connections].send(request, last=not stay_open)
        self.forget()

    def forget(self) -> None:
        for connection in self._connections:
            connection.messages = 0

    def wait_for(self, messages: int, timeout_seconds: float = STALLED_SECONDS) -> float:
        """The instant at which `messages` had come since `forget`. Raises LoadError when they do not come."""
        deadline = time.perf_counter() + timeout_seconds
        while sum(connection.messages for connection in self._connections) < messages:
            ready = self._poll.poll(max(0.0, deadline - time.perf_counter()))
            if not ready:
                raise LoadError(f"{messages} messages were expected of streams, and did not come")
            for number, _ in ready:
                self._by_number[number].receive()
        return time.perf_counter()

    def drain(self, quiet_seconds: float = 0.5) -> None:
        """Take what comes until nothing has come for `quiet_seconds`, and forget it."""
        while ready := self._poll.poll(quiet_seconds):
            for number, _ in ready:
                self._by_number[number].receive()
        self.forget()

    def close(self) -> None:
        self._poll.close()
        for connection in self._connections:
            connection.close()

"""What a stream asks of its connection, and a connection of its server, so that imports point one way.

`server` creates connections, `connection` creates calls, and a call creates its sender; in the other direction they know
each other only by these protocols.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Protocol

from metasrv.grpc_api.http2.budget import Budget
from metasrv.grpc_api.http2.deadlines import Deadlines
from metasrv.grpc_api.http2.headers import Metadata
from metasrv.grpc_api.http2.route import Route
from metasrv.grpc_api.http2.status import StatusCode


class StreamConnection(Protocol):
    """A connection, as each of its streams sees it."""

    loop: asyncio.AbstractEventLoop
    budget: Budget
    peer: str
    """The client's address as gRPC writes it."""
    message_size_bytes_max: int
    refusal_metadata: Metadata
    """See `ConnectionServer`."""
    send_window_bytes: int
    """The connection's flow-control window: bytes of DATA that the peer takes on all streams (RFC 9113 section 5.2)."""
    initial_window_bytes: int
    """The flow-control window of a new stream, as the peer's SETTINGS say."""
    frame_size_bytes_max: int
    """Largest payload of a frame to the peer."""
    writing_paused: bool
    """Whether the socket's buffer is full."""
    data_frames: int
    """DATA frames sent since the server's last tick."""
    waiting: dict[int, None]
    """Streams that hold data back, in the order in which they are served."""

    def write(self, data: bytes, /) -> None:
        """Hand whole frames to the socket."""

    def forget(self, stream_id: int, /) -> None:
        """The call on this stream has ended."""


class ServedConnection(Protocol):
    """A connection, as its server sees it."""

    def tick(self) -> None:
        """Some seconds have passed."""

    def go_away(self) -> None:
        """Take no more calls; those under way go on."""

    def cut_calls(self, code: StatusCode, text: str, /) -> None:
        """End every call under way with this status."""

    def close(self) -> None:
        """Close once everything written is sent."""

    def abort(self) -> None:
        """Close at once."""


class ConnectionServer(Protocol):
    """The server, as each of its connections sees it."""

    loop: asyncio.AbstractEventLoop
    budget: Budget
    deadlines: Deadlines
    routes: Mapping[str, Route]
    message_size_bytes_max: int
    streams_max: int
    """Calls that one connection may have under way."""
    refusal_metadata: Metadata
    """Trailers of a call that the server refuses because the budget is exceeded, before its request is complete."""

    def admit(self, connection: ServedConnection, /) -> bool:
        """Whether there is room for a new connection."""

    def lost(self, connection: ServedConnection, /) -> None:
        """The connection is closed, or was never admitted."""

    def call_began(self) -> None: ...

    def call_ended(self) -> None: ...

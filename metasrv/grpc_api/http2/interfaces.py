"""What a stream asks of its connection, and a connection of its server, so that imports point one way.

`server` creates connections, `connection` creates calls, and a call creates its sender; in the other direction they know
each other only by these protocols.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sized
from typing import Any, Protocol

from metasrv.grpc_api.http2.budget import Account, Budget
from metasrv.grpc_api.http2.call_places import CallingConnection
from metasrv.grpc_api.http2.deadlines import Deadlines
from metasrv.grpc_api.http2.frames import ErrorCode
from metasrv.grpc_api.http2.headers import Metadata
from metasrv.grpc_api.http2.messages import Compressed
from metasrv.grpc_api.http2.output import Output
from metasrv.grpc_api.http2.portions import Standing
from metasrv.grpc_api.http2.route import Route
from metasrv.grpc_api.http2.send_windows import SendWindows, WaitingSender
from metasrv.grpc_api.http2.status import StatusCode
from metasrv.grpc_api.http2.turns import Turns


class StreamConnection(Protocol):
    """A connection, as each of its streams sees it."""

    loop: asyncio.AbstractEventLoop
    budget: Budget
    peer: str
    """The client's address as gRPC writes it."""
    peer_certificate: Any
    """What `getpeercert` of the standard library gives for a certificate that was verified; falsy without one."""
    account: Account
    """To which the budget counts what is held."""
    standing: Standing
    """What the client has proved."""
    message_size_bytes_max: int
    refusal_metadata: Metadata
    """See `ConnectionServer`."""
    windows: SendWindows
    frame_size_bytes_max: int
    """Largest payload of a frame to the peer."""
    writing_paused: bool
    """Whether the socket's buffer is full."""
    data_frames: int
    """DATA frames sent since the server's last tick."""

    def write(self, data: bytes, /) -> None:
        """Hand whole frames to the socket, after those that wait."""

    def write_soon(self, data: bytes, /) -> None:
        """Let whole frames leave with the next that are written, at the latest when the loop turns."""

    def write_joined(self, data: bytes, joined: list[Output], /) -> None:
        """As `Output.write_joined`."""

    @property
    def calls(self) -> Sized:
        """Those under way."""

    def hold(self, size_bytes: int, /) -> None:
        """Count bytes that are kept for this client, for the connection and in the budget; negative when freed."""

    def make_room(self) -> bool:
        """Let another client that keeps more give way; return whether the budget is kept now."""

    async def inflate(self, message: Compressed, /) -> bytes:
        """Decompress a message off the event loop; raises MessageError."""

    @property
    def is_over(self) -> bool:
        """Whether more is held than may be for a client like this."""

    def prove(self) -> None:
        """The client has shown a valid token."""

    def forget(self, stream_id: int, /) -> None:
        """The call on this stream has ended."""


class ControlledCall(Protocol):
    """A call, as the frames that control its stream see it."""

    @property
    def sender(self) -> WaitingSender: ...

    def close(self) -> None:
        """End without a status."""


class ControlledConnection(Protocol):
    """A connection, as its control frames see it."""

    windows: SendWindows
    frame_size_bytes_max: int
    data_frames: int

    @property
    def calls(self) -> Mapping[int, ControlledCall]:
        """Under way, by stream."""

    def write(self, data: bytes, /) -> None:
        """Hand whole frames to the socket."""

    def reset(self, stream_id: int, code: ErrorCode, /) -> None:
        """End a stream with a stream error."""

    def client_ended(self, stream_id: int, /) -> None:
        """The client has reset the stream."""

    def check_not_idle(self, stream_id: int, /) -> None:
        """Raise Http2ConnectionError for a stream that was never opened."""


class ServedConnection(Protocol):
    """A connection, as its server sees it."""

    host: str
    """The client's IP address; empty when it has none."""
    is_near: bool
    """Whether its client is on this machine or a member's."""
    held_bytes: int
    """What is kept for this client, as the budget counts it."""
    account: Account

    @property
    def is_over(self) -> bool:
        """Whether more is held than may be for a client like this."""

    @property
    def is_idle(self) -> bool:
        """Whether it has no calls."""

    def displace(self) -> None:
        """Close: another connection gets the place."""

    def give_way(self) -> None:
        """End calls that keep much until the budget is kept again."""

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

    turns: Turns

    loop: asyncio.AbstractEventLoop
    budget: Budget
    deadlines: Deadlines
    routes: Mapping[str, Route]
    message_size_bytes_max: int
    streams_max: int
    """Calls that one connection may have under way."""
    refusal_metadata: Metadata
    """Trailers of a call that the server refuses for want of room, before its request is complete."""

    def is_near(self, host: str, /) -> bool:
        """Whether a client at this address runs on this machine or on a member's."""

    def admit(self, connection: ServedConnection, /) -> bool:
        """Whether there is room for a new connection."""

    def proved(self, connection: ServedConnection, /) -> None:
        """A valid token was shown on the connection."""

    def lost(self, connection: ServedConnection, /) -> None:
        """The connection is closed, or was never admitted."""

    def make_room(self, connection: ServedConnection, /) -> bool:
        """Let the connection that keeps the most give way to another; return whether the budget is kept now."""

    async def inflate(self, message: Compressed, /) -> bytes:
        """Decompress a message off the event loop; raises MessageError."""

    def call_began(self, connection: CallingConnection, /) -> str | None:
        """Count a call of the connection; returns why it has to be refused, None when there is room for it."""

    def call_ended(self, connection: CallingConnection, /) -> None:
        """A call that was counted has ended."""

"""The receiving half of one stream: pieces of the request in, whole messages out, and the window given back.

Runs on the event loop. A call whose request is one message in one DATA frame needs none of this.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from metasrv.grpc_api.http2.frames import ErrorCode, Http2StreamError, window_update
from metasrv.grpc_api.http2.interfaces import StreamConnection
from metasrv.grpc_api.http2.messages import PREFIX_SIZE_BYTES, Compressed, MessageError, MessageReader
from metasrv.grpc_api.http2.status import StatusCode

STREAM_WINDOW_SIZE_BYTES = 1024 * 1024
"""Flow-control window of each stream: what a client may send of a request before the handler has taken any of it."""


class Receiver:
    """Receives on one stream; `single`: the request is one message, whose pieces are taken as they arrive."""

    __slots__ = (
        "_arrived",
        "_connection",
        "_is_single",
        "_reader",
        "_received_bytes",
        "_stream_id",
        "_taken_bytes",
        "ended",
    )

    def __init__(self, connection: StreamConnection, stream_id: int, encoding: str, single: bool) -> None:
        self._connection = connection
        self._stream_id = stream_id
        self._is_single = single
        self._reader = MessageReader(encoding, connection.message_size_bytes_max)
        self._arrived: asyncio.Future[None] | None = None
        self._received_bytes = 0
        """Received, and not yet given back to the stream's window with WINDOW_UPDATE."""
        self._taken_bytes = 0
        """The part of them that the handler has taken."""
        self.ended = False
        """Whether the client has sent all of its request."""

    @property
    def held_bytes(self) -> int:
        return self._reader.held_bytes

    @property
    def incomplete(self) -> bool:
        """Whether the bytes so far end in the middle of a message."""
        return self._reader.incomplete

    def feed(self, data: bytes, ended: bool) -> None:
        """Take a piece of the request. Raises Http2StreamError, MessageError."""
        self.ended = ended
        self._received_bytes += len(data)
        if self._received_bytes > STREAM_WINDOW_SIZE_BYTES:
            raise Http2StreamError(ErrorCode.FLOW_CONTROL_ERROR)
        self._reader.feed(data)
        if self._is_single:
            self._take(len(data))
        elif self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)

    def single(self) -> bytes | Compressed | None:
        """The one message of the request, None while it is not whole. Raises MessageError when there is not one."""
        reader = self._reader
        if len(reader.messages) > 1 or (self.ended and (reader.incomplete or not reader.messages)):
            raise MessageError(StatusCode.INVALID_ARGUMENT, "the request of this method is exactly one message")
        return reader.take() if self.ended else None

    async def next_message(self) -> bytes | Compressed | None:
        """The next message of a stream of requests, None after the last one. Raises MessageError."""
        reader = self._reader
        while not reader.messages:
            if self.ended:
                if reader.incomplete:
                    raise MessageError(StatusCode.INVALID_ARGUMENT, "the request ended in the middle of a message")
                return None
            if reader.incomplete:
                self._take(self._received_bytes)  # a message may be larger than the window
            self._arrived = self._connection.loop.create_future()
            await self._arrived
        message = reader.take()
        self._take(PREFIX_SIZE_BYTES + len(message.data if isinstance(message, Compressed) else message))
        return message

    def _take(self, size_bytes: int) -> None:
        """Give bytes back to the stream's window, in few and large updates."""
        self._taken_bytes = min(self._taken_bytes + size_bytes, self._received_bytes)
        if self._taken_bytes >= STREAM_WINDOW_SIZE_BYTES // 2 and not self.ended:
            self._connection.write(window_update(self._stream_id, self._taken_bytes))
            self._received_bytes -= self._taken_bytes
            self._taken_bytes = 0


class Requests(AsyncIterator[bytes]):
    """The messages of a streamed request, for one handler; `next_message` gives None after the last one."""

    __slots__ = ("_next_message",)

    def __init__(self, next_message: Callable[[], Awaitable[bytes | None]]) -> None:
        self._next_message = next_message

    async def __anext__(self) -> bytes:
        message = await self._next_message()
        if message is None:
            raise StopAsyncIteration
        return message

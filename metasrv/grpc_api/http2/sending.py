"""The sending half of one stream: headers, messages and trailers in order, as fast as the peer's windows allow.

Runs on the event loop. A sender that holds data back is listed in `SendWindows` of its connection, which pumps it when a
flow-control window opens (RFC 9113 section 5.2) or the socket takes more.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from metasrv.grpc_api.http2.frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    frame,
    pack_frame_header,
)
from metasrv.grpc_api.http2.headers import OK_TRAILERS, RESPONSE_HEADERS, Metadata, response_headers
from metasrv.grpc_api.http2.interfaces import StreamConnection
from metasrv.grpc_api.http2.messages import PREFIX_SIZE_BYTES, message_prefix
from metasrv.grpc_api.http2.output import Output

TICK_SECONDS = 5.0
"""How often the server looks after every connection (`Connection.tick`)."""


class Sender:
    """Sends on one stream; calls `finished` once, when the last byte was handed to the socket."""

    __slots__ = (
        "_connection",
        "_drained",
        "_finished",
        "_offset",
        "_queue",
        "_stream_id",
        "_trailers",
        "_windows",
        "granted_bytes",
        "stalled_ticks",
        "started",
    )

    def __init__(self, connection: StreamConnection, stream_id: int, finished: Callable[[], None]) -> None:
        self._connection = connection
        self._windows = connection.windows
        self._stream_id = stream_id
        self._finished = finished
        self._queue: deque[bytes] = deque()
        self._offset = 0
        """Bytes of the queue's head that were sent."""
        self._trailers: bytes | None = None
        self._drained: asyncio.Future[None] | None = None
        self.granted_bytes = 0
        """Granted by the peer on this stream, less what was sent; the initial window comes on top (`SendWindows`)."""
        self.started = False
        self.stalled_ticks = 0
        """Ticks of the server since the peer last took data, while some is held back."""

    @property
    def waits(self) -> bool:
        """Whether data is held back."""
        return bool(self._queue)

    @property
    def held_bytes(self) -> int:
        return sum(map(len, self._queue)) - self._offset

    def start(self, headers: bytes) -> None:
        """Send the headers of the response, once."""
        self.started = True
        self._connection.write_soon(header_frames(self._stream_id, headers, 0, self._connection.frame_size_bytes_max))

    def send(self, data: bytes) -> None:
        """Send a length-prefixed message or a part of one, or queue it."""
        if not self._queue and self._send_whole(data):
            return
        self._queue.append(data)
        self._connection.hold(len(data))
        if len(self._queue) == 1:
            self.pump()

    def send_now(self, data: bytes) -> bool:
        """Send it after the headers in one frame, if nothing is held back and all of it may leave now."""
        return self.started and not self._queue and self._send_whole(data)

    def _send_whole(self, data: bytes) -> bool:
        """Send it in one frame if the windows and the socket take it now: nothing is held, nothing counted."""
        connection, windows = self._connection, self._windows
        size_bytes = len(data)
        window_bytes = min(windows.initial_bytes + self.granted_bytes, windows.connection_bytes)
        if connection.writing_paused or size_bytes > min(window_bytes, connection.frame_size_bytes_max):
            return False
        self.granted_bytes -= size_bytes
        windows.connection_bytes -= size_bytes
        connection.data_frames += 1
        connection.write_soon(pack_frame_header(size_bytes << 8 | DATA, 0, self._stream_id) + data)
        return True

    def send_reply(self, metadata: Metadata, reply: bytes, joined: list[Output] | None) -> bool:
        """Send a whole successful response with one message, if the windows and the socket take it now.

        Where the connection has more calls, its frames may wait for those of others (`Output.write_joined`).
        """
        connection, windows = self._connection, self._windows
        size_bytes = len(reply) + PREFIX_SIZE_BYTES
        window_bytes = min(windows.initial_bytes + self.granted_bytes, windows.connection_bytes)
        room_bytes = min(window_bytes, connection.frame_size_bytes_max)
        if self.started or connection.writing_paused or size_bytes > room_bytes:
            return False
        windows.connection_bytes -= size_bytes
        connection.data_frames += 1
        headers = response_headers(metadata) if metadata else RESPONSE_HEADERS
        frames = reply_frames(self._stream_id, headers, reply)
        if joined is not None and len(connection.calls) > 1:
            connection.write_joined(frames, joined)
        else:
            connection.write(frames)
        self._finished()
        return True

    def finish(self, trailers: bytes) -> None:
        """Send the trailers after everything that is queued."""
        self._trailers = trailers
        if not self._queue:
            self._end()

    def drop(self) -> None:
        """Forget what is queued."""
        if self._queue:
            self._connection.hold(-self.held_bytes)
            self._queue.clear()
            self._offset = 0
            self._windows.remove(self._stream_id)
            self._wake()

    async def drained(self) -> None:
        """Return once nothing is queued."""
        while self._queue:
            self._drained = asyncio.get_running_loop().create_future()
            await self._drained

    def pump(self) -> None:
        """Send as much of the queue as the windows and the socket take."""
        connection, windows = self._connection, self._windows
        queue = self._queue
        while queue and not connection.writing_paused:
            window_bytes = min(windows.initial_bytes + self.granted_bytes, windows.connection_bytes)
            room_bytes = min(window_bytes, connection.frame_size_bytes_max)
            if room_bytes <= 0:
                break
            head = queue[0]
            chunk = head[self._offset : self._offset + room_bytes] if self._offset or len(head) > room_bytes else head
            self.stalled_ticks = 0
            self._offset += len(chunk)
            if self._offset == len(head):
                queue.popleft()
                self._offset = 0
            self.granted_bytes -= len(chunk)
            windows.connection_bytes -= len(chunk)
            connection.data_frames += 1
            connection.hold(-len(chunk))
            connection.write_soon(pack_frame_header(len(chunk) << 8 | DATA, 0, self._stream_id) + chunk)
        if queue:
            windows.hold(self._stream_id, self)
            return
        windows.remove(self._stream_id)
        self._wake()
        if self._trailers is not None:
            self._end()

    def _end(self) -> None:
        trailers, self._trailers = self._trailers, None
        if trailers is not None:
            frame_size_bytes_max = self._connection.frame_size_bytes_max
            self._connection.write(header_frames(self._stream_id, trailers, END_STREAM, frame_size_bytes_max))
            self._finished()

    def _wake(self) -> None:
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)


def reply_frames(stream_id: int, headers: bytes, reply: bytes) -> bytes:
    """A whole successful response with one message, in three frames."""
    return b"".join(
        (
            pack_frame_header(len(headers) << 8 | HEADERS, END_HEADERS, stream_id),
            headers,
            pack_frame_header(len(reply) + PREFIX_SIZE_BYTES << 8 | DATA, 0, stream_id),
            message_prefix(len(reply)),
            reply,
            pack_frame_header(len(OK_TRAILERS) << 8 | HEADERS, END_HEADERS | END_STREAM, stream_id),
            OK_TRAILERS,
        )
    )


def header_frames(stream_id: int, block: bytes, flags: int, frame_size_bytes_max: int) -> bytes:
    """A field block as a HEADERS frame, followed by CONTINUATION frames when it is long."""
    if len(block) <= frame_size_bytes_max:
        return frame(HEADERS, flags | END_HEADERS, stream_id, block)
    fragments = [block[start : start + frame_size_bytes_max] for start in range(0, len(block), frame_size_bytes_max)]
    frames = [frame(HEADERS, flags, stream_id, fragments[0])]
    frames.extend(frame(CONTINUATION, 0, stream_id, fragment) for fragment in fragments[1:-1])
    frames.append(frame(CONTINUATION, END_HEADERS, stream_id, fragments[-1]))
    return b"".join(frames)

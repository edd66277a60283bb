"""The answer's half of one stream: headers, messages and trailers in order, as far as the peer's windows let them go.

Runs on the event loop. A sender that has to wait stands in its connection's queue and is pumped when a window opens or
the socket takes more.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

from metasrv.grpc_api.http2.budget import Budget
from metasrv.grpc_api.http2.frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    frame,
    pack_header,
)


class Link(Protocol):
    """What a sender needs of its connection."""

    window: int
    """Bytes of data that the peer takes on the whole connection."""
    data_frames: int
    """Sent since the server's last tick."""
    frame_size_max: int
    budget: Budget
    paused: bool
    """Whether the socket's buffer is full."""
    waiting: dict[int, Sender]

    def write(self, data: bytes, /) -> None: ...


class Sender:
    """Sends on one stream; `finished` is called once, when the last byte was handed to the socket."""

    __slots__ = (
        "_drained",
        "_finished",
        "_link",
        "_offset",
        "_queue",
        "_stream_id",
        "_trailers",
        "stalled_ticks",
        "started",
        "window",
    )

    def __init__(self, link: Link, stream_id: int, window: int, finished: Callable[[], None]) -> None:
        self._link = link
        self._stream_id = stream_id
        self._finished = finished
        self._queue: deque[bytes] = deque()
        self._offset = 0
        """Bytes of the queue's head that were sent."""
        self._trailers: bytes | None = None
        self._drained: asyncio.Future[None] | None = None
        self.window = window
        """Bytes of data that the peer takes on this stream."""
        self.started = False
        self.stalled_ticks = 0
        """Ticks of the server since the peer took anything of what waits."""

    @property
    def waits(self) -> bool:
        """Whether anything is held back."""
        return bool(self._queue)

    def start(self, block: bytes) -> None:
        """Send the headers that the response begins with, once."""
        self.started = True
        self._link.write(header_frames(self._stream_id, block, 0, self._link.frame_size_max))

    def send(self, data: bytes) -> None:
        """Send a framed message, or queue it."""
        self._queue.append(data)
        self._link.budget.used_bytes += len(data)
        if len(self._queue) == 1:
            self.pump()

    def finish(self, trailers: bytes) -> None:
        """Send the trailers after whatever is queued."""
        self._trailers = trailers
        if not self._queue:
            self._end()

    def drop(self) -> None:
        """Forget what is queued."""
        self._link.budget.used_bytes -= sum(map(len, self._queue)) - self._offset
        self._queue.clear()
        self._offset = 0
        self._link.waiting.pop(self._stream_id, None)
        self._wake()

    async def drained(self) -> None:
        """Return when nothing is queued any more."""
        while self._queue:
            self._drained = asyncio.get_running_loop().create_future()
            await self._drained

    def pump(self) -> None:
        """Send as much of the queue as may go now."""
        link = self._link
        queue = self._queue
        while queue and not link.paused:
            room = min(self.window, link.window, link.frame_size_max)
            if room <= 0:
                break
            head = queue[0]
            chunk = head[self._offset : self._offset + room] if self._offset or len(head) > room else head
            self.stalled_ticks = 0
            self._offset += len(chunk)
            if self._offset == len(head):
                queue.popleft()
                self._offset = 0
            self.window -= len(chunk)
            link.window -= len(chunk)
            link.data_frames += 1
            link.budget.used_bytes -= len(chunk)
            link.write(pack_header(len(chunk) << 8 | DATA, 0, self._stream_id) + chunk)
        # Out and in again: a sender that was served goes behind those that wait.
        link.waiting.pop(self._stream_id, None)
        if queue:
            link.waiting[self._stream_id] = self
            return
        self._wake()
        if self._trailers is not None:
            self._end()

    def _end(self) -> None:
        trailers, self._trailers = self._trailers, None
        if trailers is not None:
            self._link.write(header_frames(self._stream_id, trailers, END_STREAM, self._link.frame_size_max))
            self._finished()

    def _wake(self) -> None:
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)


def header_frames(stream_id: int, block: bytes, flags: int, frame_size_max: int) -> bytes:
    """A header block as a HEADERS frame, and CONTINUATION frames when it is long."""
    if len(block) <= frame_size_max:
        return frame(HEADERS, flags | END_HEADERS, stream_id, block)
    pieces = [block[start : start + frame_size_max] for start in range(0, len(block), frame_size_max)]
    frames = [frame(HEADERS, flags, stream_id, pieces[0])]
    frames.extend(frame(CONTINUATION, 0, stream_id, piece) for piece in pieces[1:-1])
    frames.append(frame(CONTINUATION, END_HEADERS, stream_id, pieces[-1]))
    return b"".join(frames)

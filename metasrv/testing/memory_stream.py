"""A byte stream between two asyncio protocols in memory, by hand: bytes move only when the test says so.

Knows nothing of what the bytes mean. Runs on the test's event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, cast


class MemoryTransport(asyncio.Transport):
    """One end. What its protocol wrote waits in `outgoing` until it is delivered to the other end."""

    def __init__(self, protocol: asyncio.Protocol, name: str) -> None:
        super().__init__()
        self.outgoing = bytearray()
        self.reading = True
        self.lost = False
        self.aborted = False
        self._protocol = protocol
        self._name = name
        self._closing = False
        self._paused = False
        self._high = self._low = 64 * 1024

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return (self._name, 1) if name == "peername" else default

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = cast(asyncio.Protocol, protocol)

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        self._closing = True

    def abort(self) -> None:
        self._closing = self.aborted = True
        self.outgoing.clear()

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high, self._low = high or 0, low or 0

    def get_write_buffer_size(self) -> int:
        return len(self.outgoing)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._closing:
            return
        self.outgoing += data
        if not self._paused and len(self.outgoing) > self._high:
            self._paused = True
            self._protocol.pause_writing()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(list_of_data))

    def take(self, size_bytes: int | None = None) -> bytes:
        """Remove the next bytes on their way, at most `size_bytes`."""
        size_bytes = len(self.outgoing) if size_bytes is None else size_bytes
        taken = bytes(self.outgoing[:size_bytes])
        del self.outgoing[:size_bytes]
        if self._paused and len(self.outgoing) <= self._low:
            self._paused = False
            self._protocol.resume_writing()
        return taken

    def receive(self, data: bytes) -> None:
        """Hand bytes to this end's protocol, unless it has closed."""
        if data and not self._closing:
            self._protocol.data_received(data)

    def lose(self, error: Exception | None = None) -> None:
        """This end's connection is gone; tells its protocol, once."""
        if not self.lost:
            self._closing = self.lost = True
            self._protocol.connection_lost(error)


class MemoryStream:
    """Two protocols, connected. `pump` plays the network until nothing moves any more."""

    def __init__(self, left: asyncio.Protocol, right: asyncio.Protocol) -> None:
        self.left = MemoryTransport(left, "left")
        self.right = MemoryTransport(right, "right")
        left.connection_made(self.left)
        right.connection_made(self.right)

    async def pump(self, chunk_size_bytes: int | None = None) -> None:
        """Deliver everything in both directions, in chunks, and then the end of the stream if an end has closed."""
        quiet = 0
        while quiet < 3:
            moved = self._move(self.left, self.right, chunk_size_bytes) + self._move(
                self.right, self.left, chunk_size_bytes
            )
            moved += self._spread_end()
            quiet = 0 if moved else quiet + 1
            await asyncio.sleep(0)

    def _move(self, source: MemoryTransport, target: MemoryTransport, chunk_size_bytes: int | None) -> int:
        if not source.outgoing or not (target.reading or target.is_closing()):
            return 0
        data = source.take(chunk_size_bytes)
        target.receive(data)
        return len(data)

    def _spread_end(self) -> int:
        """End both sides once one has closed and nothing is left to deliver from it."""
        ended = [end for end in (self.left, self.right) if end.is_closing() and not end.outgoing]
        if not ended or (self.left.lost and self.right.lost):
            return 0
        for end in (self.left, self.right):
            end.lose()
        return 1

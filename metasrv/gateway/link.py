"""One end of the socket pair between a node and a gateway: whole messages, those of one turn of the loop in one write.

    frame   length of the rest, 4 bytes big-endian · msgpack array of messages

Nothing here waits: what the other end does not take stays in this process, and past `GATEWAY_UNSENT_SIZE_BYTES_MAX` the
link is cut. Knows no message. Runs on the event loop of its process.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, cast

from metasrv.gateway.messages import Message
from metasrv.model.errors import CodecError
from metasrv.model.limits import GATEWAY_FRAME_SIZE_BYTES_MAX, GATEWAY_UNSENT_SIZE_BYTES_MAX
from metasrv.model.wire import pack, unpack

logger = logging.getLogger(__name__)

LENGTH_SIZE_BYTES = 4
FRAME_SIZE_BYTES_TARGET = 1024 * 1024
"""A frame with as much in byte strings is closed, so that none is much larger than its largest message."""


class Link(asyncio.Protocol):
    """`received` gets the messages of a frame, in order; `lost` is called once, with a sentence, when the link ends."""

    def __init__(self, received: Callable[[tuple[Any, ...]], None], lost: Callable[[str], None]) -> None:
        self._received = received
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.WriteTransport | None = None
        self._waiting: list[Message] = []
        self._waiting_size_bytes = 0
        self._scheduled = False
        self._arrived = bytearray()
        self._ended = ""
        self.before_write: Callable[[], None] = _nothing
        """Called before a turn's messages leave: nothing may join one of them afterwards."""
        self._resumed: asyncio.Event = asyncio.Event()
        self._resumed.set()

    # ------------------------------------------------------------------------- sending

    def send(self, message: Message, size_bytes: int = 0) -> None:
        """Send with what else this turn of the loop sends; `size_bytes` is the size of its byte strings."""
        self._waiting.append(message)
        self._waiting_size_bytes += size_bytes
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._turn_ended)
        elif self._waiting_size_bytes >= FRAME_SIZE_BYTES_TARGET:
            self._write()

    @property
    def unsent_size_bytes(self) -> int:
        """What the other end has not taken, apart from this turn's messages."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    async def until_taken(self) -> None:
        """Return once the other end has taken most of what was sent."""
        await self._resumed.wait()

    def _turn_ended(self) -> None:
        self._scheduled = False
        self._write()

    def _write(self) -> None:
        self.before_write()
        messages, self._waiting, self._waiting_size_bytes = self._waiting, [], 0
        if messages and self._is_open:
            self._put(pack(messages))

    @property
    def _is_open(self) -> bool:
        return self._transport is not None and not self._ended

    def _put(self, data: bytes) -> None:
        if self._transport is None:
            return
        self._transport.write(len(data).to_bytes(LENGTH_SIZE_BYTES, "big") + data)
        if self._transport.get_write_buffer_size() > GATEWAY_UNSENT_SIZE_BYTES_MAX:
            self.cut(f"more than {GATEWAY_UNSENT_SIZE_BYTES_MAX} bytes wait to be taken")

    def cut(self, reason: str) -> None:
        """End the link now."""
        if self._transport is not None:
            self._transport.abort()
        self._end(reason)

    def _end(self, reason: str) -> None:
        if self._ended:
            return
        self._ended = reason
        self._resumed.set()
        self._lost(reason)

    # ------------------------------------------------------------------------- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)  # a socket pair; uvloop's class has no such base
        if self._waiting:
            self._write()

    def connection_lost(self, error: Exception | None) -> None:
        self._end("the other end is gone" if error is None else f"the other end is gone: {error}")

    def pause_writing(self) -> None:
        self._resumed.clear()

    def resume_writing(self) -> None:
        self._resumed.set()

    def data_received(self, data: bytes) -> None:
        arrived = self._arrived
        arrived += data
        begin = 0
        try:
            while len(arrived) - begin >= LENGTH_SIZE_BYTES and not self._ended:
                body = begin + LENGTH_SIZE_BYTES
                size_bytes = int.from_bytes(arrived[begin:body], "big")
                if size_bytes > GATEWAY_FRAME_SIZE_BYTES_MAX:
                    raise CodecError(f"a frame of {size_bytes} bytes; the limit is {GATEWAY_FRAME_SIZE_BYTES_MAX}")
                if len(arrived) - body < size_bytes:
                    break
                begin = body + size_bytes
                messages = unpack(bytes(memoryview(arrived)[body:begin]))
                if type(messages) is not tuple:
                    raise CodecError("a frame that is no list of messages")
                self._received(messages)
        except (CodecError, TypeError, ValueError, LookupError) as error:
            logger.exception("a message between the node and a gateway is not understood")
            self.cut(f"a message is not understood: {error}")
        if begin:
            del arrived[:begin]


def _nothing() -> None:
    """Nobody wants to hear of it."""

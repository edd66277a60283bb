"""gRPC's length-prefixed messages in the bytes of a stream: a flag, four bytes of length, the message. Pure."""

from __future__ import annotations

import zlib
from collections import deque
from typing import NamedTuple

from metasrv.grpc_api.http2.status import StatusCode

PREFIX_SIZE_BYTES = 5
MESSAGE_OVERHEAD_SIZE_BYTES = 64
"""What a message that waits takes beside its bytes."""
_WINDOW_BITS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


class MessageError(Exception):
    """What the client sent is not a message: its call ends with this status."""

    def __init__(self, code: StatusCode, text: str) -> None:
        super().__init__(text)
        self.code = code


class Compressed(NamedTuple):
    """A message as it arrived, to be decompressed when it is its turn."""

    data: bytes
    window_bits: int


def message_prefix(size_bytes: int) -> bytes:
    """What stands in front of a message of this size that is not compressed."""
    return b"\x00" + size_bytes.to_bytes(4, "big")


def length_prefixed(message: bytes) -> bytes:
    """A message with its prefix, not compressed."""
    return message_prefix(len(message)) + message


def is_message(data: bytes, limit_bytes: int) -> bool:
    """Whether the bytes are exactly one message, not compressed and not too large."""
    size_bytes = len(data) - PREFIX_SIZE_BYTES
    return (
        0 <= size_bytes <= limit_bytes and data[0] == 0 and int.from_bytes(data[1:PREFIX_SIZE_BYTES], "big") == size_bytes
    )


class MessageReader:
    """Puts the messages of one request together, whatever pieces they arrive in. Decompresses nothing."""

    __slots__ = ("_buffer", "_encoding", "_limit_bytes", "_messages_bytes", "messages")

    def __init__(self, encoding: str, limit_bytes: int) -> None:
        self._buffer = bytearray()
        self._encoding = encoding
        self._limit_bytes = limit_bytes
        self._messages_bytes = 0
        self.messages: deque[bytes | Compressed] = deque()
        """Complete messages that were not taken yet."""

    @property
    def incomplete(self) -> bool:
        """Whether the bytes so far end in the middle of a message."""
        return bool(self._buffer)

    @property
    def held_bytes(self) -> int:
        """Bytes that have arrived and were not taken yet, with what keeping them costs."""
        return len(self._buffer) + self._messages_bytes + MESSAGE_OVERHEAD_SIZE_BYTES * len(self.messages)

    def take(self) -> bytes | Compressed:
        """The oldest complete message; raises IndexError without one."""
        message = self.messages.popleft()
        self._messages_bytes -= len(message.data if isinstance(message, Compressed) else message)
        return message

    def feed(self, data: bytes) -> None:
        """Take more bytes; raises MessageError, after which the reader must not be used."""
        buffer = self._buffer
        buffer += data
        start = 0
        while len(buffer) - start >= PREFIX_SIZE_BYTES:
            compressed = buffer[start]
            size_bytes = int.from_bytes(buffer[start + 1 : start + PREFIX_SIZE_BYTES], "big")
            if size_bytes > self._limit_bytes:
                raise _too_large(size_bytes, self._limit_bytes)
            end = start + PREFIX_SIZE_BYTES + size_bytes
            if len(buffer) < end:
                break
            message = bytes(memoryview(buffer)[start + PREFIX_SIZE_BYTES : end])
            self.messages.append(self._compressed(compressed, message) if compressed else message)
            self._messages_bytes += size_bytes
            start = end
        if start:
            del buffer[:start]

    def _compressed(self, flag: int, data: bytes) -> Compressed:
        window_bits = _WINDOW_BITS.get(self._encoding)
        if flag != 1 or window_bits is None:
            raise MessageError(
                StatusCode.INTERNAL,
                f"a message with compression flag {flag}, its encoding is {self._encoding!r}",
            )
        return Compressed(data, window_bits)


def inflated(message: Compressed, limit_bytes: int) -> bytes:
    """The message decompressed; raises MessageError. Takes milliseconds for each MiB of the result."""
    decompressor = zlib.decompressobj(message.window_bits)
    try:
        plain = decompressor.decompress(message.data, limit_bytes + 1)
    except zlib.error as error:
        raise MessageError(StatusCode.INTERNAL, f"a message that does not decompress: {error}") from error
    if len(plain) > limit_bytes:
        raise _too_large(len(plain), limit_bytes)
    if not decompressor.eof:
        raise MessageError(StatusCode.INTERNAL, "a compressed message that ends too early")
    return plain


def _too_large(size_bytes: int, limit_bytes: int) -> MessageError:
    # The words of gRPC's own servers, which clients look for.
    return MessageError(
        StatusCode.RESOURCE_EXHAUSTED, f"SERVER: Received message larger than max ({size_bytes} vs. {limit_bytes})"
    )

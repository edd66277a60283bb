"""gRPC's length-prefixed messages in the bytes of a stream: a flag, four bytes of length, the message. Pure."""

from __future__ import annotations

import zlib
from collections import deque

from metasrv.grpc_api.http2.status import StatusCode

PREFIX_SIZE_BYTES = 5
_WINDOW_BITS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


class MessageError(Exception):
    """What the client sent is not a message: its call ends with this status."""

    def __init__(self, code: StatusCode, text: str) -> None:
        super().__init__(text)
        self.code = code


def message_prefix(size_bytes: int) -> bytes:
    """What stands in front of a message of this size that is not compressed."""
    return b"\x00" + size_bytes.to_bytes(4, "big")


def length_prefixed(message: bytes) -> bytes:
    """A message with its prefix, not compressed."""
    return message_prefix(len(message)) + message


class MessageReader:
    """Puts the messages of one request together, whatever pieces they arrive in."""

    __slots__ = ("_buffer", "_encoding", "_limit_bytes", "_messages_bytes", "messages")

    def __init__(self, encoding: str, limit_bytes: int) -> None:
        self._buffer = bytearray()
        self._encoding = encoding
        self._limit_bytes = limit_bytes
        self._messages_bytes = 0
        self.messages: deque[bytes] = deque()
        """Complete messages that were not taken yet."""

    @property
    def incomplete(self) -> bool:
        """Whether the bytes so far end in the middle of a message."""
        return bool(self._buffer)

    @property
    def held_bytes(self) -> int:
        """Bytes that have arrived and were not taken yet."""
        return len(self._buffer) + self._messages_bytes

    def take(self) -> bytes:
        """The oldest complete message; raises IndexError without one."""
        message = self.messages.popleft()
        self._messages_bytes -= len(message)
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
            if compressed:
                message = self._decompressed(compressed, message)
            self.messages.append(message)
            self._messages_bytes += len(message)
            start = end
        if start:
            del buffer[:start]

    def _decompressed(self, flag: int, data: bytes) -> bytes:
        window_bits = _WINDOW_BITS.get(self._encoding)
        if flag != 1 or window_bits is None:
            raise MessageError(
                StatusCode.INTERNAL,
                f"a message with compression flag {flag}, its encoding is {self._encoding!r}",
            )
        decompressor = zlib.decompressobj(window_bits)
        try:
            message = decompressor.decompress(data, self._limit_bytes + 1)
        except zlib.error as error:
            raise MessageError(StatusCode.INTERNAL, f"a message that does not decompress: {error}") from error
        if len(message) > self._limit_bytes:
            raise _too_large(len(message), self._limit_bytes)
        if not decompressor.eof:
            raise MessageError(StatusCode.INTERNAL, "a compressed message that ends too early")
        return message


def _too_large(size_bytes: int, limit_bytes: int) -> MessageError:
    # The words of gRPC's own servers, which clients look for.
    return MessageError(
        StatusCode.RESOURCE_EXHAUSTED, f"SERVER: Received message larger than max ({size_bytes} vs. {limit_bytes})"
    )

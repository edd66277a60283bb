"""Frames on a peer connection: where one message ends and the next begins, and whether it arrived as it was sent.

    u32 length | u8 kind | u32 check | payload | 8-byte tag        (big-endian; `length` counts everything after itself)

The tag covers the whole frame and its position on the connection, so a damaged, lost, repeated or reordered frame is
noticed. The check is the CRC-32 of length and kind alone: a damaged length is found before the receiver waits for
megabytes that were never sent. Bytes only: knows nothing of Raft, of handshakes or of sockets. Runs on the event loop.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
import zlib
from enum import IntEnum
from typing import NamedTuple, Protocol

from metasrv.model.errors import FrameError, TooLargeError
from metasrv.model.limits import PEER_FRAME_SIZE_BYTES_MAX

_LENGTH = struct.Struct(">I")
_START = struct.Struct(">IB")
_CHECK = struct.Struct(">I")
_HEAD_SIZE_BYTES = _START.size + _CHECK.size
_SEQUENCE = struct.Struct(">Q")
_CHECKSUM_TAG = struct.Struct(">II")
_LENGTH_SIZE_BYTES = _LENGTH.size
_TAG_SIZE_BYTES = 8
_OVERHEAD_SIZE_BYTES = _HEAD_SIZE_BYTES - _LENGTH_SIZE_BYTES + _TAG_SIZE_BYTES
"""Bytes that `length` counts besides the payload: the kind, the check and the tag."""

PAYLOAD_SIZE_BYTES_MAX = PEER_FRAME_SIZE_BYTES_MAX - _OVERHEAD_SIZE_BYTES
"""The largest payload that one frame carries."""


class DamagedHeadError(FrameError):
    """The check of a frame's head does not match."""

    def __init__(self) -> None:
        super().__init__("the head of a frame is damaged")


class FrameKind(IntEnum):
    """What a frame carries; the kinds of the handshake are in the order in which they are sent."""

    HELLO = 1
    CHALLENGE = 2
    PROOF = 3
    WELCOME = 4
    REFUSAL = 5
    RAFT = 6
    REQUEST = 7
    RESPONSE = 8
    GATEWAY = 9
    """Messages between a node and a gateway on another machine (`gateway_streams.py`)."""


class Frame(NamedTuple):
    """A frame that arrived whole; `kind` is not yet known to be a `FrameKind`."""

    kind: int
    payload: bytes


class Integrity(Protocol):
    """Computes the tags of one direction of one connection, in order."""

    def tag(self, head: bytes, payload: bytes) -> bytes:
        """The 8-byte tag of the next frame."""
        ...


class ChecksumIntegrity:
    """Tags against accidents: CRC-32 and the frame's position. Anybody can compute them."""

    __slots__ = ("_sequence",)

    def __init__(self) -> None:
        self._sequence = 0

    def tag(self, head: bytes, payload: bytes) -> bytes:
        sequence = self._sequence
        self._sequence = (sequence + 1) & 0xFFFFFFFF
        return _CHECKSUM_TAG.pack(zlib.crc32(payload, zlib.crc32(head)), sequence)


class KeyedIntegrity:
    """Tags that only a holder of the session key can compute, one key for each direction."""

    __slots__ = ("_keyed", "_sequence")

    def __init__(self, key: bytes) -> None:
        self._keyed = hashlib.blake2b(key=key, digest_size=_TAG_SIZE_BYTES)
        self._sequence = 0

    def tag(self, head: bytes, payload: bytes) -> bytes:
        digest = self._keyed.copy()
        digest.update(_SEQUENCE.pack(self._sequence) + head)
        digest.update(payload)
        self._sequence += 1
        return digest.digest()


def frame_parts(kind: FrameKind, payload: bytes, integrity: Integrity) -> tuple[bytes, bytes, bytes]:
    """Head, payload and tag of the next frame, to be written one after the other; the payload is not copied.

    Raises TooLargeError past the limit, before the tag is computed, so that the connection stays usable.
    """
    if len(payload) > PAYLOAD_SIZE_BYTES_MAX:
        raise TooLargeError("a message to a peer in bytes", len(payload), PAYLOAD_SIZE_BYTES_MAX)
    start = _START.pack(len(payload) + _OVERHEAD_SIZE_BYTES, kind)
    head = start + _CHECK.pack(zlib.crc32(start))
    return head, payload, integrity.tag(head, payload)


class FrameReader:
    """Cuts received bytes into frames and checks each one.

    The length is judged as soon as its four bytes are there, before any memory is used for the frame. `integrity` and
    `frame_size_bytes_max` may be replaced between two frames: after a handshake other keys and another limit hold.
    """

    __slots__ = ("_data", "_head_is_sound", "_offset", "frame_size_bytes_max", "integrity")

    def __init__(self, integrity: Integrity, frame_size_bytes_max: int) -> None:
        self.integrity = integrity
        self.frame_size_bytes_max = frame_size_bytes_max
        self._data: bytes | bytearray = b""
        self._offset = 0
        self._head_is_sound = False

    @property
    def unfinished_kind(self) -> int | None:
        """The kind of the frame whose head has arrived, but not yet its end; None when there is none."""
        return self._data[self._offset + _LENGTH_SIZE_BYTES] if self._head_is_sound else None

    def feed(self, data: bytes) -> None:
        """Take bytes as they arrive. Those of finished frames are dropped; appending costs linear time overall."""
        if self._offset == len(self._data):
            self._data = data
        elif isinstance(self._data, bytearray):
            del self._data[: self._offset]
            self._data += data
        else:
            kept = bytearray(memoryview(self._data)[self._offset :])
            kept += data
            self._data = kept
        self._offset = 0

    def next_frame(self) -> Frame | None:
        """The next whole frame, or None until more bytes arrive. Raises FrameError; then the connection is useless."""
        data, start = self._data, self._offset
        available = len(data) - start
        if available < _LENGTH_SIZE_BYTES:
            return None
        (size,) = _LENGTH.unpack_from(data, start)
        if not _OVERHEAD_SIZE_BYTES <= size <= self.frame_size_bytes_max:
            raise FrameError(f"a frame of {size} bytes was announced, the limit is {self.frame_size_bytes_max}")
        payload_start, end = start + _HEAD_SIZE_BYTES, start + _LENGTH_SIZE_BYTES + size
        if available < _HEAD_SIZE_BYTES:
            return None
        if not self._head_is_sound:
            (check,) = _CHECK.unpack_from(data, start + _START.size)
            if check != zlib.crc32(bytes(data[start : start + _START.size])):
                raise DamagedHeadError
            self._head_is_sound = True
        if len(data) < end:
            return None
        payload_end = end - _TAG_SIZE_BYTES
        with memoryview(data) as view:
            head = bytes(view[start:payload_start])
            payload = bytes(view[payload_start:payload_end])
            tag = bytes(view[payload_end:end])
        if not hmac.compare_digest(tag, self.integrity.tag(head, payload)):
            raise FrameError("a frame was damaged, repeated, left out, or made without the session's key")
        self._offset, self._head_is_sound = end, False
        return Frame(head[_LENGTH_SIZE_BYTES], payload)

"""What the targets of files share: an input is a list of changes to a good file, since SQLite's pages are not guessed."""

from __future__ import annotations

_OFFSET_SIZE_BYTES = 3
_HEAD_SIZE_BYTES = _OFFSET_SIZE_BYTES + 1
_CUT = 0


def changed(good: bytes, changes: bytes) -> bytes:
    """The good file with each change: three bytes of offset, one of length, what stands there; length 0 cuts it off."""
    data = bytearray(good)
    while len(changes) >= _HEAD_SIZE_BYTES:
        offset = int.from_bytes(changes[:_OFFSET_SIZE_BYTES], "big") % (len(good) + 1)
        length = changes[_OFFSET_SIZE_BYTES]
        if length == _CUT:
            del data[offset:]
        else:
            data[offset : offset + length] = changes[_HEAD_SIZE_BYTES : _HEAD_SIZE_BYTES + length]
        changes = changes[_HEAD_SIZE_BYTES + length :]
    return bytes(data)


def change(offset: int, content: bytes) -> bytes:
    """One change, as an input has it."""
    return offset.to_bytes(_OFFSET_SIZE_BYTES, "big") + bytes([len(content)]) + content

"""The lengths and numbers of protobuf's wire format, for what is encoded without protobuf's own messages. Pure."""

from __future__ import annotations


def varint(number: int) -> bytes:
    """A number from 0 on as protobuf writes it: seven bits a byte, the lowest first."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)

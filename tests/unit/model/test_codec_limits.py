"""The size of an encoded command at its limit and one byte past it."""

from __future__ import annotations

import pytest

from metasrv.model import commands as c
from metasrv.model.codec import decode_command, encode_command
from metasrv.model.errors import CodecError, TooLargeError
from metasrv.model.limits import COMMAND_SIZE_BYTES_MAX


def secret(size_bytes: int) -> c.SetClusterSecret:
    return c.SetClusterSecret("", bytes(size_bytes))


def test_a_command_at_and_past_its_size() -> None:
    around = len(encode_command(secret(2**20))) - 2**20
    largest = encode_command(secret(COMMAND_SIZE_BYTES_MAX - around))
    assert len(largest) == COMMAND_SIZE_BYTES_MAX
    assert decode_command(largest) == secret(COMMAND_SIZE_BYTES_MAX - around)
    with pytest.raises(TooLargeError, match=f"encoded command in bytes is {COMMAND_SIZE_BYTES_MAX + 1}, the limit is"):
        encode_command(secret(COMMAND_SIZE_BYTES_MAX - around + 1))


@pytest.mark.parametrize("node_id", [2**64, -(2**63) - 1])
def test_a_number_that_no_message_can_hold_is_a_codec_error(node_id: int) -> None:
    with pytest.raises(CodecError, match="the command cannot be encoded"):
        encode_command(c.RemoveNode(node_id))


@pytest.mark.parametrize("data", [b"", b"\x90", b"\x92\x07\x00", b"\x92\x04\xff", b"\x93\x04\x01\x02", b"\x92\x04\x01\0"])
def test_bytes_that_are_no_command_are_a_codec_error(data: bytes) -> None:
    with pytest.raises(CodecError, match="not a "):
        decode_command(data)

"""The mark file alone: it says what was synced last, or that it is damaged; never another value."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from metasrv.model.errors import DataDamagedError
from metasrv.raft.log.mark import FILE_SIZE_BYTES, MarkValue, decode_mark, encode_mark


@settings(max_examples=200, deadline=None)
@given(position=st.integers(0, FILE_SIZE_BYTES - 1), bit=st.integers(0, 7))
@example(position=0, bit=0)
@example(position=4096, bit=0)
def test_mark_never_reads_as_another_value(position: int, bit: int) -> None:
    older, newer = MarkValue(bytes(16), 6, 100), MarkValue(bytes(16), 7, 103)
    data = bytearray(encode_mark(older).ljust(4096, b"\x00") + encode_mark(newer).ljust(4096, b"\x00"))
    assert decode_mark("mark", bytes(data)) == newer
    data[position] ^= 1 << bit
    try:
        assert decode_mark("mark", bytes(data)) == newer
    except DataDamagedError:
        assert position % 4096 < len(encode_mark(newer))


def test_halves_of_different_logs_are_refused() -> None:
    halves = (MarkValue(bytes(16), 6, 100), MarkValue(b"x" * 16, 7, 103))
    with pytest.raises(DataDamagedError, match="different logs"):
        decode_mark("mark", b"".join(encode_mark(half).ljust(4096, b"\x00") for half in halves))

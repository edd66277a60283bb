"""The mark file alone: it says what was synced last, or that it is damaged; never another value."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from metasrv.model.errors import DataDamagedError
from metasrv.raft.log.mark import FILE_SIZE_BYTES, MarkValue, decode_mark, encode_mark

EARLIER_SIZE_BYTES = 52
"""What an earlier release writes of a half."""


@settings(max_examples=200, deadline=None)
@given(position=st.integers(0, FILE_SIZE_BYTES - 1), bit=st.integers(0, 7))
@example(position=0, bit=0)
@example(position=4096, bit=0)
def test_mark_never_reads_as_another_value(position: int, bit: int) -> None:
    older, newer = MarkValue(bytes(16), 6, 100, 5), MarkValue(bytes(16), 7, 103, 5)
    data = bytearray(encode_mark(older).ljust(4096, b"\x00") + encode_mark(newer).ljust(4096, b"\x00"))
    assert decode_mark("mark", bytes(data)) == newer
    data[position] ^= 1 << bit
    # What an earlier release does not know is not missed where it is damaged.
    without = (newer,) if position - 4096 < EARLIER_SIZE_BYTES else (newer, newer._replace(meta_written=0))
    try:
        assert decode_mark("mark", bytes(data)) in without
    except DataDamagedError:
        assert position % 4096 < len(encode_mark(newer))


def test_halves_of_different_logs_are_refused() -> None:
    halves = (MarkValue(bytes(16), 6, 100, 5), MarkValue(b"x" * 16, 7, 103, 5))
    with pytest.raises(DataDamagedError, match="different logs"):
        decode_mark("mark", b"".join(encode_mark(half).ljust(4096, b"\x00") for half in halves))


def test_mark_of_an_earlier_release_does_not_know_when_term_and_vote_changed() -> None:
    value = MarkValue(bytes(16), 7, 103, 5)
    earlier = encode_mark(value)[:EARLIER_SIZE_BYTES].ljust(4096, b"\x00")
    assert decode_mark("mark", earlier * 2) == value._replace(meta_written=0)


def test_what_an_earlier_release_writes_over_a_half_counts() -> None:
    half = bytearray(encode_mark(MarkValue(bytes(16), 7, 103, 5)).ljust(4096, b"\x00"))
    half[:EARLIER_SIZE_BYTES] = encode_mark(MarkValue(bytes(16), 8, 104, 8))[:EARLIER_SIZE_BYTES]
    assert decode_mark("mark", bytes(half) * 2) == MarkValue(bytes(16), 8, 104, 0)

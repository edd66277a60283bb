"""Frames: any split of the bytes gives the same frames, and nothing but those frames is taken (invariants 7 and 10)."""

from __future__ import annotations

import itertools
import pickle
import random
import struct
import time
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metasrv.model.errors import FrameError, TooLargeError
from metasrv.model.limits import FRAME_SIZE_BYTES_MAX, HELLO_SIZE_BYTES_MAX
from metasrv.raft.peers.frames import (
    PAYLOAD_SIZE_BYTES_MAX,
    ChecksumIntegrity,
    Frame,
    FrameKind,
    FrameReader,
    Integrity,
    KeyedIntegrity,
    frame_parts,
)

KEY = b"k" * 32
OVERHEAD_SIZE_BYTES = 13
HEAD_SIZE_BYTES = 9

integrities = st.sampled_from([ChecksumIntegrity, lambda: KeyedIntegrity(KEY)])
frame_lists = st.lists(st.tuples(st.sampled_from(list(FrameKind)), st.binary(max_size=300)), max_size=8)


def encoded(frames: list[tuple[FrameKind, bytes]], integrity: Integrity) -> bytes:
    return b"".join(part for kind, payload in frames for part in frame_parts(kind, payload, integrity))


def read_all(reader: FrameReader) -> list[Frame]:
    frames = []
    while (frame := reader.next_frame()) is not None:
        frames.append(frame)
    return frames


def read(data: bytes, integrity: Integrity, limit: int = FRAME_SIZE_BYTES_MAX) -> list[Frame]:
    reader = FrameReader(integrity, limit)
    reader.feed(data)
    return read_all(reader)


@given(frame_lists, integrities, st.lists(st.integers(min_value=0, max_value=3000), max_size=12))
def test_any_split_of_the_bytes_gives_the_same_frames(
    frames: list[tuple[FrameKind, bytes]], make_integrity: Callable[[], Integrity], cuts: list[int]
) -> None:
    data = encoded(frames, make_integrity())
    reader = FrameReader(make_integrity(), FRAME_SIZE_BYTES_MAX)
    got: list[Frame] = []
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for start, end in itertools.pairwise(edges):
        reader.feed(data[start:end])
        got += read_all(reader)
    assert [(frame.kind, frame.payload) for frame in got] == frames
    assert all(type(frame.payload) is bytes for frame in got)


@given(frame_lists, integrities)
def test_one_byte_at_a_time_gives_the_same_frames(
    frames: list[tuple[FrameKind, bytes]], make_integrity: Callable[[], Integrity]
) -> None:
    reader = FrameReader(make_integrity(), FRAME_SIZE_BYTES_MAX)
    got: list[Frame] = []
    for byte in encoded(frames, make_integrity()):
        reader.feed(bytes([byte]))
        got += read_all(reader)
    assert [(frame.kind, frame.payload) for frame in got] == frames


@given(st.binary(max_size=2000), integrities)
def test_random_bytes_are_refused_or_wait_for_more(data: bytes, make_integrity: Callable[[], Integrity]) -> None:
    try:
        frames = read(data, make_integrity(), HELLO_SIZE_BYTES_MAX)
    except FrameError:
        return
    assert frames == []


@given(st.data(), integrities)
def test_a_changed_bit_is_noticed(data: st.DataObject, make_integrity: Callable[[], Integrity]) -> None:
    good = encoded([(FrameKind.RAFT, b"payload"), (FrameKind.RAFT, b"another")], make_integrity())
    position = data.draw(st.integers(min_value=0, max_value=len(good) * 8 - 1))
    bad = bytearray(good)
    bad[position // 8] ^= 1 << position % 8
    reader = FrameReader(make_integrity(), FRAME_SIZE_BYTES_MAX)
    reader.feed(bytes(bad))
    try:
        frames = read_all(reader)
    except FrameError:
        return
    assert len(frames) < 2, "the changed frame was taken"


@pytest.mark.parametrize("make_integrity", [ChecksumIntegrity, lambda: KeyedIntegrity(KEY)])
def test_repeated_left_out_and_swapped_frames_are_noticed(make_integrity: Callable[[], Integrity]) -> None:
    integrity = make_integrity()
    first, second, third = (encoded([(FrameKind.RAFT, bytes([number]))], integrity) for number in range(3))
    assert len(read(first + second + third, make_integrity())) == 3
    for wrong in (first + first, first + third, second + first, second):
        with pytest.raises(FrameError, match="repeated"):
            read(wrong, make_integrity())


def test_a_frame_of_another_key_or_of_none_is_refused() -> None:
    for wrong in (KeyedIntegrity(b"o" * 32), ChecksumIntegrity()):
        with pytest.raises(FrameError):
            read(encoded([(FrameKind.RAFT, b"x")], wrong), KeyedIntegrity(KEY))


@pytest.mark.parametrize("limit", [HELLO_SIZE_BYTES_MAX, FRAME_SIZE_BYTES_MAX])
def test_a_length_at_the_limit_is_taken_and_one_past_it_is_refused_at_once(limit: int) -> None:
    payload = bytes(limit - OVERHEAD_SIZE_BYTES)
    frames = [(FrameKind.RAFT, payload)]
    assert read(encoded(frames, ChecksumIntegrity()), ChecksumIntegrity(), limit) == frames
    with pytest.raises(FrameError, match=f"a frame of {limit + 1} bytes was announced, the limit is {limit}"):
        read(struct.pack(">I", limit + 1), ChecksumIntegrity(), limit)


@pytest.mark.parametrize("size", [0, 1, OVERHEAD_SIZE_BYTES - 1, 2**31, 2**32 - 1])
def test_impossible_lengths_are_refused_from_their_four_bytes(size: int) -> None:
    with pytest.raises(FrameError, match=f"a frame of {size} bytes"):
        read(struct.pack(">I", size), ChecksumIntegrity())


@pytest.mark.parametrize("bit", range(8 * HEAD_SIZE_BYTES))
def test_a_damaged_head_is_noticed_before_anybody_waits_for_its_length(bit: int) -> None:
    """A flipped bit may announce megabytes that nobody sent: a quiet connection would wait for them for hours."""
    data = bytearray(encoded([(FrameKind.RAFT, b"x" * 100)], ChecksumIntegrity()))
    data[bit // 8] ^= 1 << bit % 8
    with pytest.raises(FrameError):
        read(bytes(data[:HEAD_SIZE_BYTES]), ChecksumIntegrity())


def test_the_smallest_frame_is_an_empty_payload() -> None:
    assert read(encoded([(FrameKind.RAFT, b"")], ChecksumIntegrity()), ChecksumIntegrity()) == [(FrameKind.RAFT, b"")]


def test_a_payload_past_the_limit_is_not_sent_and_the_connection_stays_usable() -> None:
    integrity = ChecksumIntegrity()
    assert len(frame_parts(FrameKind.RAFT, bytes(PAYLOAD_SIZE_BYTES_MAX), integrity)[1]) == PAYLOAD_SIZE_BYTES_MAX
    with pytest.raises(TooLargeError, match=f"the limit is {PAYLOAD_SIZE_BYTES_MAX}"):
        frame_parts(FrameKind.RAFT, bytes(PAYLOAD_SIZE_BYTES_MAX + 1), integrity)
    after = b"".join(frame_parts(FrameKind.RAFT, b"next", integrity))
    reader_integrity = ChecksumIntegrity()
    reader_integrity.tag(b"", b"")
    assert read(after, reader_integrity) == [(FrameKind.RAFT, b"next")]


class Explosive:
    def __reduce__(self) -> Any:
        return (pytest.fail, ("a payload was unpickled",))


@pytest.mark.parametrize("bomb", [pickle.dumps(Explosive()), zlib.compress(bytes(10_000_000), 9)])
def test_pickle_and_zlib_bombs_are_only_bytes(bomb: bytes) -> None:
    assert read(encoded([(FrameKind.RAFT, bomb)], ChecksumIntegrity()), ChecksumIntegrity()) == [(FrameKind.RAFT, bomb)]


def test_a_truncated_frame_waits_and_keeps_no_more_than_it_got() -> None:
    data = encoded([(FrameKind.RAFT, b"x" * 1000)], ChecksumIntegrity())
    reader = FrameReader(ChecksumIntegrity(), FRAME_SIZE_BYTES_MAX)
    reader.feed(data[:-1])
    assert reader.next_frame() is None
    reader.feed(data[-1:])
    assert reader.next_frame() == (FrameKind.RAFT, b"x" * 1000)


def test_the_limit_and_the_integrity_may_change_between_two_frames_of_one_read() -> None:
    hello = encoded([(FrameKind.HELLO, b"hello")], ChecksumIntegrity())
    large = bytes(HELLO_SIZE_BYTES_MAX)
    rest = encoded([(FrameKind.RAFT, large)], KeyedIntegrity(KEY))
    reader = FrameReader(ChecksumIntegrity(), HELLO_SIZE_BYTES_MAX)
    reader.feed(hello + rest)
    assert reader.next_frame() == (FrameKind.HELLO, b"hello")
    reader.integrity, reader.frame_size_bytes_max = KeyedIntegrity(KEY), FRAME_SIZE_BYTES_MAX
    assert reader.next_frame() == (FrameKind.RAFT, large)


def test_a_large_frame_in_small_reads_is_not_copied_at_every_read() -> None:
    """Copying what is there at each of 9,000 reads would move 160 GiB, half a minute of work; it takes some 0.1 s."""
    payload = random.Random(1).randbytes(PAYLOAD_SIZE_BYTES_MAX)
    data = encoded([(FrameKind.RAFT, payload)], ChecksumIntegrity())
    reader = FrameReader(ChecksumIntegrity(), FRAME_SIZE_BYTES_MAX)
    started = time.process_time()
    for start in range(0, len(data), 4096):
        assert reader.next_frame() is None
        reader.feed(data[start : start + 4096])
    assert reader.next_frame() == (FrameKind.RAFT, payload)
    assert time.process_time() - started < 3

"""Raft messages on the wire: what is sent comes back, anything else is refused (invariant 7)."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metasrv.model.errors import CodecError
from metasrv.model.wire import pack
from metasrv.raft.core.messages import (
    AppendEntries,
    AppendReply,
    HigherTerm,
    LeaderPing,
    LeaderSeen,
    Message,
    PreVote,
    PreVoteGranted,
    RequestVote,
    SnapshotChunk,
    TimeoutNow,
    VoteGranted,
    decode_message,
    encode_message,
)

EXAMPLES: list[Message] = [
    AppendEntries(3, 9, 7, 2, ((b"\x00a", 8, 3), (b"\x00b", 9, 3)), 4),
    AppendEntries(3, 9, 7, 2, (), 0),
    AppendReply(3, 10, True, False, 4),
    LeaderPing(3, 1),
    LeaderSeen(3, 1),
    RequestVote(4, 9, 3, True),
    VoteGranted(4),
    PreVote(5, 9, 3),
    PreVoteGranted(5),
    HigherTerm(8),
    TimeoutNow(8),
    SnapshotChunk(3, 1, "ab", 0, 100, "ff", b"data"),
]


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: type(message).__name__)
def test_a_message_comes_back_as_it_was(message: Message) -> None:
    again = decode_message(encode_message(message))
    assert again == message
    assert type(again) is type(message)


@pytest.mark.parametrize(
    "tree",
    [
        (),
        (99, 1),
        (-1, 1),
        ("0", 1),
        (6, -1),
        (6, True),
        (6, 1, 2),
        (9, 2**63),
        (0, 2**63, 9, 7, 2, (), 4),
        (0, 3, 9, 7, 2, ((b"\x00a", 8, 2**63),), 4),
        (1, 3, 10, 1, False, 4),
        (0, 3, 9, 7, 2, ((b"\x00a", 9, 3),), 4),
        (0, 3, 9, 7, 2, ((b"", 8, 3),), 4),
        (0, 3, 9, 7, 2, (("text", 8, 3),), 4),
        (0, 3, 9, 7, 2, ((b"\x00a", 8),), 4),
        (10, 3, 1, b"ab", 0, 100, "ff", b"data"),
    ],
)
def test_what_does_not_follow_the_schema_is_refused(tree: object) -> None:
    with pytest.raises(CodecError):
        decode_message(pack(tree))


@given(st.binary(max_size=200))
def test_random_bytes_are_refused_or_are_a_message(data: bytes) -> None:
    try:
        message = decode_message(data)
    except CodecError:
        return
    assert decode_message(encode_message(message)) == message


def test_a_pickle_is_just_bytes_that_are_refused() -> None:
    with pytest.raises(CodecError):
        decode_message(pickle.dumps({"type": "append_entries"}))

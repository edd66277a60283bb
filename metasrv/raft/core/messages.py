"""Raft messages between nodes: named tuples here, msgpack arrays on the wire (explicit schema, never pickle).

The engine speaks dictionaries; `translation.py` turns them into these and back. What the engine lacks (terms on
acknowledgements, rounds for read index, pre-votes) is added by `translation.py` and `guards.py`. Any change here is a new
`PROTOCOL_VERSION` (`peers/handshake.py`). Runs on the event loop.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from metasrv.model.errors import CodecError
from metasrv.model.wire import byte_string, pack, string, unpack, unsigned
from metasrv.raft.log.format import NUMBER_MAX, LogEntry


class AppendEntries(NamedTuple):
    """The leader's entries, or its heartbeat when there are none (Raft figure 2)."""

    term: int
    commit_index: int
    previous_index: int
    previous_term: int
    entries: tuple[LogEntry, ...]
    round: int
    """Round of leadership confirmation (read index); the follower returns the newest it has seen."""


class AppendReply(NamedTuple):
    """Answer to AppendEntries. `reset` asks the leader to go on from `next_index`."""

    term: int
    next_index: int
    success: bool
    reset: bool
    round: int


class LeaderPing(NamedTuple):
    """The leader lives, but has nothing for this follower yet (it prepares a snapshot)."""

    term: int
    round: int


class LeaderSeen(NamedTuple):
    """A follower recognises the leader of `term`, without saying anything about its log."""

    term: int
    round: int


class RequestVote(NamedTuple):
    term: int
    last_index: int
    last_term: int
    transfer: bool
    """Asked for by the leader itself: nodes that hear a live leader answer too."""


class VoteGranted(NamedTuple):
    term: int


class PreVote(NamedTuple):
    """Asks whether the receiver would vote for the sender in `term`; changes nothing there (Raft thesis 9.6)."""

    term: int
    last_index: int
    last_term: int


class PreVoteGranted(NamedTuple):
    term: int


class HigherTerm(NamedTuple):
    """Answer to a message of an older term, so that a deposed or isolated node catches up."""

    term: int


class TimeoutNow(NamedTuple):
    """Leadership transfer: the receiver campaigns at once (Raft thesis 3.10)."""

    term: int


class SnapshotChunk(NamedTuple):
    """A piece of a snapshot file for a follower whose next entry is already purged."""

    term: int
    round: int
    transfer_id: str
    offset_bytes: int
    size_bytes: int
    """The whole file's size."""
    sha256: str
    """The whole file's digest, hexadecimal."""
    data: bytes


Message = (
    AppendEntries
    | AppendReply
    | LeaderPing
    | LeaderSeen
    | RequestVote
    | VoteGranted
    | PreVote
    | PreVoteGranted
    | HigherTerm
    | TimeoutNow
    | SnapshotChunk
)

_TYPES: tuple[type[Any], ...] = (
    AppendEntries,
    AppendReply,
    LeaderPing,
    LeaderSeen,
    RequestVote,
    VoteGranted,
    PreVote,
    PreVoteGranted,
    HigherTerm,
    TimeoutNow,
    SnapshotChunk,
)
_TAG = {kind: tag for tag, kind in enumerate(_TYPES)}
_FLAGS = frozenset(("success", "reset", "transfer"))
_TEXTS = frozenset(("transfer_id", "sha256"))


_ANSWERS = frozenset(_TAG[kind] for kind in (AppendReply, LeaderSeen, VoteGranted, PreVoteGranted, HigherTerm))


def is_answer(data: bytes | memoryview) -> bool:
    """Whether an encoded message is an acknowledgement or a vote, which only members may send; true for garbage too.

    Raft's requests are taken from anybody: whoever leads or campaigns may be a member by a configuration that the
    receiver does not have yet, or already has although it is not committed.
    """
    return len(data) < 2 or data[1] in _ANSWERS


def encode_message(message: Message) -> bytes:
    return pack((_TAG[type(message)], *message))


def decode_message(data: bytes | memoryview) -> Message:
    """The message in `data`; raises CodecError for anything that does not follow the schema."""
    try:
        tag, *fields = unpack(data)
        kind = _TYPES[unsigned(tag)]
        if kind is AppendEntries:
            term, commit_index, previous_index, previous_term, entries, round_ = fields
            return AppendEntries(
                _position(term),
                _position(commit_index),
                _position(previous_index),
                _position(previous_term),
                _entries(entries, previous_index),
                _position(round_),
            )
        if len(fields) != len(kind._fields):
            raise ValueError(f"{kind.__name__} has {len(kind._fields)} fields, not {len(fields)}")
        message: Message = kind(*map(_field, kind._fields, fields))
        return message
    except (TypeError, ValueError, LookupError) as error:
        raise CodecError(f"not a raft message: {error}") from error


def _entries(tree: Any, previous_index: int) -> tuple[LogEntry, ...]:
    expected_index = previous_index
    for content, index, term in tree:
        expected_index += 1
        if type(content) is not bytes or not content or index != expected_index or unsigned(term) > NUMBER_MAX:
            raise ValueError("entries are not contiguous after the previous index")
    checked: tuple[LogEntry, ...] = tree
    return checked


def _position(value: Any) -> int:
    """A term, index, round or size: within what the log can store."""
    if unsigned(value) > NUMBER_MAX:
        raise ValueError(f"{value} is past {NUMBER_MAX}")
    return int(value)


def _field(name: str, value: Any) -> Any:
    if name in _FLAGS:
        if type(value) is not bool:
            raise TypeError(f"{name} is not a boolean")
        return value
    if name in _TEXTS:
        return string(value)
    if name == "data":
        return byte_string(value)
    return _position(value)

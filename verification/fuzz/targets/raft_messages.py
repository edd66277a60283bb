"""What frames between nodes carry, and what stands in rows of the log: every decoder refuses with its own error.

What is understood is encoded and decoded again, and must be the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from metasrv.model import codec, entries
from metasrv.model.errors import CodecError, PeerError, TooLargeError
from metasrv.model.types import Endpoint, Member, Membership
from metasrv.raft.core import messages as m
from metasrv.raft.peers.handshake import AcceptorHandshake, DiallerHandshake, LocalIdentity, Role, decode_refusal
from metasrv.raft.peers.security import PeerSecurity
from metasrv.raft.peers.wire_errors import decode_error, encode_error
from verification.fuzz.catalogue import CORPUS
from verification.fuzz.target import Target


class _Decoder(NamedTuple):
    decode: Callable[[bytes], Any]
    encode: Callable[[Any], bytes] | None = None


def _greet(payload: bytes) -> object:
    identity = LocalIdentity(2, "data", Endpoint("host", 1), "c1")
    return AcceptorHandshake(identity, PeerSecurity(b"secret"), b"a" * 32).greeted(payload)


def _challenge(payload: bytes) -> object:
    identity = LocalIdentity(1, "data", Endpoint("host", 1), "c1")
    return DiallerHandshake(identity, PeerSecurity(b"secret"), Role.PEER, b"d" * 32).challenged(payload)


def _encode_entry(entry: entries.Entry) -> bytes:
    if isinstance(entry, entries.RegularEntry):
        commands = [codec.encode_command(command) for command in entry.commands]
        return entries.encode_regular_entry(entry.time_ms, entry.leader_id, commands)
    if isinstance(entry, entries.NoopEntry):
        return entries.encode_noop_entry(entry.leader_id)
    return entries.encode_membership_entry(entry.leader_id, entry.before, entry.after)


_DECODERS = (
    _Decoder(m.decode_message, m.encode_message),
    _Decoder(entries.decode_entry, _encode_entry),
    _Decoder(codec.decode_command, codec.encode_command),
    _Decoder(codec.decode_reply, codec.encode_reply),
    _Decoder(decode_error),
    _Decoder(decode_refusal),
    _Decoder(_greet),
    _Decoder(_challenge),
    _Decoder(m.is_answer),
    _Decoder(entries.time_ms_of),
)


def _run(data: bytes) -> None:
    if not data:
        return
    decoder = _DECODERS[data[0] % len(_DECODERS)]
    try:
        value = decoder.decode(data[1:])
    except (CodecError, PeerError):
        return
    if decoder.encode is not None:
        try:
            again = decoder.encode(value)
        except TooLargeError:
            return
        # As texts, because a number that is no number differs from itself.
        if repr(decoder.decode(again)) != repr(value):
            raise AssertionError(f"{value!r} became {decoder.decode(again)!r}")


_MEMBERS = Membership({1: Member(Endpoint("host", 28103), "data-1")}, {})
_KEPT_BYTES = CORPUS.parent / "wire" / "format-1.txt"
"""A command or a reply of every kind, in hexadecimal."""
_SAMPLES = [
    bytes.fromhex(line.rpartition(": ")[2])
    for line in _KEPT_BYTES.read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
]
_MESSAGES: tuple[m.Message, ...] = (
    m.AppendEntries(3, 7, 8, 2, ((b"\1\1\x91\1", 9, 3),), 5),
    m.AppendReply(3, 9, True, False, 5),
    m.LeaderPing(3, 5),
    m.RequestVote(3, 9, 2, False),
    m.VoteGranted(3),
    m.SnapshotChunk(3, 5, "transfer", 0, 4, "ab" * 32, b"data"),
)
TARGET = Target(
    "raft_messages",
    _run,
    (
        *(b"\0" + m.encode_message(message) for message in _MESSAGES),
        *(b"\1" + entries.encode_regular_entry(1, 1, [sample]) for sample in _SAMPLES),
        b"\1" + entries.encode_noop_entry(1),
        b"\1" + entries.encode_membership_entry(1, Membership(), _MEMBERS),
        *(bytes([number]) + sample for number in (2, 3) for sample in _SAMPLES),
        b"\4" + encode_error(TooLargeError("a key", 2, 1)),
        *(bytes([number]) + b"\x93\x01\x02\x03" for number in range(len(_DECODERS))),
    ),
)

"""The log entry: what stands in one row of the raft log (msgpack, explicit schema, versioned).

An entry is one byte of kind (the engine's own numbering, so that it can tell a no-op from a membership change),
one byte of format version, and a msgpack array:

    regular     [time_ms, leader_id, [command, ...]]     commands are embedded as they were encoded
    no-op       [leader_id]
    membership  [leader_id, before, after]               each [{id: [host, port, incarnation]}, {...learners}]

Runs on the event loop, once per entry and node.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgpack

from metasrv.model import commands as c
from metasrv.model.codec import command_from_tree
from metasrv.model.errors import CodecError
from metasrv.model.types import Endpoint, Member, Membership
from metasrv.model.wire import mapping, pack, string, unpack, unsigned

FORMAT_VERSION = 1

KIND_REGULAR = 0
KIND_NOOP = 1
KIND_MEMBERSHIP = 2

_HEAD_SIZE_BYTES_MAX = 24
"""The head of an array and two numbers."""
_FIRST_ENTRY = bytes((KIND_NOOP,))
"""The engine's own first entry, the same on every node."""
_PREFIX_REGULAR = bytes((KIND_REGULAR, FORMAT_VERSION))
_PREFIX_NOOP = bytes((KIND_NOOP, FORMAT_VERSION))
_PREFIX_MEMBERSHIP = bytes((KIND_MEMBERSHIP, FORMAT_VERSION))


class RegularEntry(NamedTuple):
    time_ms: int
    leader_id: int
    commands: tuple[c.Command, ...]


class NoopEntry(NamedTuple):
    leader_id: int


class MembershipEntry(NamedTuple):
    leader_id: int
    before: Membership
    after: Membership


Entry = RegularEntry | NoopEntry | MembershipEntry


_packer = msgpack.Packer(use_bin_type=True)


def encode_regular_entry(time_ms: int, leader_id: int, commands: Sequence[bytes]) -> bytes:
    """One log entry of commands that are already encoded; their bytes are embedded as they are."""
    header = b"\x93" + pack(time_ms) + pack(leader_id) + _packer.pack_array_header(len(commands))
    return b"".join((_PREFIX_REGULAR, header, *commands))


def time_ms_of(data: bytes) -> int | None:
    """The log time of an encoded entry, None for those that have none; looks at its head only."""
    if data[:2] != _PREFIX_REGULAR:
        return None
    unpacker = msgpack.Unpacker(max_buffer_size=_HEAD_SIZE_BYTES_MAX)
    unpacker.feed(memoryview(data)[2 : 2 + _HEAD_SIZE_BYTES_MAX])
    try:
        unpacker.read_array_header()
        return unsigned(unpacker.unpack())
    except (TypeError, ValueError, msgpack.OutOfData) as error:
        raise CodecError(f"not a log entry: {error}") from error


def leader_id_of(data: bytes) -> int:
    """The leader that wrote an encoded entry; looks at its head only. Raises CodecError."""
    if data == _FIRST_ENTRY:
        return 0
    unpacker = msgpack.Unpacker(max_buffer_size=_HEAD_SIZE_BYTES_MAX)
    unpacker.feed(memoryview(data)[2 : 2 + _HEAD_SIZE_BYTES_MAX])
    try:
        unpacker.read_array_header()
        if data[0] == KIND_REGULAR:
            unpacker.unpack()  # the time
        return unsigned(unpacker.unpack())
    except (IndexError, TypeError, ValueError, msgpack.OutOfData) as error:
        raise CodecError(f"not a log entry: {error}") from error


def encode_noop_entry(leader_id: int) -> bytes:
    return _PREFIX_NOOP + pack((leader_id,))


def encode_membership_entry(leader_id: int, before: Membership, after: Membership) -> bytes:
    return _PREFIX_MEMBERSHIP + pack((leader_id, membership_to_tree(before), membership_to_tree(after)))


def decode_entry(data: bytes) -> Entry:
    """The entry in `data`; raises CodecError, also for a format version this build does not know."""
    if data == _FIRST_ENTRY:
        return NoopEntry(0)
    if len(data) < 2:
        raise CodecError("a log entry is shorter than its header")
    kind, version = data[0], data[1]
    if version != FORMAT_VERSION:
        raise CodecError(f"log entry format {version} is not known to this version of metasrv")
    tree = unpack(memoryview(data)[2:])
    try:
        if kind == KIND_REGULAR:
            time_ms, leader_id, commands = tree
            return RegularEntry(unsigned(time_ms), unsigned(leader_id), tuple(map(command_from_tree, commands)))
        if kind == KIND_NOOP:
            (leader_id,) = tree
            return NoopEntry(unsigned(leader_id))
        if kind == KIND_MEMBERSHIP:
            leader_id, before, after = tree
            return MembershipEntry(unsigned(leader_id), membership_from_tree(before), membership_from_tree(after))
    except (TypeError, ValueError) as error:
        raise CodecError(f"not a log entry: {error}") from error
    raise CodecError(f"log entry kind {kind} is not known to this version of metasrv")


def membership_to_tree(membership: Membership) -> Any:
    """A msgpack tree of a membership."""
    return tuple(
        {node_id: (*member.endpoint, member.incarnation) for node_id, member in group.items()}
        for group in (membership.voters, membership.learners)
    )


def membership_from_tree(tree: Any) -> Membership:
    """The inverse of `membership_to_tree`; raises TypeError or ValueError."""
    voters, learners = (
        {
            unsigned(node_id): Member(Endpoint(string(host), unsigned(port)), string(incarnation))
            for node_id, (host, port, incarnation) in sorted(mapping(group).items())
        }
        for group in tree
    )
    return Membership(voters, learners)

"""Commands, replies and log entries keep their bytes: those of format 1 were recorded once and are compared for good."""

from __future__ import annotations

import pytest

from metasrv.model.codec import decode_command, decode_reply, encode_command, encode_reply
from metasrv.model.entries import (
    Entry,
    MembershipEntry,
    RegularEntry,
    decode_entry,
    encode_membership_entry,
    encode_noop_entry,
    encode_regular_entry,
)
from tests.support.paths import TESTS
from tests.support.wire_samples import COMMANDS, ENTRIES, REPLIES

RECORDED = TESTS / "data" / "wire" / "format-1.txt"


def recorded() -> dict[str, bytes]:
    """Bytes by the name of their sample."""
    lines = [line.split(": ") for line in RECORDED.read_text(encoding="ascii").splitlines() if line[:1] != "#"]
    return {name: bytes.fromhex(digits) for name, digits in lines}


def encode_entry(entry: Entry) -> bytes:
    if isinstance(entry, RegularEntry):
        return encode_regular_entry(entry.time_ms, entry.leader_id, [encode_command(each) for each in entry.commands])
    if isinstance(entry, MembershipEntry):
        return encode_membership_entry(entry.leader_id, entry.before, entry.after)
    return encode_noop_entry(entry.leader_id)


def encoded_samples() -> dict[str, bytes]:
    return {
        **{name: encode_command(command) for name, command in COMMANDS.items()},
        **{name: encode_reply(reply) for name, reply in REPLIES.items()},
        **{name: encode_entry(entry) for name, entry in ENTRIES.items()},
    }


def same(decoded: object, sample: object) -> bool:
    """Equal, and of the same types all through: named tuples and enumerations equal plain tuples and numbers."""
    return decoded == sample and repr(decoded) == repr(sample)


def test_every_sample_is_recorded_once() -> None:
    assert list(recorded()) == [*COMMANDS, *REPLIES, *ENTRIES]


@pytest.mark.parametrize("name", [*COMMANDS, *REPLIES, *ENTRIES])
def test_encoding_gives_the_recorded_bytes(name: str) -> None:
    assert encoded_samples()[name] == recorded()[name]


@pytest.mark.parametrize("name", COMMANDS)
def test_recorded_commands_are_understood(name: str) -> None:
    assert same(decode_command(recorded()[name]), COMMANDS[name])


@pytest.mark.parametrize("name", REPLIES)
def test_recorded_replies_are_understood(name: str) -> None:
    assert same(decode_reply(recorded()[name]), REPLIES[name])


@pytest.mark.parametrize("name", ENTRIES)
def test_recorded_entries_are_understood(name: str) -> None:
    assert same(decode_entry(recorded()[name]), ENTRIES[name])

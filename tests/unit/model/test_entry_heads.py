"""What is read from the head of an encoded entry without decoding the rest."""

from __future__ import annotations

import pytest

from metasrv.model.entries import (
    KIND_NOOP,
    decode_entry,
    encode_membership_entry,
    encode_noop_entry,
    encode_regular_entry,
    leader_id_of,
    time_ms_of,
)
from metasrv.model.errors import CodecError
from metasrv.model.types import I64_MAX, Membership

LARGE = 2**63 - 1


@pytest.mark.parametrize("leader_id", [0, 1, 127, 128, 65_536, LARGE])
@pytest.mark.parametrize("time_ms", [0, 1_800_000_000_000, I64_MAX])
def test_leader_and_time_of_every_kind(leader_id: int, time_ms: int) -> None:
    regular = encode_regular_entry(time_ms, leader_id, [])
    assert (leader_id_of(regular), time_ms_of(regular)) == (leader_id, time_ms)
    for entry in (encode_noop_entry(leader_id), encode_membership_entry(leader_id, Membership(), Membership())):
        assert (leader_id_of(entry), time_ms_of(entry)) == (leader_id, None)
        assert decode_entry(entry).leader_id == leader_id


def test_the_first_entry_of_a_log_has_no_leader() -> None:
    assert leader_id_of(bytes((KIND_NOOP,))) == 0


@pytest.mark.parametrize("data", [b"", b"\x00", b"\x00\x01", b"\x00\x01\x93", b"\x01\x01\x91\xa1a", b"\x01\x01\x07"])
def test_what_is_no_entry_is_refused(data: bytes) -> None:
    with pytest.raises(CodecError):
        leader_id_of(data)

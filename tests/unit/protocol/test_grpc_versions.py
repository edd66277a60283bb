"""Version numbers of the handshake (docs/contract/grpc.md sections b.1 and b.3)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metasrv.config.model import Config
from metasrv.protocol.versions import MIN_CLIENT_VERSION, MIN_SERVER_VERSION, SERVER_VERSION, ProtocolVersion

EXAMPLES = {
    "1.2.676": 1002676,
    "260217.0.0": 260217000000,
    "260629.2.0": 260629002000,
    "260205.13.2": 260205013002,
}


@pytest.mark.parametrize(("text", "digit"), EXAMPLES.items())
def test_the_specified_examples(text: str, digit: int) -> None:
    version = ProtocolVersion.parse(text)
    assert version.digit == digit
    assert ProtocolVersion.from_digit(digit) == version
    assert str(version) == text


@given(st.integers(0, 999_999), st.integers(0, 999), st.integers(0, 999))
def test_digits_keep_order_and_come_back(major: int, minor: int, patch: int) -> None:
    version = ProtocolVersion(major, minor, patch)
    assert ProtocolVersion.from_digit(version.digit) == version
    assert ProtocolVersion.parse(str(version)) == version
    assert (version < SERVER_VERSION) == (version.digit < SERVER_VERSION.digit)


@pytest.mark.parametrize("text", ["", "1.2", "1.2.3.4", "1.2.x", "1.1000.0", "1.2.-3", "1.2.1000", "v1.2.3", "1.2.٣"])
def test_other_texts_are_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a version|above 999"):
        ProtocolVersion.parse(text)


def test_announced_versions() -> None:
    assert SERVER_VERSION == (260629, 2, 0)
    assert Config().grpc_announced_version == str(SERVER_VERSION)
    assert MIN_CLIENT_VERSION == (1, 2, 676)
    assert MIN_SERVER_VERSION <= SERVER_VERSION

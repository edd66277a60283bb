"""Stored passwords: made of a password, told from every other text, and cheap for nobody."""

from __future__ import annotations

import base64

import pytest

from metasrv.model.errors import InvalidRequestError, TooLargeError
from metasrv.model.limits import PASSWORD_SIZE_BYTES_MAX
from metasrv.model.passwords import check_hash, hash_password, is_password

# RFC 7914 section 12: scrypt("pleaseletmein", "SodiumChloride", 16384, 8, 1); the first 32 of its 64 bytes.
DIGEST = bytes.fromhex("7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2")
KNOWN = f"$scrypt$ln=14,r=8,p=1$U29kaXVtQ2hsb3JpZGU${base64.b64encode(DIGEST).rstrip(b'=').decode()}"


def test_a_password_is_known_again_and_no_other_is() -> None:
    stored = hash_password("sesame")
    check_hash(stored)
    assert "sesame" not in stored
    assert is_password("sesame", stored)
    assert not is_password("Sesame", stored)
    assert not is_password("", stored)
    assert hash_password("sesame") != stored, "each has a salt of its own"


def test_the_hash_is_that_of_the_standard() -> None:
    assert is_password("pleaseletmein", KNOWN)
    assert not is_password("pleaseletmeout", KNOWN)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sesame",
        "$scrypt$",
        KNOWN[:-1],
        f"{KNOWN}\n",
        KNOWN.replace("ln=14", "ln=11"),
        KNOWN.replace("ln=14", "ln=18"),
        KNOWN.replace("ln=14", "ln=40"),
        KNOWN.replace("r=8", "r=17"),
        KNOWN.replace("p=1", "p=5"),
        KNOWN.replace("p=1", "p=0"),
        KNOWN.replace("U29kaXVtQ2hsb3JpZGU", "U29kaXVtQ2hsb3JpZ"),
    ],
)
def test_other_texts_and_costs_are_refused(text: str) -> None:
    with pytest.raises(InvalidRequestError):
        check_hash(text)


def test_a_password_has_at_most_so_many_bytes() -> None:
    longest = "é" * (PASSWORD_SIZE_BYTES_MAX // 2)
    stored = hash_password(longest)
    assert is_password(longest, stored)
    assert not is_password(longest + "x", stored)
    with pytest.raises(TooLargeError):
        hash_password(longest + "x")
    with pytest.raises(InvalidRequestError, match="empty"):
        hash_password("")

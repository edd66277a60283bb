"""Tokens: a JWT that every node of the cluster takes and that nobody else can make."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metasrv.grpc_api.tokens import (
    TokenError,
    TokenSigner,
)
from metasrv.model.limits import TOKEN_LIFETIME_SECONDS_MAX, TOKEN_SIZE_BYTES_MAX, VERIFIED_TOKENS_MAX

SECRET = b"0123456789abcdef0123456789abcdef"
NOW = 1_700_000_000


def decode(part: bytes) -> dict[str, object]:
    value = json.loads(base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4)))
    assert isinstance(value, dict)
    return value


def test_a_token_is_a_jwt_with_the_claim() -> None:
    header, claims, signature = TokenSigner(SECRET, None).sign("root", NOW).split(b".")
    assert decode(header) == {"alg": "HS256", "typ": "JWT"}
    assert decode(claims)["username"] == "root"
    assert decode(claims)["exp"] == NOW + TOKEN_LIFETIME_SECONDS_MAX
    expected = hmac.new(SECRET, header + b"." + claims, hashlib.sha256).digest()
    assert base64.urlsafe_b64decode(signature + b"=") == expected


def test_a_token_of_one_node_is_good_on_another() -> None:
    token = TokenSigner(SECRET, None).sign("root", NOW)
    other = TokenSigner(SECRET, None)
    other.verify(token, NOW)
    other.verify(token, NOW + TOKEN_LIFETIME_SECONDS_MAX)
    with pytest.raises(TokenError, match="expired"):
        other.verify(token, NOW + TOKEN_LIFETIME_SECONDS_MAX + 1)


def test_another_cluster_or_password_makes_another_token() -> None:
    token = TokenSigner(SECRET, "open").sign("root", NOW)
    for signer in (TokenSigner(b"x" * 32, "open"), TokenSigner(SECRET, None), TokenSigner(SECRET, "closed")):
        with pytest.raises(TokenError, match="signature"):
            signer.verify(token, NOW)
    TokenSigner(SECRET, "open").verify(token, NOW)


@pytest.mark.parametrize("at", range(0, 120, 7))
def test_a_changed_byte_is_noticed(at: int) -> None:
    signer = TokenSigner(SECRET, None)
    token = bytearray(signer.sign("root", NOW))
    token[at % len(token)] ^= 1
    with pytest.raises(TokenError):
        signer.verify(bytes(token), NOW)


def test_the_algorithm_is_never_the_token_s_choice() -> None:
    none = base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=")
    claims = base64.urlsafe_b64encode(b'{"username":"root","exp":9999999999}').rstrip(b"=")
    with pytest.raises(TokenError):
        TokenSigner(SECRET, None).verify(none + b"." + claims + b".", NOW)


@pytest.mark.parametrize("claims", [b"{}", b'{"username":"root"}', b'{"username":1,"exp":9999999999}', b"[]", b"x"])
def test_claims_that_lack_something_are_refused_even_when_signed(claims: bytes) -> None:
    signed = b"e30." + base64.urlsafe_b64encode(claims).rstrip(b"=")
    signature = base64.urlsafe_b64encode(hmac.digest(SECRET, signed, "sha256")).rstrip(b"=")
    with pytest.raises(TokenError):
        TokenSigner(SECRET, None).verify(signed + b"." + signature, NOW)


@given(st.binary(max_size=300))
def test_any_bytes_end_in_a_token_error(token: bytes) -> None:
    with pytest.raises(TokenError):
        TokenSigner(SECRET, None).verify(token, NOW)


def test_a_token_at_and_past_the_size_limit() -> None:
    signer = TokenSigner(SECRET, None)
    with pytest.raises(TokenError, match="not a JWT"):
        signer.verify(b"x" * TOKEN_SIZE_BYTES_MAX, NOW)
    with pytest.raises(TokenError, match="limit"):
        signer.verify(b"x" * (TOKEN_SIZE_BYTES_MAX + 1), NOW)


def test_the_memory_of_verified_tokens_is_bounded() -> None:
    signer = TokenSigner(SECRET, None)
    for i in range(VERIFIED_TOKENS_MAX):
        signer.verify(signer.sign("root", NOW - i), NOW)
    assert len(signer._verified) == VERIFIED_TOKENS_MAX
    signer.verify(signer.sign("root", NOW + 1), NOW)
    assert len(signer._verified) == 1

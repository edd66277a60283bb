"""Tokens of the client API: JWT, HS256, claims for who it is (`username`, `generation`), good on every node.

docs/contract/grpc.md section b.5 has the rules. The signing key comes from a secret that the cluster replicates, so that
a token of one node holds on the others and over restarts. With a password configured the key depends on it: changing the
password ends all earlier tokens. A token that no password was asked for proves nothing and lives for ten years.
Knows nothing of gRPC. Runs on the event loop; a repeated token costs one dictionary look-up.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from typing import Any, NamedTuple

from metasrv.model.errors import MetasrvError
from metasrv.model.limits import TOKEN_LIFETIME_SECONDS_MAX, TOKEN_SIZE_BYTES_MAX, VERIFIED_TOKENS_MAX

_HEADER = {"alg": "HS256", "typ": "JWT"}


class TokenError(MetasrvError):
    """A token was not signed by this cluster, or is expired."""


class Claims(NamedTuple):
    """What a token says."""

    username: str
    expires_at: int
    """Seconds since the epoch."""
    generation: str | None = None
    """That of the user when it logged in (`model/users.py`); None for root."""


class TokenSigner:
    """Signs and verifies the tokens of one key."""

    def __init__(self, cluster_secret: bytes, password: str | None) -> None:
        """`cluster_secret` is the replicated secret; `password` the configured one, None when none is required."""
        self._key = cluster_secret
        if password is not None:
            self._key = hmac.digest(cluster_secret, b"password:" + password.encode(), "sha256")
        self._verified: dict[bytes, Claims] = {}

    def sign(
        self,
        username: str,
        now_seconds: int,
        lifetime_seconds: int = TOKEN_LIFETIME_SECONDS_MAX,
        generation: str | None = None,
    ) -> bytes:
        """A new token, as the bytes of its text."""
        claims: dict[str, str | int] = {
            "iat": now_seconds,
            "nbf": now_seconds,
            "exp": now_seconds + lifetime_seconds,
            "username": username,
        }
        if generation is not None:
            claims["generation"] = generation
        signed = _encode_json(_HEADER) + b"." + _encode_json(claims)
        return signed + b"." + _encode(self._signature(signed))

    def verify(self, token: bytes, now_seconds: float) -> Claims:
        """What a valid token says; raises TokenError with the reason for another one."""
        claims = self._verified.get(token)
        if claims is None:
            claims = self._verify_signature(token)
            if len(self._verified) >= VERIFIED_TOKENS_MAX:
                self._verified.clear()  # bounded; the few tokens in use are verified once more
            self._verified[token] = claims
        if claims.expires_at < now_seconds:
            raise TokenError("the token is expired")
        return claims

    def _verify_signature(self, token: bytes) -> Claims:
        if len(token) > TOKEN_SIZE_BYTES_MAX:
            raise TokenError(f"the token is {len(token)} bytes, the limit is {TOKEN_SIZE_BYTES_MAX}")
        parts = token.split(b".")
        if len(parts) != 3:
            raise TokenError("the token is not a JWT")
        # The signature is checked before anything inside is read: the token never chooses the algorithm.
        signed, _, signature = token.rpartition(b".")
        if not hmac.compare_digest(_encode(self._signature(signed)), signature):
            raise TokenError("the signature does not match")
        claims = _decode_json(parts[1])
        username, expires_at, generation = claims.get("username"), claims.get("exp"), claims.get("generation")
        if type(username) is not str or type(expires_at) is not int or type(generation) not in (str, type(None)):
            raise TokenError("the token lacks its claims")
        return Claims(username, expires_at, generation)

    def _signature(self, signed: bytes) -> bytes:
        return hmac.digest(self._key, signed, hashlib.sha256)


def _encode(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _encode_json(value: dict[str, Any]) -> bytes:
    return _encode(json.dumps(value, separators=(",", ":")).encode())


def _decode_json(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(base64.urlsafe_b64decode(data + b"=" * (-len(data) % 4)))
    except (binascii.Error, ValueError, RecursionError) as error:
        raise TokenError("the token does not hold JSON") from error
    if type(value) is not dict:
        raise TokenError("the token does not hold an object")
    return value

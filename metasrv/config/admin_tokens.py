"""Tokens of the admin API, from a file and from `admin_token`: who may read, who may operate.

Only digests of tokens are kept, and a comparison takes as long for a wrong token as for a right one. Must not know where
a token arrives. Reads one file, and may read it again; runs anywhere.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from enum import StrEnum
from hmac import compare_digest
from typing import NamedTuple

from metasrv.model.errors import ConfigError
from metasrv.model.limits import (
    ADMIN_TOKEN_CHARACTERS_MIN,
    ADMIN_TOKENS_FILE_SIZE_BYTES_MAX,
    ADMIN_TOKENS_MAX,
)

CONFIGURED_NAME = "admin_token"
"""The name of the token that stands in the configuration itself; nobody else may have it."""
NAME = re.compile(r"[A-Za-z0-9_.@-]{1,64}")
TOKEN = re.compile(r"[!-~]+")
"""What an HTTP header carries without escapes."""


class Scope(StrEnum):
    """What a caller may do; `operate` includes `read`."""

    READ = "read"
    OPERATE = "operate"

    def covers(self, needed: Scope) -> bool:
        """Whether a caller of this scope may do what needs the other."""
        return self is Scope.OPERATE or needed is Scope.READ


class Token(NamedTuple):
    """One token, without its text."""

    name: str
    scope: Scope
    digest: bytes
    """SHA-256 of the token's bytes."""


class Tokens:
    """Every token that is valid now."""

    def __init__(self, tokens: Iterable[Token] = ()) -> None:
        self._tokens = tuple(tokens)

    def __len__(self) -> int:
        return len(self._tokens)

    def with_configured(self, secret: str) -> Tokens:
        """These and one more, which may operate."""
        return Tokens((*self._tokens, Token(CONFIGURED_NAME, Scope.OPERATE, _digest(secret.encode()))))

    def find(self, given: bytes) -> Token | None:
        """The token that a caller gave. Compares with all of them, so that the time tells nothing."""
        digest, found = _digest(given), None
        for token in self._tokens:
            if compare_digest(digest, token.digest):
                found = token
        return found


def load(path: str) -> Tokens:
    """Read a file of lines `name:scope:token`; empty lines and those that begin with `#` count as nothing.

    Several lines may have one name, so that a new token is valid beside the old one. Raises ConfigError with a sentence
    for each mistake; none shows a token.
    """
    try:
        with open(path, "rb") as stream:
            content = stream.read(ADMIN_TOKENS_FILE_SIZE_BYTES_MAX + 1)
        text = content.decode("ascii")
    except OSError as error:
        raise ConfigError([f"`admin_tokens_file`: {path} cannot be read: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([f"`admin_tokens_file`: {path} is not ASCII text: byte {error.start} is wrong"]) from error
    except ValueError as error:  # a null character in the path
        raise ConfigError([f"`admin_tokens_file`: {path!r} is not a path: {error}"]) from error
    if len(content) > ADMIN_TOKENS_FILE_SIZE_BYTES_MAX:
        limit = ADMIN_TOKENS_FILE_SIZE_BYTES_MAX
        raise ConfigError([f"`admin_tokens_file`: {path} is larger than {limit} bytes, so it is no file of tokens"])
    tokens: list[Token] = []
    problems: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if stripped and not stripped.startswith("#"):
            try:
                tokens.append(_parse(stripped, tokens))
            except ValueError as error:
                problems.append(f"`admin_tokens_file`: {path} line {number}: {error}")
    if not tokens and not problems:
        problems.append(f"`admin_tokens_file`: {path} has no token; a line is `name:scope:token`")
    if len(tokens) > ADMIN_TOKENS_MAX:
        problems.append(f"`admin_tokens_file`: {path} has {len(tokens)} tokens, at most {ADMIN_TOKENS_MAX} are taken")
    if problems:
        raise ConfigError(problems)
    return Tokens(tokens)


def parse_scope(text: str) -> Scope:
    """Raises ValueError with a sentence."""
    try:
        return Scope(text)
    except ValueError:
        raise ValueError(f"the scope is {text!r}, it must be {' or '.join(Scope)}") from None


def _parse(line: str, before: Iterable[Token]) -> Token:
    """One line. Raises ValueError with a sentence that shows nothing of a token, nor of a line in another form."""
    name, colon, rest = line.partition(":")
    scope_text, other_colon, text = rest.partition(":")
    if not colon or not other_colon or scope_text not in set(Scope):
        raise ValueError(f"a line is `name:scope:token`, and a scope is {' or '.join(Scope)}")
    if not NAME.fullmatch(name) or name == CONFIGURED_NAME:
        raise ValueError("a name has 1 to 64 letters, digits or `_.@-`, and is not `admin_token`")
    if len(text) < ADMIN_TOKEN_CHARACTERS_MIN or not TOKEN.fullmatch(text):
        raise ValueError(
            f"the token of {name} must have at least {ADMIN_TOKEN_CHARACTERS_MIN} characters and no white space"
        )
    digest = _digest(text.encode())
    if any(other.digest == digest for other in before):
        raise ValueError(f"the token of {name} stands on an earlier line already")
    return Token(name, parse_scope(scope_text), digest)


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()

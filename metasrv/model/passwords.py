"""Passwords as they are stored: scrypt, in the form `$scrypt$ln=14,r=8,p=1$<salt>$<hash>`.

Computing one takes some 50 ms and 16 MiB, on purpose: whoever reads a stored password still has to guess it. So nothing
here may be called on an event loop. The costs stand in the text, within bounds, so that a text from outside can neither
be cheap to guess nor keep a node busy. Pure; runs on any thread.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from typing import NamedTuple

from metasrv.model.errors import InvalidRequestError, TooLargeError
from metasrv.model.limits import PASSWORD_SIZE_BYTES_MAX

PREFIX = "$scrypt$"
COST_LOG = 14
BLOCKS = 8
SALT_SIZE_BYTES = 16
HASH_SIZE_BYTES = 32
COST_LOG_MIN, COST_LOG_MAX = 12, 17
BLOCKS_MAX = 16
LANES_MAX = 4

_FORM = re.compile(r"\$scrypt\$ln=([1-9][0-9]?),r=([1-9][0-9]?),p=([1-9])\$([A-Za-z0-9+/]{11,86})\$([A-Za-z0-9+/]{43})\Z")


class _Parsed(NamedTuple):
    cost_log: int
    blocks: int
    lanes: int
    salt: bytes
    digest: bytes


def hash_password(password: str) -> str:
    """The text to store for `password`, with a new salt. Raises TooLargeError, InvalidRequestError for an empty one."""
    check_password(password)
    salt = secrets.token_bytes(SALT_SIZE_BYTES)
    digest = _scrypt(password, COST_LOG, BLOCKS, 1, salt)
    return f"{PREFIX}ln={COST_LOG},r={BLOCKS},p=1${_text(salt)}${_text(digest)}"


def check_password(password: str) -> None:
    """Raise TooLargeError or InvalidRequestError for a password that nobody may set."""
    if not password:
        raise InvalidRequestError("the password is empty")
    size_bytes = len(password.encode(errors="surrogateescape"))
    if size_bytes > PASSWORD_SIZE_BYTES_MAX:
        raise TooLargeError("the password in bytes", size_bytes, PASSWORD_SIZE_BYTES_MAX)


def check_hash(text: str) -> None:
    """Raise InvalidRequestError unless `text` is what `hash_password` makes, at bearable costs."""
    _parsed(text)


def is_password(password: str, stored: str) -> bool:
    """Whether `stored` was made of `password`; compares in constant time. Raises InvalidRequestError for a bad text."""
    parsed = _parsed(stored)
    if len(password.encode(errors="surrogateescape")) > PASSWORD_SIZE_BYTES_MAX:
        return False
    computed = _scrypt(password, parsed.cost_log, parsed.blocks, parsed.lanes, parsed.salt)
    return hmac.compare_digest(computed, parsed.digest)


def _parsed(text: str) -> _Parsed:
    found = _FORM.match(text)
    if found is None:
        raise InvalidRequestError(f"a stored password has the form {PREFIX}ln=14,r=8,p=1$<salt>$<hash>")
    cost_log, blocks, lanes = (int(found[number]) for number in (1, 2, 3))
    if not COST_LOG_MIN <= cost_log <= COST_LOG_MAX or blocks > BLOCKS_MAX or lanes > LANES_MAX:
        raise InvalidRequestError(
            f"the costs ln={cost_log},r={blocks},p={lanes} of a stored password are outside what is taken: ln from "
            f"{COST_LOG_MIN} to {COST_LOG_MAX}, r up to {BLOCKS_MAX}, p up to {LANES_MAX}"
        )
    return _Parsed(cost_log, blocks, lanes, _bytes(found[4]), _bytes(found[5]))


def _scrypt(password: str, cost_log: int, blocks: int, lanes: int, salt: bytes) -> bytes:
    cost = 1 << cost_log
    memory_bytes = 128 * blocks * (cost + lanes + 2) + 1024 * 1024
    return hashlib.scrypt(
        password.encode(errors="surrogateescape"),
        salt=salt,
        n=cost,
        r=blocks,
        p=lanes,
        maxmem=memory_bytes,
        dklen=HASH_SIZE_BYTES,
    )


def _text(data: bytes) -> str:
    return base64.b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error as error:
        raise InvalidRequestError("the salt or the hash of a stored password is not base64") from error

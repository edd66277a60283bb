"""Users beyond root: a name, a stored password, and rights on prefixes of keys.

They are replicated as secrets with reserved names (`user/<name>`), which snapshots carry and exports do not show. A user
may write where it may read and write: the answer to a write shows the record that was there, so a right to write
without reading would hide nothing. Knows neither tokens nor calls. Pure; runs anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import IntEnum
from typing import NamedTuple

from metasrv.model.errors import CodecError, InvalidRequestError, TooLargeError
from metasrv.model.limits import USER_NAME_CHARACTERS_MAX, USER_RIGHTS_MAX
from metasrv.model.passwords import check_hash
from metasrv.model.wire import pack, string, unpack

ROOT = "root"
"""May do everything; its password is `grpc_password`."""
NAME_PREFIX = "user/"
"""Begins the names of the secrets that are users."""
_FORMAT = 1
_NAME = re.compile(r"[A-Za-z0-9_.@-]+\Z")


class Right(IntEnum):
    """The second includes the first."""

    READ = 0
    WRITE = 1

    def __str__(self) -> str:
        return self.name.lower()


class Grant(NamedTuple):
    """A right on every key that starts with `prefix`; the empty prefix is all keys."""

    right: Right
    prefix: str


class User(NamedTuple):
    name: str
    stored_password: str | None
    """As `passwords.hash_password` makes it; None for a user that logs in by a certificate only."""
    generation: str
    """A random text in the user's tokens: another one ends them."""
    grants: tuple[Grant, ...] = ()

    def may(self, right: Right, start: str) -> bool:
        """Whether the user has the right on the key `start`, and on every key that starts with it."""
        return any(grant.right >= right and start.startswith(grant.prefix) for grant in self.grants)


def secret_name(user_name: str) -> str:
    """The name of the secret that holds the user."""
    return NAME_PREFIX + user_name


def user_out(user: User) -> bytes:
    """What the secret holds."""
    return pack((_FORMAT, user.stored_password, user.generation, user.grants))


def user_in(name: str, data: bytes) -> User:
    """The inverse of `user_out`; raises CodecError."""
    try:
        form, stored_password, generation, grants = unpack(data)
        if form != _FORMAT:
            raise CodecError(f"user {name} has format {form}, this release reads {_FORMAT}")
        return User(
            name,
            None if stored_password is None else string(stored_password),
            string(generation),
            tuple(Grant(Right(right), string(prefix)) for right, prefix in grants),
        )
    except (TypeError, ValueError) as error:
        raise CodecError(f"user {name} cannot be read: {error}") from error


def user_names(secrets: Mapping[str, bytes]) -> list[str]:
    """The names of all users, sorted."""
    return sorted(name.removeprefix(NAME_PREFIX) for name in secrets if name.startswith(NAME_PREFIX))


def check_user(user: User) -> None:
    """Raise InvalidRequestError or TooLargeError for a user that must not be stored."""
    if len(user.name) > USER_NAME_CHARACTERS_MAX:
        raise TooLargeError("the user's name in characters", len(user.name), USER_NAME_CHARACTERS_MAX)
    if not _NAME.match(user.name):
        raise InvalidRequestError(f"a user's name has letters, digits and any of _ . @ -, not {user.name!r}")
    if user.name == ROOT:
        raise InvalidRequestError("root cannot be changed: its password is grpc_password, and it may do everything")
    if len(user.grants) > USER_RIGHTS_MAX:
        raise TooLargeError(f"the rights of user {user.name}", len(user.grants), USER_RIGHTS_MAX)
    if user.stored_password is not None:
        check_hash(user.stored_password)

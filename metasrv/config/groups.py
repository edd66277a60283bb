"""The group that `file_group` names, looked up in this machine's list. Knows no files. Runs before the node serves."""

from __future__ import annotations

import grp

from metasrv.model.errors import ConfigError

_DIGITS_MAX = 10


def group_number(name: str) -> int | None:
    """The id of a group given by name or number; None for an empty name. Raises ConfigError for an unknown name."""
    if not name:
        return None
    if name.isascii() and name.isdecimal() and len(name) <= _DIGITS_MAX:
        return int(name)
    try:
        return grp.getgrnam(name).gr_gid
    except (KeyError, ValueError) as error:  # UnicodeEncodeError and a null character are ValueErrors
        raise ConfigError([f"`file_group` is {name!r}, and this machine has no group of that name"]) from error

"""metactl's commands about passwords and users. A password is read from a terminal or stdin, never from the command line.

It is hashed here, so that the admin API, which may be plain HTTP, carries only the hash. Runs in the foreground of a
short process.
"""

from __future__ import annotations

import argparse
import getpass
import json
import sys

from metasrv.cli import ctl_admin
from metasrv.cli.terminal import show
from metasrv.model.errors import InvalidRequestError
from metasrv.model.passwords import hash_password


def hash_a_password(arguments: argparse.Namespace) -> None:
    """Print what may stand as `grpc_password` instead of the password."""
    del arguments
    show(hash_password(read_password()))


def add(arguments: argparse.Namespace) -> None:
    """With the password that is typed or piped in, unless the user is to have none."""
    hashed = {} if arguments.no_password else {"password_hash": hash_password(read_password())}
    _change(arguments, "add", name=arguments.name, **hashed)


def remove(arguments: argparse.Namespace) -> None:
    _change(arguments, "remove", name=arguments.name)


def set_password(arguments: argparse.Namespace) -> None:
    _change(arguments, "set-password", name=arguments.name, password_hash=hash_password(read_password()))


def grant(arguments: argparse.Namespace) -> None:
    _change(arguments, "grant", name=arguments.name, right=arguments.right, prefix=arguments.prefix)


def revoke(arguments: argparse.Namespace) -> None:
    _change(arguments, "revoke", name=arguments.name, prefix=arguments.prefix)


def end_tokens(arguments: argparse.Namespace) -> None:
    _change(arguments, "end-tokens", name=arguments.name)


def rotate_key(arguments: argparse.Namespace) -> None:
    _change(arguments, "rotate-key")


def list_users(arguments: argparse.Namespace) -> None:
    """A line for each user, and one below it for each right."""
    for user in ctl_admin.client_of(arguments).json("/v1/users/list", ("users",))["users"]:
        show(user["name"] if user["has_password"] else f"{user['name']} (by certificate only)")
        for right in user["grants"]:
            show(f"  {right['right']} {json.dumps(right['prefix'], ensure_ascii=False)}")


def _change(arguments: argparse.Namespace, change: str, **fields: str) -> None:
    ctl_admin.client_of(arguments).post("/v1/users/set", {"change": change, **fields})
    show(f"{change}: done")


def read_password() -> str:
    """Asked for twice on a terminal, otherwise the first line of stdin."""
    if sys.stdin is None:
        raise InvalidRequestError("there is no standard input to read the password from")
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    password = getpass.getpass("Password: ")
    if getpass.getpass("Again: ") != password:
        raise InvalidRequestError("the two passwords differ")
    return password

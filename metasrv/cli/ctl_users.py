"""metactl's commands about passwords and users. A password is read from a terminal or stdin, never from the command line.

It is hashed here, so that the admin API, which may be plain HTTP, carries only the hash. Runs in the foreground of a
short process.
"""

from __future__ import annotations

import argparse
import getpass
import sys

from metasrv.cli.terminal import show
from metasrv.model.errors import InvalidRequestError
from metasrv.model.passwords import hash_password


def hash_a_password(arguments: argparse.Namespace) -> None:
    """Print what may stand as `grpc_password` instead of the password."""
    del arguments
    show(hash_password(read_password()))


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

"""What metactl's commands have in common on the command line: how they are added, flags of connections, kinds of numbers.

A default of a connection is a `NotGiven`, so that a context (`contexts.py`) knows what the command line left open.
Must not know any command.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable
from typing import TypeAlias

from metasrv.cli import ctl_admin, ctl_grpc
from metasrv.cli.formats import FORMATS
from metasrv.model.users import ROOT

Command = Callable[[argparse.Namespace], None]
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


class NotGiven(str):
    """A default: what is used when neither the command line nor the environment nor a context says anything."""

    __slots__ = ()


GRPC_ADDRESS_DEFAULT = NotGiven("127.0.0.1:9191")
ADMIN_ADDRESS_DEFAULT = NotGiven(f"127.0.0.1:{ctl_admin.ADMIN_PORT}")


class HelpFormatter(argparse.HelpFormatter):
    """Help that begins as upstream's does: scripts look for `Usage:`."""

    def add_usage(
        self,
        usage: str | None,
        actions: Iterable[argparse.Action],
        groups: Iterable[argparse._MutuallyExclusiveGroup],
        prefix: str | None = None,
    ) -> None:
        super().add_usage(usage, actions, groups, "Usage: " if prefix is None else prefix)


def add_command(commands: Commands, name: str, text: str) -> argparse.ArgumentParser:
    return commands.add_parser(
        name, help=text, description=f"{text}.".capitalize(), allow_abbrev=False, formatter_class=HelpFormatter
    )


def add_grpc_command(commands: Commands, name: str, command: Command, text: str) -> argparse.ArgumentParser:
    parser = add_command(commands, name, text)
    parser.set_defaults(command=command, connects=True)
    add_grpc_flags(parser, GRPC_ADDRESS_DEFAULT)
    add_context_flag(parser)
    return parser


def add_grpc_flags(parser: argparse._ActionsContainer, address: str) -> None:
    parser.add_argument("--grpc-api-address", default=address, metavar="HOST:PORT", help=f"default {address}")
    user = os.environ.get(ctl_grpc.USER_VARIABLE) or NotGiven(ROOT)
    parser.add_argument("--grpc-user", default=user, metavar="NAME", help=f"who logs in, default {user}")
    parser.add_argument("--grpc-tls-ca-file", metavar="FILE", help="authority of the servers' certificates; enables TLS")
    parser.add_argument("--grpc-tls-server-name", metavar="NAME", help="name in the certificates, if not the host")
    parser.add_argument("--grpc-tls-cert-file", metavar="FILE", help="certificate of the user, instead of a password")
    parser.add_argument("--grpc-tls-key-file", metavar="FILE", help="key of that certificate")


def add_admin_command(commands: Commands, name: str, command: Command, text: str) -> argparse.ArgumentParser:
    parser = add_command(commands, name, text)
    parser.set_defaults(command=command, connects=True)
    add_context_flag(parser)
    parser.add_argument(
        "--admin-api-address",
        default=ADMIN_ADDRESS_DEFAULT,
        metavar="HOST:PORT",
        help=f"default {ADMIN_ADDRESS_DEFAULT}",
    )
    parser.add_argument("--admin-tls-ca-file", metavar="FILE", help="authority of the server's certificate; enables TLS")
    parser.add_argument("--admin-tls-cert-file", metavar="FILE", help="certificate to show to the server, with its key")
    parser.add_argument("--admin-tls-key-file", metavar="FILE", help="key of that certificate")
    parser.add_argument(
        "--admin-token-file", metavar="FILE", help=f"file that has the token; otherwise {ctl_admin.TOKEN_VARIABLE}"
    )
    return parser


def add_context_flag(parser: argparse._ActionsContainer, default: object = argparse.SUPPRESS) -> None:
    """`--context`, before the command as well as behind it: a subcommand's absent flag must not undo the first."""
    parser.add_argument(
        "--context", default=default, metavar="NAME", help="context of metactl.toml, see `metactl context list`"
    )


def add_output_flag(parser: argparse.ArgumentParser) -> None:
    """`-o`: in which form a command answers."""
    parser.add_argument("-o", "--output", choices=FORMATS, default="table", help="how the answer is written")


def add_watch_flag(parser: argparse.ArgumentParser) -> None:
    """`--watch`: again and again, until interrupted."""
    parser.add_argument(
        "--watch", type=positive, metavar="SECONDS", help="again every SECONDS seconds, until interrupted"
    )


def unsigned(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def node_id(text: str) -> int:
    number = unsigned(text)
    if number >= 2**63:
        raise argparse.ArgumentTypeError(f"{text!r} is too large")
    return number


def positive(text: str) -> int:
    number = unsigned(text)
    if not 0 < number < 2**63:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return number


def unsigned_32(text: str) -> int:
    number = unsigned(text)
    if number >= 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} is too large")
    return number

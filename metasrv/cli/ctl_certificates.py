"""metactl's command that makes certificates: `metactl cert generate DIR`. Knows the command line, not certificates."""

from __future__ import annotations

import argparse
from pathlib import Path

from metasrv.cli.terminal import show
from metasrv.model.errors import InvalidRequestError, NotDoneError

DAYS_DEFAULT = 365
DAYS_MAX = 36_500


def generate(arguments: argparse.Namespace) -> None:
    """Make the files and print their names, one a line."""
    from metasrv.cli.certificates import generate as make  # loading its library would slow every other command

    if not (arguments.node or arguments.client or arguments.new_authority):
        raise InvalidRequestError("nothing to make: give --node, --client or --new-authority")
    if arguments.days > DAYS_MAX:
        raise InvalidRequestError(f"--days is {arguments.days}; at most {DAYS_MAX} are possible")
    nodes: dict[str, list[str]] = {}
    for text in arguments.node:
        name, given, hosts = text.partition("=")
        if name in nodes:
            raise InvalidRequestError(f"--node {name} is given twice")
        nodes[name] = [host.strip() for host in (hosts if given else name).split(",")]
    try:
        written = make(
            Path(arguments.directory), nodes, arguments.client, arguments.days, new_authority=arguments.new_authority
        )
    except OSError as error:
        raise NotDoneError(f"{error.filename or arguments.directory}: {error.strerror}") from error
    for path in written:
        show(str(path))


def add_command(commands: argparse.ArgumentParser) -> None:
    """The flags of `cert generate`."""
    commands.add_argument("directory", metavar="DIR", help="where the files are, and the authority's key")
    commands.add_argument(
        "--node",
        action="append",
        default=[],
        metavar="NAME[=HOST,...]",
        help="a node's certificate for these hosts and addresses, by default its name; for servers and clients",
    )
    commands.add_argument(
        "--client", action="append", default=[], metavar="NAME", help="a client's certificate with this common name"
    )
    commands.add_argument(
        "--new-authority", action="store_true", help="make another authority; ca.pem keeps the old ones"
    )

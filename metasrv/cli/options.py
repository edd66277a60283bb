"""The command line of `metasrv`: one flag for each key, `--config-file`, `--cmd`, and the commands.

Holds only the flags that were given, because presence decides
(docs/contract/admin-api.md section 3.1). Texts stay texts: `metasrv.config.load` parses them together with those of
the environment.
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from metasrv.cli.parser import Parser, ShowVersion
from metasrv.config.keys import CONFIG_FILE_VARIABLE, KEYS, Key, Kind
from metasrv.config.load import FlagValues
from metasrv.model.errors import ConfigError
from metasrv.process.build_info import UNKNOWN_COMMIT, binary_version

RUN = "run"
CONFIG_CHECK = "config check"
CONFIG_SHOW = "config show"
FORCE_NEW_CLUSTER = "--force-new-cluster"
LOST_MAJORITY = "--yes-i-lost-the-majority"
TO = "--to"
RECOVER = "recover"
GATEWAY = "gateway"
NODE = "--node"
CHECK = "check"
DOWNGRADE_CHECK = "downgrade-check"

_FLAG_PREFIX = "flag:"
"""Where the parser keeps a key's text, apart from its own names."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line and METASRV_CONFIG_FILE asked for."""

    command: str
    """`RUN` or one of the others above."""
    config_file: str | None
    cmd: str
    """Upstream's `--cmd`: `ver`, `show-config` or another text; empty when not given."""
    flags: FlagValues
    begin_cluster: bool = False
    """Begin a cluster although some addresses in `join` do not answer."""
    rebuild: bool = False
    """Move this node's data aside and get it from the others."""
    check_file: str | None = None
    """The file of `config check`."""
    check_directory: str | None = None
    """The directory of `check`."""
    lost_majority: bool = False
    """`recover` is to do what it has planned."""
    downgrade_to: str | None = None
    """The release of `downgrade-check`."""


class _Parser(Parser):
    """Reports a wrong command line as a configuration error."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError([f"{message}; `{self.prog} --help` lists flags and commands"])


def parse_options(arguments: Sequence[str], environment: Mapping[str, str]) -> Options:
    """Parse the arguments after the program's name.

    Raises ConfigError for a wrong command line and SystemExit(0) after `--help` or `--version` was printed.
    """
    # First of all: a mistyped flag's value would be taken for a command, and quoted although it may be a secret.
    problems = [_unknown_flag(argument) for argument in arguments if _flag_name(argument) not in KNOWN_FLAGS]
    if problems:
        raise ConfigError(problems)
    namespace, unknown = build_parser().parse_known_args(arguments)
    if unknown:
        raise ConfigError([f"unexpected argument {argument!r}" for argument in unknown])
    given = vars(namespace)
    flags = {name.removeprefix(_FLAG_PREFIX): value for name, value in given.items() if name.startswith(_FLAG_PREFIX)}
    return Options(
        command=given.get("command") or RUN,
        config_file=given.get("config_file") or environment.get(CONFIG_FILE_VARIABLE) or None,
        cmd=given.get("cmd", ""),
        flags={path: tuple(value) if isinstance(value, list) else value for path, value in flags.items()},
        begin_cluster=given.get("begin_cluster", False),
        rebuild=given.get("rebuild", False),
        check_file=given.get("check_file"),
        check_directory=given.get("check_directory"),
        lost_majority=given.get("lost_majority", False),
        downgrade_to=given.get("downgrade_to"),
    )


def build_parser() -> argparse.ArgumentParser:
    """The parser; also the source of the usage text."""
    shared = _Parser(add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    _add_key_flags(shared)
    parser = _Parser(
        prog="metasrv",
        description="Run a node of the meta service, or look at its configuration.",
        epilog="Every flag is also a key of the configuration file and a variable METASRV_<FLAG>.",
        parents=[shared],
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("--version", action=ShowVersion, const=f"metasrv {binary_version(UNKNOWN_COMMIT)}")
    parser.add_argument("--cmd", metavar="COMMAND", help="ver or show-config: print and exit")
    parser.add_argument(
        "--begin-cluster",
        action="store_true",
        help="for this start only: begin a cluster unless a node in `join` knows one, and do not wait for the silent",
    )
    parser.add_argument(
        "--rebuild",
        action="store_true",
        help="for this start only: move the data of this node aside and get it from the nodes in `join`",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", parser_class=_Parser)
    config = commands.add_parser("config", help="check or show a configuration", allow_abbrev=False)
    actions = config.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=_Parser)
    check = actions.add_parser("check", help="print every mistake of a configuration file", allow_abbrev=False)
    check.add_argument("check_file", metavar="FILE")
    check.set_defaults(command=CONFIG_CHECK)
    show = actions.add_parser(
        "show",
        help="print the effective configuration and where each value comes from",
        parents=[shared],
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    show.set_defaults(command=CONFIG_SHOW)
    gateway = commands.add_parser(
        GATEWAY,
        help="serve clients on a machine without a node, for the nodes at these raft addresses",
        parents=[shared],
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    gateway.add_argument(
        NODE,
        dest=f"{_FLAG_PREFIX}gateway_nodes",
        nargs="+",
        action="extend",
        metavar="HOST:PORT",
        help="short for --gateway-nodes",
    )
    gateway.set_defaults(command=GATEWAY)
    _add_offline_commands(commands, shared)
    return parser


def _add_offline_commands(
    commands: argparse._SubParsersAction[_Parser],
    shared: _Parser,
) -> None:
    """What looks at a directory, or works on that of a stopped node."""
    recover = commands.add_parser(
        RECOVER,
        help="make a cluster of one from the data of a node whose cluster has lost its majority for good",
        parents=[shared],
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    recover.add_argument(FORCE_NEW_CLUSTER, action="store_true", required=True, help="say which recovery is meant")
    recover.add_argument(
        LOST_MAJORITY,
        dest="lost_majority",
        action="store_true",
        help="do it; without this flag the plan is printed, and nothing is changed",
    )
    recover.set_defaults(command=RECOVER)
    check = commands.add_parser(CHECK, help="check the data directory of a stopped node", allow_abbrev=False)
    check.add_argument("check_directory", metavar="DIR")
    check.set_defaults(command=CHECK)
    downgrade = commands.add_parser(
        DOWNGRADE_CHECK,
        help="say whether an earlier release can take over the data directory of a node, stopped or running",
        parents=[shared],
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    downgrade.add_argument(TO, dest="downgrade_to", metavar="RELEASE", required=True, help="for example 0.2.0")
    downgrade.set_defaults(command=DOWNGRADE_CHECK)


def _add_key_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-c", "--config-file", metavar="FILE", help=f"TOML file; else {CONFIG_FILE_VARIABLE}")
    for flag, key in keys_by_flag().items():
        _add_key_flag(parser, flag, key)


def keys_by_flag() -> dict[str, Key]:
    """Each flag once; some of upstream's old keys have two places in a file and share a flag."""
    keys: dict[str, Key] = {}
    for key in KEYS.values():
        keys.setdefault(key.flag, key)
    return keys


def _add_key_flag(parser: argparse.ArgumentParser, flag: str, key: Key) -> None:
    destination = _FLAG_PREFIX + key.path
    text = argparse.SUPPRESS if key.ignored else key.description.replace("%", "%%")
    if key.kind is Kind.BOOLEAN:
        parser.add_argument(flag, dest=destination, nargs="?", const="true", metavar="true|false", help=text)
    elif key.kind is Kind.LIST:
        metavar = "SECRET" if key.secret else "HOST:PORT"
        parser.add_argument(flag, dest=destination, nargs="+", action="extend", metavar=metavar, help=text)
    else:
        metavar = "N" if key.kind is Kind.INTEGER else "SECRET" if key.secret else "TEXT"
        parser.add_argument(flag, dest=destination, metavar=metavar, help=text)


def _flag_name(argument: str) -> str:
    """`--id` of `--id=3`; empty for anything but a long flag."""
    return argument.partition("=")[0] if argument.startswith("--") else ""


def _unknown_flag(argument: str) -> str:
    flag = _flag_name(argument)
    offered = [*(name for name, key in keys_by_flag().items() if not key.ignored), *_OWN_FLAGS]
    close = difflib.get_close_matches(flag, offered, n=1, cutoff=0.7)
    return f"unknown flag {flag}" + (f"; did you mean {close[0]}?" if close else "")


_OWN_FLAGS = (
    "--help",
    "--version",
    "--config-file",
    "--cmd",
    "--begin-cluster",
    "--rebuild",
    FORCE_NEW_CLUSTER,
    LOST_MAJORITY,
    TO,
    NODE,
)
KNOWN_FLAGS = frozenset({"", "--", *_OWN_FLAGS, *keys_by_flag()})
"""Everything that may begin with two dashes."""

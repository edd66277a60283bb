"""`metactl`: look at a cluster, operate it, read and write keys (docs/contract/admin-api.md section 4).

Parsing and dispatch; the commands stand in the modules `ctl_….py`. Answers go to stdout, everything else to stderr.
Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from importlib import import_module

from metasrv import __version__
from metasrv.cli import ctl_admin, ctl_certificates, ctl_grpc, ctl_maintenance, ctl_users
from metasrv.cli.terminal import drop_output, finish_output, note, prepare_streams
from metasrv.model.errors import InvalidRequestError, MetasrvError
from metasrv.model.users import ROOT

GRPC_ADDRESS_DEFAULT = "127.0.0.1:9191"
GRPC_ADDRESS_VARIABLE = "METASRV_GRPC_API_ADDRESS"
ADMIN_ADDRESS_DEFAULT = f"127.0.0.1:{ctl_admin.ADMIN_PORT}"
EXPORT_CHUNK_SIZE_DEFAULT = 32
BENCH_CONNECTIONS_DEFAULT = 10_000

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_INTERRUPTED = 130

Command = Callable[[argparse.Namespace], None]


class _HelpFormatter(argparse.HelpFormatter):
    """Help that begins as upstream's does: scripts look for `Usage:`."""

    def add_usage(
        self,
        usage: str | None,
        actions: Iterable[argparse.Action],
        groups: Iterable[argparse._MutuallyExclusiveGroup],
        prefix: str | None = None,
    ) -> None:
        super().add_usage(usage, actions, groups, "Usage: " if prefix is None else prefix)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    prepare_streams()
    try:
        try:
            return _main(arguments)
        finally:
            finish_output()  # also of a help text, which ends the program with SystemExit
    except BrokenPipeError:
        drop_output()  # the reader (`head`, perhaps) has enough
        return EXIT_DONE
    except OSError as error:
        drop_output()
        return _failed(f"standard output cannot be written: {error.strerror or error}")


def _main(arguments: Sequence[str] | None) -> int:
    parser = build_parser()
    namespace = parser.parse_args(arguments)
    level = logging.getLevelNamesMapping().get(namespace.log_level.upper(), logging.WARNING)
    logging.basicConfig(level=level, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    command: Command | None = getattr(namespace, "command", None)
    if command is None and namespace.export:
        command = backup_command("export")
        namespace.chunk_size = namespace.export_chunk_size
    if command is None and namespace.import_flag:
        command = backup_command("import_backup")
    if command is None:
        parser.print_help()
        return EXIT_DONE
    return _run(command, namespace)


@cache
def backup_command(name: str) -> Command:
    """A command of `ctl_backup.py`, which is loaded when it runs: it brings the server's storage along."""

    def command(arguments: argparse.Namespace) -> None:
        getattr(import_module("metasrv.cli.ctl_backup"), name)(arguments)

    return command


def _run(command: Command, namespace: argparse.Namespace) -> int:
    """Run it; every failure is one sentence on stderr and an exit code. What stdout does not take raises OSError."""
    try:
        command(namespace)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except MetasrvError as error:
        return _failed(str(error))
    except UnicodeError as error:
        return _failed(f"the command line holds text that is not UTF-8: {error}")
    return EXIT_DONE


def _failed(sentence: str) -> int:
    note(f"Error: {sentence}")
    return EXIT_FAILED


# ----------------------------------------------------------------------------- the command line


def build_parser() -> argparse.ArgumentParser:
    """The whole command line; each subcommand's function is in `command`."""
    parser = argparse.ArgumentParser(
        prog="metactl",
        description="Look at and operate a metasrv cluster.",
        epilog=f"Secrets come from the environment: {ctl_grpc.PASSWORD_VARIABLE}, {ctl_admin.TOKEN_VARIABLE}.",
        allow_abbrev=False,
        formatter_class=_HelpFormatter,
    )
    parser.add_argument("-V", "--version", action="version", version=f"metactl {__version__}")
    parser.add_argument("--log-level", default="WARN", metavar="LEVEL", help="level of log lines on stderr")
    _add_deprecated(parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    _add_cluster_commands(commands)
    _add_key_commands(commands)
    _add_admin_commands(commands)
    _add_backup_commands(commands)
    _add_certificate_commands(commands)
    _add_help(parser, commands)
    return parser


def _add_deprecated(parser: argparse.ArgumentParser) -> None:
    """Flags without a command, as older scripts use them."""
    old = parser.add_argument_group("deprecated, use a command instead")
    _add_grpc_flags(old, os.environ.get(GRPC_ADDRESS_VARIABLE) or GRPC_ADDRESS_DEFAULT)
    old.add_argument("--export", action="store_true", help="same as the command `export`")
    old.add_argument(
        "--export-chunk-size", type=_positive, default=EXPORT_CHUNK_SIZE_DEFAULT, metavar="LINES", help="see `export`"
    )
    old.add_argument("--import", dest="import_flag", action="store_true", help="same as the command `import`")
    old.add_argument("--db", default="", metavar="FILE", help="see `export` and `import`")
    _add_directory_flags(old)
    _add_initial_cluster(old)


def _add_cluster_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    _add_grpc_command(commands, "status", ctl_grpc.status, "print the status of a node")
    _add_grpc_command(commands, "member-list", ctl_grpc.member_list, "list the client addresses of all members")
    layout = _add_grpc_command(commands, "keys-layout", ctl_grpc.keys_layout, "count keys by directory")
    layout.add_argument("--depth", type=_unsigned_32, metavar="N", help="directories of at most N segments")
    bench = _add_grpc_command(
        commands, "bench-client-num-conn", ctl_grpc.bench_client_num_conn, "open many connections and keep them"
    )
    bench.add_argument("--num", type=_positive, default=BENCH_CONNECTIONS_DEFAULT, metavar="N", help="connections")
    export = _add_grpc_command(
        commands, "export", backup_command("export"), "back up a node, running or stopped, as lines of JSON"
    )
    _add_directory_flags(export)
    export.add_argument("--db", default="", metavar="FILE", help="write to FILE instead of stdout")
    export.add_argument(
        "--chunk-size", type=_positive, default=EXPORT_CHUNK_SIZE_DEFAULT, metavar="LINES", help="lines per message"
    )


def _add_key_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    get = _add_grpc_command(commands, "get", ctl_grpc.get, "print one record as JSON")
    get.add_argument("--key", required=True)
    upsert = _add_grpc_command(commands, "upsert", ctl_grpc.upsert, "write one value")
    upsert.add_argument("--key", required=True)
    upsert.add_argument("--value", required=True)
    watch = _add_grpc_command(commands, "watch", ctl_grpc.watch, "print records under a prefix, then every change")
    watch.add_argument("--prefix", required=True)


def _add_admin_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    transfer = _add_admin_command(
        commands, "transfer-leader", ctl_admin.transfer_leader, "hand leadership to another node"
    )
    transfer.add_argument("--to", type=_unsigned, metavar="ID", help="voter to hand it to; by default the next one")
    transfer.add_argument(
        "--wait",
        type=_positive,
        nargs="?",
        const=ctl_admin.TRANSFER_WAIT_SECONDS_DEFAULT,
        metavar="SECONDS",
        help=f"wait until the leadership has arrived, {ctl_admin.TRANSFER_WAIT_SECONDS_DEFAULT} s by default",
    )
    _add_admin_command(commands, "trigger-snapshot", ctl_admin.trigger_snapshot, "write a snapshot file on a node")
    _add_admin_command(commands, "list-features", ctl_admin.list_features, "list features and which are on")
    feature = _add_admin_command(commands, "set-feature", ctl_admin.set_feature, "turn a feature on or off")
    feature.add_argument("--feature", required=True, metavar="NAME")
    feature.add_argument("--enable", required=True, choices=("true", "false"))
    _add_user_commands(commands)
    hashing = _add_command(commands, "hash-password", "print the hash of a password, for grpc_password")
    hashing.set_defaults(command=ctl_users.hash_a_password)
    _add_admin_command(commands, "metrics", ctl_admin.metrics, "print a node's metrics")
    _add_maintenance_commands(commands)


def _add_maintenance_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    groups = {"": commands}
    for name, text in (("cluster", "what concerns all nodes"), ("node", "what concerns one node")):
        group = _add_command(commands, name, text)
        groups[name] = group.add_subparsers(title="commands", metavar="COMMAND", required=True)
    ctl_maintenance.add_commands(groups, _add_admin_command, _node_id)


def _add_user_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    users = _add_command(commands, "user", "manage users beyond root")
    actions = users.add_subparsers(title="commands", metavar="COMMAND", required=True)
    add = _add_admin_command(actions, "add", ctl_users.add, "add a user without rights; its password comes from stdin")
    add.add_argument("--no-password", action="store_true", help="it logs in by a client certificate only")
    _add_admin_command(actions, "list", ctl_users.list_users, "list the users and their rights")
    remove = _add_admin_command(actions, "remove", ctl_users.remove, "remove a user and end what it has open")
    password = _add_admin_command(
        actions, "set-password", ctl_users.set_password, "give a user another password, from stdin, and end its tokens"
    )
    grant = _add_admin_command(actions, "grant", ctl_users.grant, "give a user a right on all keys with a prefix")
    grant.add_argument("--right", required=True, choices=("read", "write"), help="write includes read")
    revoke = _add_admin_command(actions, "revoke", ctl_users.revoke, "take away the right on a prefix")
    tokens = _add_admin_command(actions, "end-tokens", ctl_users.end_tokens, "end a user's tokens and open streams")
    for command in (add, remove, password, grant, revoke, tokens):
        command.add_argument("--name", required=True, help="the user")
    for command in (grant, revoke):
        command.add_argument("--prefix", required=True, help="an empty one is all keys")
    _add_admin_command(actions, "rotate-key", ctl_users.rotate_key, "make a new key for tokens, which ends all of them")


def _add_backup_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    imported = _add_command(commands, "import", "make the data directory of a node from a backup")
    imported.set_defaults(command=backup_command("import_backup"))
    imported.add_argument("--db", default="", metavar="FILE", help="the backup; standard input by default")
    _add_directory_flags(imported)
    _add_initial_cluster(imported)
    snapshot = _add_command(commands, "snapshot", "make, check and restore backups with a checksum")
    snapshot.set_defaults(command=lambda _arguments: snapshot.print_help())
    actions = snapshot.add_subparsers(title="commands", metavar="COMMAND")
    save = _add_grpc_command(actions, "save", backup_command("save"), "back up a running node")
    save.add_argument("file", metavar="FILE")
    save.add_argument("--local", action="store_true", help="save what the node has, without asking a quorum")
    inspect = _add_command(actions, "inspect", "check every line of a backup, and say what is in it")
    inspect.set_defaults(command=backup_command("inspect_backup"))
    inspect.add_argument("file", metavar="FILE")
    restore = _add_command(actions, "restore", "make the data directory of a node of a new cluster from a backup")
    restore.set_defaults(command=backup_command("restore_backup"))
    restore.add_argument("file", metavar="FILE")
    restore.add_argument("--raft-dir", required=True, metavar="DIR", help="the new data directory, without data")
    restore.add_argument("--id", type=_node_id, metavar="N", help="the node that it is for")
    _add_initial_cluster(restore)
    restore.add_argument(
        "--cluster-token",
        default="",
        metavar="TEXT",
        help="tells clusters apart that are restored from the same backup with the same members",
    )


def _add_directory_flags(parser: argparse._ActionsContainer) -> None:
    parser.add_argument("--raft-dir", default="", metavar="DIR", help="the data directory of a stopped node")
    parser.add_argument("--id", type=_node_id, metavar="N", help="id of the node that the directory is for")


def _add_initial_cluster(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--initial-cluster",
        nargs="+",
        action="extend",
        metavar="ID=HOST:PORT",
        help="the members of the new cluster and their raft addresses; repeatable, or with commas",
    )


def _add_help(parser: argparse.ArgumentParser, commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    helping = _add_command(commands, "help", "print this help, or that of a command")
    helping.add_argument("topic", nargs="?", metavar="COMMAND")

    def print_help(arguments: argparse.Namespace) -> None:
        topic = parser if arguments.topic is None else commands.choices.get(arguments.topic)
        if topic is None:
            raise InvalidRequestError(f"there is no command {arguments.topic!r}; `metactl help` lists them")
        topic.print_help()

    helping.set_defaults(command=print_help)


def _add_certificate_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    group = _add_command(commands, "cert", "make the certificates of a cluster")
    group.set_defaults(command=lambda _arguments: group.print_help())
    actions = group.add_subparsers(title="commands", metavar="COMMAND")
    text = "make an authority, and the certificates of nodes and clients that it signs"
    parser = _add_command(actions, "generate", text)
    parser.set_defaults(command=ctl_certificates.generate)
    ctl_certificates.add_command(parser)
    days = ctl_certificates.DAYS_DEFAULT
    parser.add_argument(
        "--days", type=_positive, default=days, metavar="N", help=f"how long they hold, by default {days}"
    )


def _add_command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, text: str
) -> argparse.ArgumentParser:
    return commands.add_parser(
        name, help=text, description=f"{text}.".capitalize(), allow_abbrev=False, formatter_class=_HelpFormatter
    )


def _add_grpc_command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, command: Command, text: str
) -> argparse.ArgumentParser:
    parser = _add_command(commands, name, text)
    parser.set_defaults(command=command)
    _add_grpc_flags(parser, GRPC_ADDRESS_DEFAULT)
    return parser


def _add_grpc_flags(parser: argparse._ActionsContainer, address: str) -> None:
    parser.add_argument("--grpc-api-address", default=address, metavar="HOST:PORT", help=f"default {address}")
    user = os.environ.get(ctl_grpc.USER_VARIABLE) or ROOT
    parser.add_argument("--grpc-user", default=user, metavar="NAME", help=f"who logs in, default {user}")
    parser.add_argument("--grpc-tls-ca-file", metavar="FILE", help="authority of the servers' certificates; enables TLS")
    parser.add_argument("--grpc-tls-server-name", metavar="NAME", help="name in the certificates, if not the host")
    parser.add_argument("--grpc-tls-cert-file", metavar="FILE", help="certificate of the user, instead of a password")
    parser.add_argument("--grpc-tls-key-file", metavar="FILE", help="key of that certificate")


def _add_admin_command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, command: Command, text: str
) -> argparse.ArgumentParser:
    parser = _add_command(commands, name, text)
    parser.set_defaults(command=command)
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


def _unsigned(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def _node_id(text: str) -> int:
    number = _unsigned(text)
    if number >= 2**63:
        raise argparse.ArgumentTypeError(f"{text!r} is too large")
    return number


def _positive(text: str) -> int:
    number = _unsigned(text)
    if not 0 < number < 2**63:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return number


def _unsigned_32(text: str) -> int:
    number = _unsigned(text)
    if number >= 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} is too large")
    return number


if __name__ == "__main__":
    sys.exit(main())

"""`metactl`: look at a cluster, operate it, read and write keys (docs/contract/admin-api.md section 4).

Parsing and dispatch; the commands stand in the modules `ctl_….py`. Answers go to stdout, everything else to stderr.
Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 the cluster is not as healthy as was asked for, 130 interrupted.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from functools import partial

from metasrv import __version__
from metasrv.cli import (
    contexts,
    ctl_admin,
    ctl_certificates,
    ctl_cluster,
    ctl_diagnose,
    ctl_endpoints,
    ctl_events,
    ctl_grpc,
    ctl_logs,
    ctl_profile,
    ctl_scheduled,
    ctl_users,
    migrate_options,
)
from metasrv.cli.ctl_flags import (
    GRPC_ADDRESS_DEFAULT,
    Commands,
    HelpFormatter,
    add_admin_command,
    add_command,
    add_context_flag,
    add_grpc_command,
    add_grpc_flags,
    node_id,
    positive,
    unsigned,
    unsigned_32,
)
from metasrv.cli.ctl_tools import TOP_TEXT, add_tools, add_top
from metasrv.cli.later import Command, later_command
from metasrv.cli.parser import Parser, ShowVersion
from metasrv.cli.terminal import drop_output, finish_output, note, prepare_streams
from metasrv.model.errors import InvalidRequestError, MetasrvError

GRPC_ADDRESS_VARIABLE = "METASRV_GRPC_API_ADDRESS"
EXPORT_CHUNK_SIZE_DEFAULT = 32
BENCH_CONNECTIONS_DEFAULT = 10_000

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_UNHEALTHY = 3
EXIT_INTERRUPTED = 130


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
        namespace.connects = True
    if command is None and namespace.import_flag:
        command = backup_command("import_backup")
    if command is None:
        parser.print_help()
        return EXIT_DONE
    return _run(command, namespace)


def backup_command(name: str, module: str = "ctl_backup") -> Command:
    """A command of a module that is loaded when it runs: it brings the server's storage along."""
    return later_command(module, name)


def _run(command: Command, namespace: argparse.Namespace) -> int:
    """Run it; every failure is one sentence on stderr and an exit code. What stdout does not take raises OSError."""
    try:
        contexts.complete(namespace)
        command(namespace)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except ctl_endpoints.UnhealthyError as error:
        note(f"Error: {error}")
        return EXIT_UNHEALTHY
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
    parser: argparse.ArgumentParser = Parser(
        prog="metactl",
        description="Look at and operate a metasrv cluster.",
        epilog=f"Secrets come from the environment: {ctl_grpc.PASSWORD_VARIABLE}, {ctl_admin.TOKEN_VARIABLE}.",
        allow_abbrev=False,
        formatter_class=HelpFormatter,
    )
    parser.add_argument("-V", "--version", action=ShowVersion, const=f"metactl {__version__}")
    add_context_flag(parser, None)
    parser.add_argument("--log-level", default="WARN", metavar="LEVEL", help="level of log lines on stderr")
    _add_deprecated(parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    _add_cluster_commands(commands)
    _add_key_commands(commands)
    _add_admin_commands(commands)
    _add_backup_commands(commands)
    _add_migrate(commands)
    _add_scheduled_commands(commands)
    _add_certificate_commands(commands)
    ctl_cluster.add_commands(commands, parser)
    add_tools(partial(add_command, commands))
    _add_help(parser, commands)
    return parser


def _add_deprecated(parser: argparse.ArgumentParser) -> None:
    """Flags without a command, as older scripts use them."""
    old = parser.add_argument_group("deprecated, use a command instead")
    add_grpc_flags(old, os.environ.get(GRPC_ADDRESS_VARIABLE) or GRPC_ADDRESS_DEFAULT)
    old.add_argument("--export", action="store_true", help="same as the command `export`")
    old.add_argument(
        "--export-chunk-size", type=positive, default=EXPORT_CHUNK_SIZE_DEFAULT, metavar="LINES", help="see `export`"
    )
    old.add_argument("--import", dest="import_flag", action="store_true", help="same as the command `import`")
    old.add_argument("--db", default="", metavar="FILE", help="see `export` and `import`")
    _add_directory_flags(old)
    _add_initial_cluster(old)


def _add_cluster_commands(commands: Commands) -> None:
    add_grpc_command(commands, "status", ctl_grpc.status, "print the status of a node")
    add_grpc_command(commands, "member-list", ctl_grpc.member_list, "list the client addresses of all members")
    layout = add_grpc_command(commands, "keys-layout", ctl_grpc.keys_layout, "count keys by directory")
    layout.add_argument("--depth", type=unsigned_32, metavar="N", help="directories of at most N segments")
    bench = add_grpc_command(
        commands, "bench-client-num-conn", ctl_grpc.bench_client_num_conn, "open many connections and keep them"
    )
    bench.add_argument("--num", type=positive, default=BENCH_CONNECTIONS_DEFAULT, metavar="N", help="connections")
    export = add_grpc_command(
        commands, "export", backup_command("export"), "back up a node, running or stopped, as lines of JSON"
    )
    _add_directory_flags(export)
    export.add_argument("--db", default="", metavar="FILE", help="write to FILE instead of stdout")
    export.add_argument(
        "--chunk-size", type=positive, default=EXPORT_CHUNK_SIZE_DEFAULT, metavar="LINES", help="lines per message"
    )


def _add_key_commands(commands: Commands) -> None:
    get = add_grpc_command(commands, "get", ctl_grpc.get, "print one record as JSON")
    get.add_argument("--key", required=True)
    upsert = add_grpc_command(commands, "upsert", ctl_grpc.upsert, "write one value")
    upsert.add_argument("--key", required=True)
    upsert.add_argument("--value", required=True)
    watch = add_grpc_command(commands, "watch", ctl_grpc.watch, "print records under a prefix, then every change")
    watch.add_argument("--prefix", required=True)


def _add_admin_commands(commands: Commands) -> None:
    transfer = add_admin_command(
        commands, "transfer-leader", ctl_admin.transfer_leader, "hand leadership to another node"
    )
    transfer.add_argument("--to", type=unsigned, metavar="ID", help="voter to hand it to; by default the next one")
    transfer.add_argument(
        "--wait",
        type=positive,
        nargs="?",
        const=ctl_admin.TRANSFER_WAIT_SECONDS_DEFAULT,
        metavar="SECONDS",
        help=f"wait until the leadership has arrived, {ctl_admin.TRANSFER_WAIT_SECONDS_DEFAULT} s by default",
    )
    add_admin_command(commands, "trigger-snapshot", ctl_admin.trigger_snapshot, "write a snapshot file on a node")
    add_admin_command(commands, "list-features", ctl_admin.list_features, "list features and which are on")
    feature = add_admin_command(commands, "set-feature", ctl_admin.set_feature, "turn a feature on or off")
    feature.add_argument("--feature", required=True, metavar="NAME")
    feature.add_argument("--enable", required=True, choices=("true", "false"))
    feature.add_argument("--force", action="store_true", help="turn it on although a member may not know it")
    _add_profile_commands(commands)
    _add_user_commands(commands)
    hashing = add_command(commands, "hash-password", "print the hash of a password, for grpc_password")
    hashing.set_defaults(command=ctl_users.hash_a_password)
    add_admin_command(commands, "metrics", ctl_admin.metrics, "print a node's metrics")
    ctl_logs.add_commands(commands)
    ctl_diagnose.add_commands(commands)
    add_top(add_admin_command(commands, "top", later_command("top.command", "top"), TOP_TEXT))
    events = add_admin_command(commands, "events", ctl_events.events, "print what happened in the cluster, newest last")
    events.add_argument("--follow", action="store_true", help="go on with what happens, until it is interrupted")
    events.add_argument("--limit", type=positive, default=ctl_events.LIMIT_DEFAULT, metavar="N", help="the newest N")
    events.add_argument("--node", type=node_id, metavar="ID", help="only those that this node tells")
    events.add_argument("-o", "--output", choices=("text", "json"), default="text", help="a line of text or JSON each")


def _add_profile_commands(commands: Commands) -> None:
    profile = add_command(commands, "profile", "see what a node spends processor time or memory on")
    profile.set_defaults(command=lambda _arguments: profile.print_help())
    actions = profile.add_subparsers(title="commands", metavar="COMMAND")
    cpu = add_admin_command(actions, "cpu", ctl_profile.cpu, "sample its stacks for some seconds")
    memory = add_admin_command(actions, "memory", ctl_profile.memory, "watch what it allocates for some seconds")
    history = add_admin_command(actions, "history", ctl_profile.history, "what it was doing in the last ten minutes")
    add_admin_command(actions, "captures", ctl_profile.captures, "list the memory profiles that --base takes")
    for command in (cpu, memory):
        seconds = ctl_profile.SECONDS_DEFAULT
        command.add_argument("--seconds", type=positive, default=seconds, metavar="N", help=f"by default {seconds}")
    memory.add_argument("--base", metavar="CAPTURE", help="what has changed since this earlier memory profile")
    small = "each object of at most 512 bytes as well, which slows the node down much more"
    memory.add_argument("--small-objects", action="store_true", help=small)
    history.add_argument("--at", metavar="HH:MM", help="the stacks of this minute, in UTC, instead of all minutes")
    history.add_argument("--minutes", type=positive, default=1, metavar="N", help="so many from there on, by default 1")
    for command in (cpu, history):
        command.add_argument("--idle", action="store_true", help="threads that wait for work as well")
    forms = "write FILE, whose name says its form: .svg, .folded, .json (speedscope), otherwise pprof"
    for command in (cpu, memory, history):
        command.add_argument("-o", "--output", metavar="FILE", help=forms)


def _add_user_commands(commands: Commands) -> None:
    users = add_command(commands, "user", "manage users beyond root")
    actions = users.add_subparsers(title="commands", metavar="COMMAND", required=True)
    add = add_admin_command(actions, "add", ctl_users.add, "add a user without rights; its password comes from stdin")
    add.add_argument("--no-password", action="store_true", help="it logs in by a client certificate only")
    add_admin_command(actions, "list", ctl_users.list_users, "list the users and their rights")
    remove = add_admin_command(actions, "remove", ctl_users.remove, "remove a user and end what it has open")
    password = add_admin_command(
        actions, "set-password", ctl_users.set_password, "give a user another password, from stdin, and end its tokens"
    )
    grant = add_admin_command(actions, "grant", ctl_users.grant, "give a user a right on all keys with a prefix")
    grant.add_argument("--right", required=True, choices=("read", "write"), help="write includes read")
    revoke = add_admin_command(actions, "revoke", ctl_users.revoke, "take away the right on a prefix")
    tokens = add_admin_command(actions, "end-tokens", ctl_users.end_tokens, "end a user's tokens and open streams")
    for command in (add, remove, password, grant, revoke, tokens):
        command.add_argument("--name", required=True, help="the user")
    for command in (grant, revoke):
        command.add_argument("--prefix", required=True, help="an empty one is all keys")
    add_admin_command(actions, "rotate-key", ctl_users.rotate_key, "make a new key for tokens, which ends all of them")


def _add_backup_commands(commands: Commands) -> None:
    imported = add_command(commands, "import", "make the data directory of a node from a backup")
    imported.set_defaults(command=backup_command("import_backup"))
    imported.add_argument("--db", default="", metavar="FILE", help="the backup; standard input by default")
    _add_decryption(imported)
    _add_directory_flags(imported)
    _add_initial_cluster(imported)
    snapshot = add_command(commands, "snapshot", "make, check and restore backups with a checksum")
    snapshot.set_defaults(command=lambda _arguments: snapshot.print_help())
    actions = snapshot.add_subparsers(title="commands", metavar="COMMAND")
    save = add_grpc_command(actions, "save", backup_command("save"), "back up a running node")
    save.add_argument("file", metavar="FILE")
    save.add_argument("--local", action="store_true", help="save what the node has, without asking a quorum")
    save.add_argument(
        "--without-secrets",
        action="store_true",
        help="leave out the key that signs tokens, and users with their passwords",
    )
    save.add_argument("--encrypt-with", metavar="FILE", help="encrypt with the key in FILE: 32 bytes, or a passphrase")
    inspect = add_command(actions, "inspect", "check every line of a backup, and say what is in it")
    inspect.set_defaults(command=backup_command("inspect_backup"))
    inspect.add_argument("file", metavar="FILE")
    _add_decryption(inspect)
    restore = add_command(actions, "restore", "make the data directory of a node of a new cluster from a backup")
    restore.set_defaults(command=backup_command("restore_backup"))
    restore.add_argument("file", metavar="FILE")
    _add_decryption(restore)
    restore.add_argument("--raft-dir", required=True, metavar="DIR", help="the new data directory, without data")
    restore.add_argument("--id", type=node_id, metavar="N", help="the node that it is for")
    _add_initial_cluster(restore)
    restore.add_argument(
        "--cluster-token",
        default="",
        metavar="TEXT",
        help="tells clusters apart that are restored from the same backup with the same members",
    )


def _add_migrate(commands: Commands) -> None:
    parser = add_command(commands, "migrate", "move the records of another cluster into an empty one, while it serves")
    parser.set_defaults(command=backup_command("migrate", "ctl_migrate"))
    migrate_options.add_options(parser)
    seconds = migrate_options.QUIET_SECONDS_DEFAULT
    parser.add_argument(
        "--quiet-seconds", type=positive, default=seconds, metavar="N", help=f"how long it is still, default {seconds}"
    )


def _add_scheduled_commands(commands: Commands) -> None:
    backup = add_command(commands, "backup", "look at the backups that the leader makes by itself, and have one made")
    backup.set_defaults(command=lambda _arguments: backup.print_help())
    actions = backup.add_subparsers(title="commands", metavar="COMMAND")
    add_admin_command(actions, "list", ctl_scheduled.list_backups, "list the archives of the cluster; any node answers")
    now = add_admin_command(actions, "now", ctl_scheduled.backup_now, "have the leader make one, and wait for it")
    seconds = ctl_scheduled.WAIT_SECONDS_DEFAULT
    now.add_argument("--wait", type=positive, default=seconds, metavar="SECONDS", help=f"at most, {seconds} by default")


def _add_decryption(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--decrypt-with", metavar="FILE", help="the key that the archive was encrypted with")


def _add_directory_flags(parser: argparse._ActionsContainer) -> None:
    parser.add_argument("--raft-dir", default="", metavar="DIR", help="the data directory of a stopped node")
    parser.add_argument("--id", type=node_id, metavar="N", help="id of the node that the directory is for")


def _add_initial_cluster(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--initial-cluster",
        nargs="+",
        action="extend",
        metavar="ID=HOST:PORT",
        help="the members of the new cluster and their raft addresses; repeatable, or with commas",
    )


def _add_help(parser: argparse.ArgumentParser, commands: Commands) -> None:
    helping = add_command(commands, "help", "print this help, or that of a command")
    helping.add_argument("topic", nargs="?", metavar="COMMAND")

    def print_help(arguments: argparse.Namespace) -> None:
        topic = parser if arguments.topic is None else commands.choices.get(arguments.topic)
        if topic is None:
            raise InvalidRequestError(f"there is no command {arguments.topic!r}; `metactl help` lists them")
        topic.print_help()

    helping.set_defaults(command=print_help)


def _add_certificate_commands(commands: Commands) -> None:
    group = add_command(commands, "cert", "make the certificates of a cluster")
    group.set_defaults(command=lambda _arguments: group.print_help())
    actions = group.add_subparsers(title="commands", metavar="COMMAND")
    text = "make an authority, and the certificates of nodes and clients that it signs"
    parser = add_command(actions, "generate", text)
    parser.set_defaults(command=ctl_certificates.generate)
    ctl_certificates.add_command(parser)
    days = ctl_certificates.DAYS_DEFAULT
    parser.add_argument("--days", type=positive, default=days, metavar="N", help=f"how long they hold, by default {days}")


if __name__ == "__main__":
    sys.exit(main())

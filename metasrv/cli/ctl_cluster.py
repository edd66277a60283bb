"""The command line of metactl's commands about the whole cluster, about contexts, and of completion.

Knows flags; what the commands do stands in `ctl_members.py`, `ctl_endpoints.py`, `ctl_restart.py`, `ctl_maintenance.py`,
`ctl_contexts.py` and `ctl_completion.py`.
"""

from __future__ import annotations

import argparse

from metasrv.cli import ctl_contexts, ctl_endpoints, ctl_maintenance, ctl_members, ctl_restart
from metasrv.cli.ctl_completion import add_completion
from metasrv.cli.ctl_flags import (
    Command,
    Commands,
    add_admin_command,
    add_command,
    add_context_flag,
    add_output_flag,
    add_watch_flag,
    node_id,
    positive,
)


def add_commands(commands: Commands, whole: argparse.ArgumentParser) -> None:
    """`member`, `endpoint`, `cluster`, `node`, `compact`, `context`, `config` and `completion`."""
    _add_member_commands(commands)
    endpoints = _group(commands, "endpoint", "look at the whole cluster from any one node")
    for name, command, text in (
        ("health", ctl_endpoints.health, "say whether every member is ready and level; exit code 3 if one is not"),
        ("status", ctl_endpoints.status, "show versions, positions, clocks and certificates of all members"),
    ):
        parser = add_admin_command(endpoints, name, command, text)
        add_output_flag(parser)
        add_watch_flag(parser)
    cluster = _group(commands, "cluster", "work on the cluster as a whole")
    text = "say in which order to restart the nodes, and when each is due"
    plan = add_admin_command(cluster, "restart-plan", ctl_restart.restart_plan, text)
    add_output_flag(plan)
    _add_wait_flag(plan, ctl_restart.WAIT_SECONDS_DEFAULT, "name each node when it is due; SECONDS for each")
    ctl_maintenance.add_commands(commands, cluster, _group(commands, "node", "work on one node"))
    _add_context_commands(commands)
    completion = add_command(commands, "completion", "print a script that completes commands and flags in a shell")
    add_completion(completion, whole)


def _group(commands: Commands, name: str, text: str) -> Commands:
    group = add_command(commands, name, text)
    group.set_defaults(command=lambda _arguments: group.print_help())
    return group.add_subparsers(title="commands", metavar="COMMAND")


def _add_member_commands(commands: Commands) -> None:
    members = _group(commands, "member", "list the members of the cluster, and change them")
    listing = add_admin_command(members, "list", ctl_endpoints.list_members, "list the members and how each of them is")
    add_watch_flag(listing)
    adding = add_admin_command(members, "add", ctl_members.add, "write the configuration with which a node joins")
    adding.add_argument("--raft-address", required=True, metavar="HOST:PORT", help="where the others will reach it")
    adding.add_argument("--id", dest="new_id", type=node_id, metavar="N", help="its id, by default the next free one")
    adding.add_argument("--learner", action="store_true", help="it does not vote")
    removing = add_admin_command(members, "remove", ctl_members.remove, "remove a member; a leader hands over first")
    promoting = add_admin_command(members, "promote", ctl_members.promote, "give a learner its vote")
    text = "remove a member that is gone, and write the configuration of the node in its place"
    replacing = add_admin_command(members, "replace", ctl_members.replace, text)
    replacing.add_argument("--raft-address", metavar="HOST:PORT", help="where the new node is, by default as the old one")
    replacing.add_argument("--new-id", type=node_id, metavar="N", help="its id, by default the old one's")
    for parser in (removing, promoting, replacing):
        parser.add_argument("id", type=node_id, metavar="ID", help="the member")
    for parser in (removing, replacing):
        parser.add_argument(
            "--force", action="store_true", help="also where it is refused because the cluster would stop"
        )
    for parser in (adding, replacing):
        _add_new_node_flags(parser)
    for parser in (listing, adding, removing, promoting, replacing):
        add_output_flag(parser)


def _add_new_node_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--new-grpc-address", metavar="HOST:PORT", help="where its clients' port is to listen")
    parser.add_argument("--new-admin-address", metavar="HOST:PORT", help="where its admin API is to listen")
    parser.add_argument("--new-raft-dir", metavar="DIR", help="its data directory, on its machine")
    parser.add_argument("--config-out", metavar="FILE", help="write the configuration there instead of printing it")
    _add_wait_flag(parser, ctl_members.WAIT_SECONDS_DEFAULT, "wait until it has joined, is ready and level")


def _add_wait_flag(parser: argparse.ArgumentParser, seconds: int, text: str) -> None:
    parser.add_argument(
        "--wait", type=positive, nargs="?", const=seconds, metavar="SECONDS", help=f"{text}, {seconds} s by default"
    )


def _add_context_commands(commands: Commands) -> None:
    contexts = _group(commands, "context", "choose the cluster that metactl speaks to")
    listing = _add_local(contexts, "list", ctl_contexts.list_contexts, "list the contexts, and which one is in use")
    using = _add_local(contexts, "use", ctl_contexts.use, "make a context the current one")
    using.add_argument("name", metavar="NAME")
    showing = _add_local(contexts, "show", ctl_contexts.show_context, "show a context, secrets masked")
    showing.add_argument("name", nargs="?", metavar="NAME", help="by default the one in use")
    config = _group(commands, "config", "look at metactl's own file")
    viewing = _add_local(config, "view", ctl_contexts.view, "show the whole file, secrets masked, and what is in use")
    for parser in (listing, showing, viewing):
        add_output_flag(parser)


def _add_local(commands: Commands, name: str, command: Command, text: str) -> argparse.ArgumentParser:
    parser = add_command(commands, name, text)
    parser.set_defaults(command=command)
    add_context_flag(parser)
    return parser

"""The command line of metactl's tools beside the commands for one node: lua, dump-raft-log-wal, filter-tenant, top.

Only flags; what the commands do stands in modules that are loaded when they run.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from metasrv.cli.ctl_flags import add_admin_login_flags, add_grpc_login_flags, positive
from metasrv.cli.later import later_command

AddCommand = Callable[[str, str], argparse.ArgumentParser]


TOP_TEXT = "show the whole cluster in the terminal, live"
TOP_INTERVAL_SECONDS_DEFAULT = 2


def add_top(parser: argparse.ArgumentParser) -> None:
    """The flags of `metactl top` beside those of every command of the admin API."""
    parser.add_argument("--once", action="store_true", help="print one frame and end, as without a terminal")
    parser.add_argument(
        "--interval",
        type=positive,
        default=TOP_INTERVAL_SECONDS_DEFAULT,
        metavar="SECONDS",
        help=f"between two frames, default {TOP_INTERVAL_SECONDS_DEFAULT}; the node has news every 2 s",
    )


def add_tools(add: AddCommand) -> None:
    """`add` makes the parser of a command from its name and a sentence."""
    lua = add("lua", "run Lua scripts in order, or the one on standard input")
    lua.set_defaults(command=later_command("ctl_lua", "run_scripts"))
    lua.add_argument(
        "--file", dest="sources", action="append", type=_file, metavar="FILE", help="a script's file; repeatable"
    )
    lua.add_argument(
        "--script", dest="sources", action="append", type=_script, metavar="CODE", help="a script's text; repeatable"
    )
    add_grpc_login_flags(lua)
    add_admin_login_flags(lua)
    dump = add("dump-raft-log-wal", "print the raft log of a stopped node, a line a record")
    dump.set_defaults(command=later_command("ctl_dump", "dump_raft_log"))
    dump.add_argument("--raft-dir", required=True, metavar="DIR", help="the data directory of a stopped node")
    dump.add_argument("-V", "--decode-values", action="store_true", help="show values that are text")
    dump.add_argument("-R", "--raw", action="store_true", help="show the bytes of values")
    filtering = add("filter-tenant", "copy the lines of an export that belong to one tenant of Databend")
    filtering.set_defaults(command=later_command("ctl_filter", "filter_tenant"))
    filtering.add_argument("--tenant", required=True, metavar="NAME", help="the tenant whose keys are kept")
    filtering.add_argument("--input", default="", metavar="FILE", help="the export; standard input by default")
    filtering.add_argument("--output", default="", metavar="FILE", help="write to FILE instead of standard output")


def _file(path: str) -> tuple[str, str]:
    return "file", path


def _script(text: str) -> tuple[str, str]:
    return "script", text

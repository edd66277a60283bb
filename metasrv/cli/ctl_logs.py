"""`metactl log-level` and `metactl slow-writes`: what one node logs, and which of its clients' writes took long.

Over the admin API of the node that is asked. Runs in the foreground of a short process.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from metasrv.cli.ctl_admin import AdminClient, client_of
from metasrv.cli.ctl_flags import Commands, add_admin_command, add_output_flag, positive
from metasrv.cli.formats import Column, show_answer
from metasrv.cli.output import time_text
from metasrv.cli.terminal import note, show
from metasrv.model.errors import InvalidRequestError, NotDoneError

LOG_LEVELS_PATH = "/v1/log-levels"
SLOW_WRITES_PATH = "/v1/slow-writes"
_KIB = 1024
LEVEL_COLUMNS = (
    Column("LOGGER", lambda row: row["logger"]),
    Column("LEVEL", lambda row: row["level"]),
    Column("CONFIGURED", lambda row: row["configured"]),
    Column("UNTIL", lambda row: None if row["expires_at_ms"] is None else time_text(row["expires_at_ms"])),
)
WRITE_COLUMNS = (
    Column("ENDED", lambda row: time_text(row["ended_at_ms"])),
    Column("TOOK", lambda row: f"{row['milliseconds']:,.1f}ms"),
    Column("SIZE", lambda row: size_text(row["size_bytes"])),
    Column("METHOD", lambda row: row["method"]),
    Column("OPERATIONS", lambda row: row["operations"] or None),
    Column("FAILED", lambda row: row["failure"]),
    Column("KEYS", lambda row: keys_text(row)),
)


def add_commands(commands: Commands) -> None:
    text = "show the log levels of a node, or change one for a time"
    level = add_admin_command(commands, "log-level", log_level, text)
    level.add_argument("--logger", metavar="NAME", help="metasrv.raft for example; `root` is every other one")
    level.add_argument("--level", metavar="LEVEL", help="off, critical, error, warn, info, debug or trace")
    level.add_argument("--for", dest="seconds", type=positive, metavar="SECONDS", help="then it goes back, default 300")
    add_output_flag(level)
    text = "list the slowest and the largest writes of a node's clients in the last minutes"
    slow = add_admin_command(commands, "slow-writes", slow_writes, text)
    slow.add_argument("--largest", action="store_true", help="the largest ones instead of the slowest")
    add_output_flag(slow)


def log_level(arguments: argparse.Namespace) -> None:
    """Show the levels, or change one."""
    client = client_of(arguments)
    if arguments.logger is None and arguments.level is None:
        if arguments.seconds is not None:
            raise InvalidRequestError("--for goes with --logger and --level")
        answer = client.json(LOG_LEVELS_PATH, ("levels", "loggers"))
        show_answer(arguments.output, answer, answer["levels"], LEVEL_COLUMNS)
        return
    if arguments.logger is None or arguments.level is None:
        raise InvalidRequestError("--logger and --level go together")
    changed = _change(client, arguments)
    if arguments.output != "table":
        show_answer(arguments.output, changed, [changed], LEVEL_COLUMNS)
        return
    until = time_text(changed["expires_at_ms"])
    show(f"{changed['logger']} logs from {changed['level']} on until {until}, then from {changed['configured']} on")


def _change(client: AdminClient, arguments: argparse.Namespace) -> dict[str, Any]:
    body = {"logger": arguments.logger, "level": arguments.level}
    if arguments.seconds is not None:
        body["seconds"] = arguments.seconds
    try:
        changed = json.loads(client.put(LOG_LEVELS_PATH, body))
        return {name: changed[name] for name in ("logger", "level", "configured", "expires_at_ms")}
    except (ValueError, TypeError, KeyError) as error:
        raise NotDoneError("the server is not a node's admin API: it answered something else") from error


def slow_writes(arguments: argparse.Namespace) -> None:
    """The slowest writes, or the largest."""
    answer = client_of(arguments).json(SLOW_WRITES_PATH, ("slowest", "largest", "keys"))
    rows = answer["largest" if arguments.largest else "slowest"]
    show_answer(arguments.output, answer, rows, WRITE_COLUMNS)
    if answer["keys"]:
        note(str(answer["keys"]))


def keys_text(row: dict[str, Any] | Any) -> str | None:
    """The keys of one write, and how many operations stand behind them."""
    if not row["keys"]:
        return None
    more = row["operations"] - len(row["keys"])
    return ", ".join(row["keys"]) + (f" and {more} more" if more > 0 else "")


def size_text(size_bytes: int) -> str:
    """`512 B`, `4.0 KiB` or `1.2 MiB`."""
    if size_bytes < _KIB:
        return f"{size_bytes} B"
    return f"{size_bytes / _KIB:.1f} KiB" if size_bytes < _KIB * _KIB else f"{size_bytes / _KIB / _KIB:.1f} MiB"

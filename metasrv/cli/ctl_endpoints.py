"""metactl's view of the whole cluster from any one endpoint: `member list`, `endpoint status`, `endpoint health`.

One request to `/v1/cluster/members`; that node asks the others. Runs in the foreground of a short process.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from metasrv.cli.ctl_admin import AdminClient, client_of
from metasrv.cli.formats import Column, show_answer
from metasrv.cli.terminal import note
from metasrv.model.errors import MetasrvError, NotDoneError

MEMBERS_PATH = "/v1/cluster/members"
LAG_ENTRIES_MAX = 64
"""A member that lags by no more than this is level: as a learner it would get its vote."""
_CLEAR_SCREEN = "\x1b[H\x1b[2J"
_MEMBERS = ("members", "leader", "failure_tolerance_text")

LIST_COLUMNS = (
    Column("ID", lambda row: row["id"]),
    Column("ROLE", lambda row: row["role"]),
    Column("RAFT ADDRESS", lambda row: row["raft_address"]),
    Column("GRPC ADDRESS", lambda row: row["grpc_address"]),
    Column("READY", lambda row: row["ready"] if row["reachable"] else "silent"),
    Column("LAG", lambda row: row["lag"]),
    Column("LAST CONTACT", lambda row: milliseconds(row["last_contact_ms"])),
    Column("LEARNS FOR", lambda row: milliseconds(row["learner_for_ms"])),
)
STATUS_COLUMNS = (
    Column("ID", lambda row: row["id"]),
    Column("ROLE", lambda row: row["role"]),
    Column("VERSION", lambda row: row["version"]),
    Column("TERM", lambda row: row["term"]),
    Column("APPLIED", lambda row: row["applied_index"]),
    Column("LAG", lambda row: row["lag"]),
    Column("READY", lambda row: row["ready"] if row["reachable"] else "silent"),
    Column("CLOCK", lambda row: None if row["clock_offset_ms"] is None else f"{row['clock_offset_ms']:+d}ms"),
    Column("CERTIFICATES", lambda row: certificates(row["certificates"])),
    Column("UP", lambda row: up_for(row["started_at_ms"])),
)
HEALTH_COLUMNS = (
    Column("ID", lambda row: row["id"]),
    Column("ROLE", lambda row: row["role"]),
    Column("HEALTHY", lambda row: row["healthy"]),
    Column("WHY", lambda row: row["why"]),
)


class UnhealthyError(MetasrvError):
    """The command answered, and the cluster is not as healthy as was asked for; exit code 3."""


def list_members(arguments: argparse.Namespace) -> None:
    """Every member, and how many failures the cluster survives."""

    def once() -> None:
        view = members_of(client_of(arguments))
        show_answer(arguments.output, view, view["members"], LIST_COLUMNS, [view["failure_tolerance_text"]])

    repeated(arguments, once)


def status(arguments: argparse.Namespace) -> None:
    """Versions, positions, clocks and certificates of all members."""

    def once() -> None:
        view = members_of(client_of(arguments))
        leads = "no leader is known" if view["leader"] is None else f"node {view['leader']} leads"
        after = [f"{leads}; {view['failure_tolerance_text']}"]
        after += [f"node {row['id']}: {row['warnings']}" for row in view["members"] if row["warnings"]]
        show_answer(arguments.output, view, view["members"], STATUS_COLUMNS, after)

    repeated(arguments, once)


def health(arguments: argparse.Namespace) -> None:
    """Whether every member is ready and level. Raises UnhealthyError, after the table, when one is not."""

    def once() -> None:
        view = members_of(client_of(arguments))
        rows = [{"id": row["id"], "role": row["role"], **_health(row)} for row in view["members"]]
        whole = {
            "healthy": not unhealthy(view),
            "failure_tolerance": view["failure_tolerance"],
            "failure_tolerance_text": view["failure_tolerance_text"],
            "members": rows,
        }
        show_answer(arguments.output, whole, rows, HEALTH_COLUMNS, [view["failure_tolerance_text"]])
        if (why := unhealthy(view)) and not arguments.watch:
            raise UnhealthyError(why)

    repeated(arguments, once)


def members_of(client: AdminClient) -> dict[str, Any]:
    """The answer about all members. Raises as `AdminClient.json`."""
    return client.json(MEMBERS_PATH, _MEMBERS)


def unhealthy(view: Mapping[str, Any]) -> str:
    """What is wrong in the whole cluster, as one sentence; empty when nothing is."""
    problems = [f"node {row['id']}: {why}" for row in view["members"] if (why := member_problem(row))]
    if view["leader"] is None:
        problems.insert(0, "no leader is known")
    return "; ".join(problems)


def member_problem(row: Mapping[str, Any]) -> str:
    """Why one member is not ready and level; empty when it is."""
    if not row["reachable"]:
        return row["error"] or "it does not answer"
    if row["ready"] is None:
        return "its release does not say whether it is ready"
    if not row["ready"]:
        return str(row["not_ready"])
    if (row["lag"] or 0) > LAG_ENTRIES_MAX:
        return f"it lags by {row['lag']} entries"
    return ""


def _health(row: Mapping[str, Any]) -> dict[str, Any]:
    why = member_problem(row)
    return {"healthy": not why, "why": why or row["warnings"] or None}


def repeated(arguments: argparse.Namespace, once: Callable[[], None]) -> None:
    """Do it once, or every `--watch` seconds until interrupted; a node that does not answer then is only mentioned."""
    if not arguments.watch:
        once()
        return
    while True:
        if sys.stdout is not None and sys.stdout.isatty():
            sys.stdout.write(_CLEAR_SCREEN)
        try:
            once()
        except NotDoneError as error:
            note(f"Error: {error}")
        if sys.stdout is not None:
            sys.stdout.flush()
        time.sleep(arguments.watch)


# ----------------------------------------------------------------------------- cells


def milliseconds(value: int | None) -> str | None:
    """`12ms`, or days, hours, minutes and seconds from a second on."""
    if value is None:
        return None
    return f"{value}ms" if value < 1000 else str(timedelta(seconds=value // 1000))


def up_for(started_at_ms: int | None) -> str | None:
    """How long ago that was, by this machine's clock."""
    return None if started_at_ms is None else str(timedelta(seconds=max(0, int(time.time() - started_at_ms / 1000))))


def certificates(expiries: Mapping[str, int] | None) -> str | None:
    """Days that the certificate of each port is still good for."""
    if not expiries:
        return None
    now = time.time()
    return " ".join(f"{port}:{(at - now) / 86_400:.0f}d" for port, at in sorted(expiries.items()))

"""`metactl cluster restart-plan`: which node to restart next, and when it is time for the one after it.

Learners come first, then followers, the leader last: a node that stops hands leadership over, so that it moves once. It
restarts nothing itself; who runs the nodes does. Runs in the foreground, for as long as a rolling restart takes.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from typing import Any

from metasrv.cli.ctl_admin import AdminClient, client_of
from metasrv.cli.ctl_endpoints import UnhealthyError, member_problem, members_of, unhealthy
from metasrv.cli.formats import Column, show_answer
from metasrv.cli.terminal import show
from metasrv.model.errors import NotDoneError

WAIT_SECONDS_DEFAULT = 600
SAME_RUN_MS = 1_000
"""No node is started twice, and ready, within this time."""
_POLL_SECONDS = 0.5
_ORDER = {"learner": 0, "voter": 1, "leader": 2}
COLUMNS = (
    Column("STEP", lambda row: row["step"]),
    Column("RESTART", lambda row: f"node {row['restart']}"),
    Column("ROLE", lambda row: row["role"]),
    Column("RAFT ADDRESS", lambda row: row["raft_address"]),
)


def restart_plan(arguments: argparse.Namespace) -> None:
    """Print the order; with `--wait` one step after the other, each when the node before is ready and level again.

    Raises UnhealthyError when a restart would not be safe now, NotDoneError when a node does not come back in time.
    """
    client = client_of(arguments)
    view = members_of(client)
    rows = planned(view)
    if arguments.wait is None:
        after = [f"{view['failure_tolerance_text']}; restart one node, and the next when it is ready and level again"]
        show_answer(
            arguments.output, {"steps": rows, "safe": not unsafe(view), "why": unsafe(view) or None}, rows, COLUMNS, after
        )
        if why := unsafe(view):
            raise UnhealthyError(why)
        return
    started = {row["id"]: row["started_at_ms"] for row in view["members"]}
    left = [row["restart"] for row in rows]
    for step in range(1, len(rows) + 1):
        view = _wait_until_safe(client, arguments.wait)
        # The leader of this moment is last, whoever led when the plan was made.
        now = [row for row in planned(view) if row["restart"] in left]
        if not now:
            break
        row = {**now[0], "step": step, "steps": len(rows)}
        _say(arguments, row, f"step {step} of {len(rows)}: restart node {row['restart']}, a {row['role']}, now")
        _wait_for_restart(client, row["restart"], started[row["restart"]], arguments.wait)
        left.remove(row["restart"])
    _wait_until_safe(client, arguments.wait)
    _say(arguments, {"step": None, "restart": None, "steps": len(rows)}, "every node was restarted, is ready and level")


def planned(view: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The members in the order of their restarts."""
    ordered = sorted(view["members"], key=lambda row: (_ORDER[row["role"]], row["id"]))
    return [
        {"step": step, "restart": row["id"], "role": row["role"], "raft_address": row["raft_address"]}
        for step, row in enumerate(ordered, 1)
    ]


def unsafe(view: Mapping[str, Any]) -> str:
    """Why no node should be restarted now; empty when one may be."""
    problem = unhealthy(view)
    if not problem and view["failure_tolerance"] < 1 and view["voters"] > 1:
        return f"{view['failure_tolerance_text']}, so a restart interrupts writes"
    return problem


def _wait_until_safe(client: AdminClient, timeout_seconds: int) -> dict[str, Any]:
    deadline = time.monotonic() + timeout_seconds
    while True:
        try:
            view = members_of(client)
            problem = unhealthy(view)
        except NotDoneError as error:
            view, problem = {}, str(error)
        if not problem:
            return view
        if time.monotonic() >= deadline:
            raise NotDoneError(f"the cluster is not level after {timeout_seconds} s: {problem}")
        time.sleep(_POLL_SECONDS)


def _wait_for_restart(client: AdminClient, node_id: int, started_at_ms: int | None, timeout_seconds: int) -> None:
    """Return when the node runs since another moment, is ready and level."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        try:
            rows = [row for row in members_of(client)["members"] if row["id"] == node_id]
            problem = member_problem(rows[0]) if rows else "it is no longer a member"
            if not problem and _is_same_run(rows[0]["started_at_ms"], started_at_ms):
                problem = "it was not restarted"
        except NotDoneError as error:  # the node that is asked may be the one that is restarted
            problem = str(error)
        if not problem:
            return
        if time.monotonic() >= deadline:
            raise NotDoneError(f"node {node_id} is not back after {timeout_seconds} s: {problem}")
        time.sleep(_POLL_SECONDS)


def _is_same_run(started_at_ms: int | None, before_ms: int | None) -> bool:
    """Whether two answers are about one run of a node; of one of release 0.2.0 the moment is known about."""
    if started_at_ms is None or before_ms is None:
        return started_at_ms == before_ms
    return abs(started_at_ms - before_ms) < SAME_RUN_MS


def _say(arguments: argparse.Namespace, row: Mapping[str, Any], sentence: str) -> None:
    """One event, at once: a line for people, or one of JSON."""
    show(sentence if arguments.output == "table" else json.dumps(row), flush=True)

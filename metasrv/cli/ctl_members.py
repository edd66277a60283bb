"""metactl's commands that change members: `member add`, `remove`, `promote`, `replace`.

One request each to the admin API of any node. Runs in the foreground of a short process.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from typing import Any

from metasrv.cli.ctl_admin import AdminClient, client_of
from metasrv.cli.ctl_endpoints import MEMBERS_PATH, member_problem, members_of
from metasrv.cli.formats import show_answer
from metasrv.cli.terminal import note, opened_for_writing, show
from metasrv.model.errors import InvalidRequestError, NotDoneError, StorageError

WAIT_SECONDS_DEFAULT = 300
_POLL_SECONDS = 0.5


def add(arguments: argparse.Namespace) -> None:
    """Ask whether a node can join, and hand out its configuration; with `--wait` until it has joined."""
    client = client_of(arguments)
    body = {**_wish(arguments), "learner": arguments.learner}
    answer = json.loads(client.post(MEMBERS_PATH, body))
    _show(arguments, answer)
    if arguments.wait is not None:
        _wait_for(client, answer["id"], arguments.wait, votes=not arguments.learner)


def remove(arguments: argparse.Namespace) -> None:
    """Remove a member."""
    query = {"force": "true"} if arguments.force else {}
    _show(arguments, json.loads(client_of(arguments).delete(f"{MEMBERS_PATH}/{arguments.id}", **query)))


def promote(arguments: argparse.Namespace) -> None:
    """Give a learner its vote."""
    _show(arguments, json.loads(client_of(arguments).post(f"{MEMBERS_PATH}/{arguments.id}/promote", {})))


def replace(arguments: argparse.Namespace) -> None:
    """Remove a silent member, and hand out the configuration of the node that takes its place."""
    client = client_of(arguments)
    query = {"force": "true"} if arguments.force else {}
    answer = json.loads(client.post(f"{MEMBERS_PATH}/{arguments.id}/replace", _wish(arguments), **query))
    _show(arguments, answer)
    if arguments.wait is not None:
        _wait_for(client, answer["id"], arguments.wait, votes=None)


def _wish(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the flags say of the new node."""
    given = {
        "id": arguments.new_id,
        "raft_address": arguments.raft_address,
        "grpc_api_address": arguments.new_grpc_address,
        "admin_api_address": arguments.new_admin_address,
        "raft_dir": arguments.new_raft_dir,
    }
    if arguments.config_out and os.path.lexists(arguments.config_out):
        raise InvalidRequestError(f"--config-out {arguments.config_out} exists already; nothing was asked")
    return {name: value for name, value in given.items() if value is not None}


def _show(arguments: argparse.Namespace, answer: dict[str, Any]) -> None:
    """Three lines and the configuration, or the whole answer."""
    configuration, path = answer["configuration"], getattr(arguments, "config_out", None)
    if configuration is not None and path:
        try:
            with opened_for_writing(path) as file:
                file.write(configuration)
        except StorageError:
            note(configuration)  # the change was made: what it needs must not be lost
            raise
        note(f"the configuration is in {path}")
    if arguments.output != "table":
        show_answer(arguments.output, answer, [answer], ())
        return
    show(answer["changed"])
    show(answer["failure_tolerance_text"])
    show(f"next: {answer['next_step']}", flush=True)
    if configuration is not None and not path:
        show("")
        for line in configuration.rstrip("\n").split("\n"):
            show(line, flush=True)


def _wait_for(client: AdminClient, node_id: int, timeout_seconds: int, *, votes: bool | None) -> None:
    """Return when the node is a member, ready and level, and votes if it is to. Raises NotDoneError."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        try:
            rows = [row for row in members_of(client)["members"] if row["id"] == node_id]
            problem = member_problem(rows[0]) if rows else "it has not joined"
            if not problem and votes and not rows[0]["votes"]:
                problem = "it does not vote yet"
        except NotDoneError as error:
            problem = str(error)
        if not problem:
            note(f"node {node_id} is a member, ready and level")
            return
        if time.monotonic() >= deadline:
            raise NotDoneError(f"node {node_id} is not there after {timeout_seconds} s: {problem}")
        time.sleep(_POLL_SECONDS)

"""`metactl events`: what happened in the cluster, from every node that answers, as lines or as JSON.

Asks one node, which asks the others. With `--follow` it asks again each second and prints what is new, until it is
interrupted. Runs in the foreground of a short process.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import deque
from typing import Any

from metasrv.cli.ctl_admin import client_of
from metasrv.cli.output import time_text
from metasrv.cli.terminal import note, show

LIMIT_DEFAULT = 100
FOLLOW_SECONDS = 1.0
LATE_MS = 60_000
"""An event of another node may become known so long after it happened: while asked again, this much is looked at anew."""
_REMEMBERED_MAX = 4_096
_MEMBERS = ("events", "missing_nodes")


def events(arguments: argparse.Namespace) -> None:
    """Print the newest events, oldest first; the nodes that do not tell theirs are named on stderr."""
    client = client_of(arguments)
    answer = client.json("/v1/events", _MEMBERS, limit=arguments.limit, node=arguments.node)
    as_json = arguments.output == "json"
    if not arguments.follow:
        for event in answer["events"]:
            show(_shown(event, as_json))
        _name_missing(answer["missing_nodes"], [])
        return
    told: deque[str] = deque(maxlen=_REMEMBERED_MAX)
    missing: list[int] = []
    since_ms = 0
    while True:
        for event in answer["events"]:
            since_ms = max(since_ms, event["time_ms"] - LATE_MS)
            if event["id"] not in told:
                told.append(event["id"])
                show(_shown(event, as_json), flush=True)
        _name_missing(answer["missing_nodes"], missing)
        missing = answer["missing_nodes"]
        time.sleep(FOLLOW_SECONDS)
        answer = client.json("/v1/events", _MEMBERS, since_ms=since_ms, limit=1_000, node=arguments.node)


def _name_missing(missing: list[int], named: list[int]) -> None:
    if missing and missing != named:
        nodes = ", ".join(str(node_id) for node_id in missing)
        note(
            f"without the events of node {nodes}, which does not answer"
            if len(missing) == 1
            else f"without the events of nodes {nodes}, which do not answer"
        )


def _shown(event: dict[str, Any], as_json: bool) -> str:
    if as_json:
        return json.dumps(event, ensure_ascii=False, separators=(",", ":"))
    return event_line(event)


def event_line(event: dict[str, Any]) -> str:
    """`2026-11-27T15:49:45.311Z node 2 warning  election  node 2 begins …`."""
    moment = time_text(event["time_ms"])
    return f"{moment} node {event['node_id']} {event['severity']:8} {event['kind']:14} {event['text']}"

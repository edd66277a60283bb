"""metactl's commands of maintenance: the read-only switch, the drain of a node, compaction.

Over the admin API, by POST alone. Runs in the foreground of a short process.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any
from urllib.parse import urlencode

from metasrv.cli import ctl_admin
from metasrv.cli.ctl_flags import Commands, add_admin_command, node_id
from metasrv.cli.terminal import note, show
from metasrv.model.errors import NotDoneError

_STATUS = ("compaction", "id")
_POLL_SECONDS = 0.2
_KIB = 1024


def add_commands(commands: Commands, cluster: Commands, node: Commands) -> None:
    """Add the commands; `cluster` and `node` are those of the two groups."""
    text = "refuse writes of clients in the whole cluster, or take them"
    switch = add_admin_command(cluster, "read-only", read_only, text)
    switch.add_argument("state", choices=("on", "off"))
    switch.add_argument("--reason", default="", metavar="TEXT", help="why; it stands in every refusal")
    draining = add_admin_command(node, "drain", drain, "let a node lead no more and be not ready, until a restart")
    draining.add_argument("id", type=node_id, metavar="ID", help="the node, whose admin API is asked")
    draining.add_argument("--off", action="store_true", help="end the drain")
    text = "purge a node's log up to a new snapshot and give free space back"
    add_admin_command(commands, "compact", compact, text)


def read_only(arguments: argparse.Namespace) -> None:
    on = arguments.state == "on"
    answer = _post(arguments, "/v1/ctrl/read_only", on=on, reason=arguments.reason if on else None)
    if answer["read_only"]:
        why = f": {answer['reason']}" if answer["reason"] else ""
        show(f"the cluster is read-only{why}")
        note("reads, watches, exports and expiry go on; `metactl cluster read-only off` takes writes again")
    else:
        show("the cluster takes writes")


def drain(arguments: argparse.Namespace) -> None:
    answer = _post(arguments, "/v1/ctrl/drain", on=not arguments.off, id=arguments.id)
    if answer["drained"]:
        show(f"node {answer['id']} is drained: it does not lead and is not ready, and goes on replicating")
        note(f"`metactl node drain {answer['id']} --off` or a restart of the node ends that")
    else:
        show(f"node {answer['id']} is not drained")


def compact(arguments: argparse.Namespace) -> None:
    """Begin, wait until it is done, and say what came of it."""
    client = ctl_admin.client_of(arguments)
    progress = _post(arguments, "/v1/ctrl/compact")
    step = ""
    while progress["running"]:
        if progress["step"] != step:
            step = progress["step"]
            note({"snapshot": "writing a snapshot", "log": "purging the log", "space": "giving space back"}[step])
        time.sleep(_POLL_SECONDS)
        progress = client.json("/v1/cluster/status", _STATUS)["compaction"]
        if progress is None:
            raise NotDoneError("the node was restarted meanwhile")
    before, after = progress["sizes_before"], progress["sizes_after"]
    for name in before:
        show(f"{name}: {_size(before[name])} -> {_size(after[name])}")
    freed = sum(before.values()) - sum(after.values())
    gained = f"{_size(freed)} freed" if freed >= 0 else f"{_size(-freed)} more than before, with the new snapshot"
    show(f"{progress['entries_purged']} log entries purged, {gained}")
    if progress["error"] is not None:
        raise NotDoneError(f"compaction ended early: {progress['error']}")


def _post(arguments: argparse.Namespace, path: str, **query: object) -> dict[str, Any]:
    given = {name: str(value).lower() if isinstance(value, bool) else value for name, value in query.items()}
    target = urlencode({name: value for name, value in given.items() if value is not None})
    body = ctl_admin.client_of(arguments).post(f"{path}?{target}" if target else path, None)
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise NotDoneError("the server is not a node's admin API: it answered something else")
    return answer


def _size(size_bytes: int) -> str:
    if size_bytes < _KIB:
        return f"{size_bytes} bytes"
    return f"{size_bytes / _KIB:.0f} KiB" if size_bytes < _KIB * _KIB else f"{size_bytes / _KIB / _KIB:.1f} MiB"

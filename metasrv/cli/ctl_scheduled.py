"""metactl's commands about the backups that the leader makes by itself: `backup list`, `backup now`.

Runs in the foreground of a short process; asks the admin API of one node.
"""

from __future__ import annotations

import argparse
import time
from datetime import UTC, datetime

from metasrv.cli.ctl_admin import client_of
from metasrv.cli.terminal import note, show
from metasrv.model.errors import BackupError, NotDoneError

WAIT_SECONDS_DEFAULT = 3600
_POLL_SECONDS = 0.2
_LIST = ("place", "archives")


def list_backups(arguments: argparse.Namespace) -> None:
    """The archives of the cluster, the oldest first; any node answers."""
    answer = client_of(arguments).json("/v1/backup/list", _LIST)
    note(f"{len(answer['archives'])} archives of this cluster in {answer['place']}")
    for archive in answer["archives"]:
        saved_at, index, size_bytes = _time(archive["saved_at_ms"]), archive["log_index"], archive["size_bytes"]
        show(f"{saved_at} index={index} bytes={size_bytes} {archive['name']}")


def backup_now(arguments: argparse.Namespace) -> None:
    """Have the leader make a backup, and wait for it. Raises BackupError when it fails."""
    client = client_of(arguments)
    attempt = int(client.json("/v1/ctrl/trigger_backup", ("attempt",))["attempt"])
    deadline = time.monotonic() + arguments.wait
    while True:
        status = client.json("/v1/cluster/status", ("backup", "is_leader"))
        backup = status["backup"]
        if backup["attempts"] >= attempt:
            break
        if not status["is_leader"]:
            raise NotDoneError("another node leads now, and the backup was given up; ask that one")
        if time.monotonic() >= deadline:
            raise NotDoneError(f"the backup has not ended after {arguments.wait} s; it goes on")
        time.sleep(_POLL_SECONDS)
    if backup["failure"]:
        raise BackupError(backup["failure"])
    show(
        f"backup made at {_time(backup['last_saved_at_ms'])}: {backup['last_size_bytes']} bytes, written and checked in "
        f"{backup['last_duration_seconds']} s, in {backup['place']}"
    )


def _time(milliseconds: int) -> str:
    return f"{datetime.fromtimestamp(milliseconds / 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"

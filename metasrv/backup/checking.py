"""`metasrv check DIR`: whether identity, log, state and snapshots of a stopped node are sound, and what helps if not.

Every byte that has a checksum is read. Nothing is repaired. Runs in a program of its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

from metasrv.backup.verifying import verify_state
from metasrv.model.errors import DataDamagedError, StorageError
from metasrv.process.data_directory import DataDirectory
from metasrv.raft.log.checks import check_applied
from metasrv.raft.log.files import open_log
from metasrv.raft.log.format import INDEX, TERM, LogContents
from metasrv.state.bulk import applied_of
from metasrv.state.first_format import FIRST_FORMAT_VERSION
from metasrv.state.snapshot import verify_snapshot

REBUILD = (
    "while the other nodes have a quorum: `metasrv --rebuild -c FILE` gets this node's data from them. Without one: "
    "`metasrv recover` on the survivor with the newest entries, or `metactl snapshot restore` of a backup "
    "(docs/runbooks/no-leader.md)"
)
REMOVE_SNAPSHOT = "remove the file; the state does not need it, and `metactl trigger-snapshot` writes another"
START = "start the node: it does what is left to do"
_VERSION_OFFSET = 60


class Finding(NamedTuple):
    """What one part of the directory is like."""

    part: str
    text: str
    helps: str = ""
    """Empty when the part is sound."""
    damaged: bool = False

    def lines(self) -> Iterator[str]:
        yield f"{self.part}: {'DAMAGED: ' if self.damaged else ''}{self.text}"
        if self.helps:
            yield f"  what helps: {self.helps}"


def check_directory(root: str) -> Iterator[Finding]:
    """What each part is like. Raises IdentityError when the directory is in use or no node's, StorageError."""
    try:
        directory = DataDirectory.open_present(root)
    except DataDamagedError as error:
        yield Finding("identity", str(error), REBUILD, True)
        return
    try:
        identity = directory.identity
        yield Finding("identity", f"node {identity.node_id} of cluster {identity.cluster_id}")
        if identity.removed is not None:
            helps = "the node joins again with an empty directory (docs/runbooks/removed-node.md)"
            yield Finding("membership", f"it is no longer a member: {identity.removed}", helps)
        if note := directory.damage():
            yield Finding("note", note, REBUILD, True)
        log = None
        try:
            opened = open_log(directory.log_path, None)
            opened.mark.close()
            log = opened.contents
            entries = log.entries
            yield Finding(
                "log", f"{len(entries)} entries, {entries[0][INDEX]} to {entries[-1][INDEX]}, term {log.meta.term}"
            )
        except DataDamagedError as error:
            yield Finding("log", str(error), REBUILD, True)
        yield from _check_state(directory, log)
        yield from _check_snapshots(directory)
    finally:
        directory.close()


def _check_state(directory: DataDirectory, log: LogContents | None) -> Iterator[Finding]:
    path = directory.state_path
    if os.path.exists(f"{path}.install"):
        yield Finding("state", "a snapshot was chosen to take its place, and the last stop came in between", START)
        return
    if not os.path.exists(path):
        yield Finding("state", f"{path} is missing", REBUILD, True)
        return
    with open(path, "rb") as file:
        version = int.from_bytes(file.read(_VERSION_OFFSET + 4)[_VERSION_OFFSET:], "big")
    if version == FIRST_FORMAT_VERSION:
        yield Finding(
            "state", "it has format 1, of builds before 0.2.0, and was not checked", f"{START} (it is converted)"
        )
        return
    try:
        records = verify_state(path)
        applied = applied_of(path)
        yield Finding("state", f"{records} records, applied up to {applied.log_id}")
        if log is not None:
            check_applied(directory.log_path, log.entries[-1][INDEX], applied.log_id.index)
            held = [entry for entry in log.entries if entry[INDEX] == applied.log_id.index]
            if held and held[0][TERM] != applied.log_id.term:
                text = (
                    f"entry {applied.log_id.index} has term {held[0][TERM]} there and {applied.log_id.term} in the state"
                )
                yield Finding("log and state", text, REBUILD, True)
    except DataDamagedError as error:
        yield Finding("state", str(error), REBUILD, True)


def _check_snapshots(directory: DataDirectory) -> Iterator[Finding]:
    try:
        names = sorted(name for name in os.listdir(directory.snapshot_directory) if name.endswith(".snap"))
    except FileNotFoundError:
        return
    except OSError as error:
        raise StorageError(f"{directory.snapshot_directory} cannot be read: {error.strerror}") from error
    for name in names:
        path = os.path.join(directory.snapshot_directory, name)
        try:
            info = verify_snapshot(path, cluster_id=directory.identity.cluster_id)
            yield Finding(f"snapshot {name}", f"{info.key_count} records, up to {info.log_id}")
        except DataDamagedError as error:
            yield Finding(f"snapshot {name}", str(error), REMOVE_SNAPSHOT, True)

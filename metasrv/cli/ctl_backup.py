"""metactl's commands that make, look at and restore backups: import, export of a stopped node, snapshot.

Runs in the foreground of a short process. What is read and written is the work of `metasrv/backup/`.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Iterator, Sequence
from io import BytesIO
from typing import BinaryIO

from metasrv.backup.archive import ArchiveReader, ArchiveWriter
from metasrv.backup.contents import Contents
from metasrv.backup.inspecting import confirmation, inspect, report
from metasrv.backup.lines import LastApplied, parse_line
from metasrv.backup.offline import stopped_node, whole_state
from metasrv.backup.restoring import Restored, Wanted, parse_members, restore
from metasrv.cli import ctl_grpc
from metasrv.cli.ctl_grpc import client_of, write_lines
from metasrv.cli.progress import Progress
from metasrv.cli.terminal import note, opened_archive, show
from metasrv.grpc_api.export_lines import ArchiveHead, export_lines
from metasrv.model.errors import BackupError, InvalidRequestError, NotDoneError
from metasrv.model.types import LogId

_ARCHIVE_LINE = '["archive",'
_META_LINE = '["state_machine/0",{"StateMachineMeta"'


# ----------------------------------------------------------------------------- export, import


def export(arguments: argparse.Namespace) -> None:
    """Export a stopped node when its directory is given, otherwise of a running one."""
    if arguments.raft_dir:
        export_stopped(arguments)
    else:
        ctl_grpc.export(arguments)


def export_stopped(arguments: argparse.Namespace) -> None:
    """The state of a stopped node, as lines of JSON."""
    note(f"export from the data directory {arguments.raft_dir}")
    with stopped_node(arguments.raft_dir) as node:
        if node.entries:
            note(
                f"its state ends at entry {node.applied.index}; {len(node.entries)} entries that only its log has are "
                "applied as well, whether or not a majority had them"
            )
        node_id = node.identity.node_id if arguments.id is None else arguments.id
        with whole_state(node) as machine, machine.open_reader() as view:
            write_lines(export_lines(view, node_id), arguments.db)


def import_backup(arguments: argparse.Namespace) -> None:
    """The data directory of a node, from a backup; what is in the directory is moved aside."""
    if not arguments.raft_dir:
        raise InvalidRequestError("--raft-dir is missing: where is the data directory to be?")
    _restore(arguments.db, arguments, replace=True)


# ----------------------------------------------------------------------------- snapshot


def save(arguments: argparse.Namespace) -> None:
    """An archive of a running node's state."""
    progress = Progress("saved")
    applied: LogId | None = None
    head: ArchiveHead | None = None
    with client_of(arguments) as client, opened_archive(arguments.file) as file:
        writer = ArchiveWriter(file)
        try:
            for lines in client.archive(local=arguments.local):
                if writer.lines == 0:
                    head = _head_of(lines[0])
                    if head is None:
                        head = ArchiveHead(None, None, int(time.time() * 1000), False, 0, None, ())
                        writer.write([head.line()])
                if applied is None:
                    applied = _applied_in(lines)
                writer.write(lines)
                progress(writer.lines, writer.size_bytes)
        except NotDoneError as error:
            if arguments.local or writer.lines:
                raise
            raise BackupError(
                f"{error}; a node without a quorum cannot say whether it has everything: --local saves what it has"
            ) from error
        finally:
            progress.end()
        sha256 = writer.finish()
    if head is not None and head.last_log_index:
        confirmed = confirmation(head.confirmed, applied or LogId(), head.last_log_index, head.leader_id)
    else:
        confirmed = "no: the server does not know the question"
    show(f"saved {writer.lines} lines up to {applied or LogId()} to {arguments.file}")
    show(f"confirmed: {confirmed}")
    show(f"sha256: {sha256}")
    note("the file holds all values in clear text")


def _head_of(line: str) -> ArchiveHead | None:
    """The head that the server sent; None from a server that does not know archives."""
    if not line.startswith(_ARCHIVE_LINE):
        return None
    reader = ArchiveReader(BytesIO(line.encode()), "the node's answer")
    with contextlib.suppress(BackupError):  # the one line lacks the end of an archive
        for _ in reader.lines():
            break
    return reader.head


def _applied_in(lines: Sequence[str]) -> LogId | None:
    for line in lines:
        if line.startswith(_META_LINE) and isinstance(parsed := parse_line(line), LastApplied):
            return parsed.log_id
    return None


def inspect_backup(arguments: argparse.Namespace) -> None:
    """Check every line of a backup and say what is in it."""
    progress = Progress("checked")
    with _opened(arguments.file) as (file, name):
        reader = ArchiveReader(file, name)
        try:
            found = inspect(reader, progress)
        finally:
            progress.end()
    for line in report(reader, found):
        show(line)


def restore_backup(arguments: argparse.Namespace) -> None:
    """The data directory of a node of a new cluster, from a backup."""
    _restore(arguments.file, arguments, replace=False)


# ----------------------------------------------------------------------------- parts


def _restore(path: str, arguments: argparse.Namespace, *, replace: bool) -> None:
    members = parse_members(arguments.initial_cluster or [])
    wanted = Wanted(arguments.raft_dir, arguments.id, members, getattr(arguments, "cluster_token", ""))
    progress = Progress("read")
    with _opened(path) as (file, name):
        note(f"import {name} into {arguments.raft_dir}")
        try:
            restored = restore(ArchiveReader(file, name), wanted, int(time.time() * 1000), progress, replace=replace)
        finally:
            progress.end()
    for line in _told(restored, restored.contents):
        note(line)


def _told(restored: Restored, contents: Contents) -> Iterator[str]:
    if restored.aside is not None:
        yield f"what was in the directory is now in {restored.aside}"
    if contents.log_entries:
        yield f"the entries of the log up to {contents.last_log_id} were applied"
    if contents.ignored - {"Vote", "Purged"}:
        yield f"left out: lines of kind {', '.join(sorted(contents.ignored - {'Vote', 'Purged'}))}"
    applied = restored.applied
    yield f"imported {applied.key_count} keys up to {contents.applied} for node {restored.node_id}"
    yield f"cluster id: {restored.cluster_id}; a new one, so clients that keep to the old cluster have to be started anew"
    others = [node_id for node_id in restored.voters if node_id != restored.node_id]
    if others:
        yield (
            f"voters: {list(restored.voters)}. Import the same backup with the same --initial-cluster for {others} "
            "before you start them, and never once they have run: a node that loses its data joins with an empty one"
        )


@contextlib.contextmanager
def _opened(path: str) -> Iterator[tuple[BinaryIO, str]]:
    """The file, or standard input without one. Raises BackupError."""
    if path in ("", "-"):
        if sys.stdin is None:
            raise BackupError("standard input is closed")
        yield sys.stdin.buffer, "standard input"
        return
    try:
        file = open(path, "rb")  # noqa: SIM115 - closed below; errors of the caller are not this file's
    except OSError as error:
        raise BackupError(f"{path} cannot be read: {error.strerror}") from error
    with file:
        yield file, path

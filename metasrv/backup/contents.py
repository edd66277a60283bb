"""Reads a whole backup once: its state into a state file, its log entries after that, and what it says of the cluster.

Records go through in batches, log entries through a file of their own, because they stand before the state that they
follow. So a backup of any size takes little memory. Runs in a program of its own.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import BinaryIO

from metasrv.backup import lines as l
from metasrv.backup.archive import ArchiveReader
from metasrv.backup.log_lines import entry_of
from metasrv.model.errors import BackupError
from metasrv.model.types import I64_MAX, ZERO_LOG_ID, LogId, Membership, Node
from metasrv.state.bulk import Beginning, BulkRecord, StateBuilder, applied_of, give_beginning
from metasrv.state.format import Applied
from metasrv.state.machine import StateMachine

BATCH_RECORDS = 512
_BATCH_SIZE_BYTES = 4 * 1024 * 1024
Progress = Callable[[int, int], None]
"""Told the number of lines and of bytes that were read."""


@dataclass(slots=True)
class Contents:
    """What a backup says, but for its records."""

    version: str = ""
    node_id: int | None = None
    applied: LogId = ZERO_LOG_ID
    committed: LogId | None = None
    """The last entry that is known to be committed; None where the backup does not say."""
    last_seq: int = 0
    membership: l.LastMembership | None = None
    nodes: dict[int, Node] = field(default_factory=dict)
    expire_lines: int = 0
    log_entries: int = 0
    """Lines of the log, also of those that the state has."""
    last_log_id: LogId = ZERO_LOG_ID
    ignored: set[str] = field(default_factory=set)


def read_contents(
    reader: ArchiveReader,
    take: Callable[[list[BulkRecord]], None],
    progress: Progress,
    log_lines: BinaryIO | None = None,
) -> Contents:
    """Read every line. `take` gets the records, `log_lines` the lines of the log. Raises BackupError naming a line."""
    contents = Contents()
    batch: list[BulkRecord] = []
    size_bytes = 0
    for text in reader.lines():
        try:
            line = l.parse_line(text)
        except BackupError as error:
            raise reader.wrong(str(error)) from error
        if not contents.version and not isinstance(line, l.Header):
            raise reader.wrong("the first line of a backup names its data version; one without it cannot be read")
        if type(line) is BulkRecord:
            batch.append(line)
            size_bytes += len(line.data)
            if len(batch) >= BATCH_RECORDS or size_bytes >= _BATCH_SIZE_BYTES:
                take(batch)
                progress(reader.number, reader.size_bytes)
                batch, size_bytes = [], 0
        else:
            _note(contents, line, reader)
            if isinstance(line, l.LogEntryLine) and log_lines is not None:
                log_lines.write(text)
    if batch:
        take(batch)
    progress(reader.number, reader.size_bytes)
    if not contents.version:
        raise BackupError(f"{reader.name}: it is empty")
    return contents


def _note(contents: Contents, line: l.Line, reader: ArchiveReader) -> None:
    if isinstance(line, l.Header):
        if contents.version:
            raise reader.wrong("another backup begins here")
        contents.version = line.version
    elif isinstance(line, l.NodeIdLine):
        contents.node_id = line.node_id
    elif isinstance(line, l.LastApplied):
        contents.applied = line.log_id
    elif isinstance(line, l.CommittedLine):
        contents.committed = line.log_id
    elif isinstance(line, l.LastSequence):
        contents.last_seq = line.seq
    elif isinstance(line, l.LastMembership):
        contents.membership = line
    elif isinstance(line, l.NodeLine):
        contents.nodes[line.node.node_id] = line.node
    elif isinstance(line, l.ExpireLine):
        contents.expire_lines += 1
    elif isinstance(line, l.LogEntryLine):
        if contents.log_entries and line.log_id.index <= contents.last_log_id.index:
            raise reader.wrong(f"log entry {line.log_id.index} follows {contents.last_log_id.index}")
        contents.log_entries += 1
        contents.last_log_id = line.log_id
    elif isinstance(line, l.Ignored):
        contents.ignored.add(line.kind)


def build_state(
    reader: ArchiveReader, path: str, progress: Progress, *, only_committed: bool = False
) -> tuple[Contents, Applied]:
    """Make a state file of a whole backup, the log's entries applied on top; what it says, and what it has applied.

    `only_committed` leaves out entries behind the last one that is known to be committed: they may be given up yet.
    Raises BackupError, DataDamagedError or StorageError.
    """
    builder = StateBuilder(path)
    with tempfile.TemporaryFile(dir=os.path.dirname(path)) as log_lines:
        try:
            contents = read_contents(reader, builder.add, progress, log_lines)
            if builder.seq_max > contents.last_seq > 0:
                raise BackupError(
                    f"{reader.name}: a record has sequence number {builder.seq_max}, the last that was given out is "
                    f"{contents.last_seq}"
                )
            if contents.expire_lines != builder.expire_count and contents.version == l.VERSIONS[-1]:
                raise BackupError(
                    f"{reader.name}: it has {contents.expire_lines} lines of the expire index for "
                    f"{builder.expire_count} records that expire: a part is missing"
                )
            applied = builder.finish(contents.applied, 0, contents.last_seq)
        finally:
            builder.close()
        if contents.last_log_id.index > contents.applied.index:
            log_lines.seek(0)
            index_max = contents.committed.index if only_committed and contents.committed is not None else I64_MAX
            applied = _replay(log_lines, path, contents, reader, index_max)
    return contents, applied


def _replay(log_lines: BinaryIO, path: str, contents: Contents, reader: ArchiveReader, index_max: int) -> Applied:
    """Apply the log's entries behind the state, up to `index_max`; nodes and membership follow them."""
    give_beginning(path, Beginning(contents.applied, LogId(), Membership(), tuple(contents.nodes.values()), None))
    machine = StateMachine.open(path)
    try:
        for text in log_lines:
            line = l.parse_line(text)
            if not isinstance(line, l.LogEntryLine) or line.log_id.index > index_max:
                continue
            if "Membership" in line.payload and line.log_id >= contents.applied:
                contents.membership = l.membership_of(line.log_id, line.payload["Membership"])
            next_index = machine.last_applied.index + 1
            if line.log_id.index < next_index:
                continue
            if line.log_id.index > next_index:
                raise BackupError(f"{reader.name}: log entries {next_index} to {line.log_id.index - 1} are missing")
            try:
                machine.apply_entry(line.log_id, entry_of(line, machine.last_time_ms))
            except BackupError as error:
                raise BackupError(f"{reader.name}: log entry {line.log_id.index}: {error}") from error
        contents.nodes = dict(machine.nodes)
        contents.applied, contents.last_seq = machine.last_applied, machine.last_seq
    finally:
        machine.close()
    return applied_of(path)

"""What is in a backup, found by reading every line of it: `metactl snapshot inspect`. Needs no server.

Pure but for the file that it reads; runs in a program of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NamedTuple

from metasrv.backup.archive import ArchiveReader
from metasrv.backup.contents import Contents, Progress, read_contents
from metasrv.model.errors import BackupError
from metasrv.model.types import LogId
from metasrv.state.bulk import BulkRecord

PREFIXES_MAX = 1000
"""Directories that are counted apart; keys under any further one are counted together."""
NO_PREFIX = "(no slash)"
OTHER_PREFIXES = "(other prefixes)"


class Inspection(NamedTuple):
    """What was found."""

    contents: Contents
    keys: int
    expiring: int
    values_size_bytes: int
    prefixes: dict[str, int]
    """Keys by what stands before their first slash."""


class _Counter:
    def __init__(self, reader: ArchiveReader) -> None:
        self._reader = reader
        self._last_key: str | None = None
        self.keys = self.expiring = self.values_size_bytes = 0
        self.prefixes: dict[str, int] = {}

    def take(self, records: list[BulkRecord]) -> None:
        for record in records:
            if record.key == self._last_key:
                raise BackupError(f"{self._reader.name}: key {record.key!r} stands in it twice")
            self._last_key = record.key
            prefix = record.key.partition("/")[0] + "/" if "/" in record.key else ""
            if prefix not in self.prefixes and len(self.prefixes) >= PREFIXES_MAX:
                prefix = OTHER_PREFIXES
            self.prefixes[prefix] = self.prefixes.get(prefix, 0) + 1
            self.expiring += record.expire_at is not None
            self.values_size_bytes += len(record.data)
        self.keys += len(records)


def inspect(reader: ArchiveReader, progress: Progress) -> Inspection:
    """Read and check all of it. Raises BackupError naming the line that is wrong."""
    counter = _Counter(reader)
    contents = read_contents(reader, counter.take, progress)
    return Inspection(contents, counter.keys, counter.expiring, counter.values_size_bytes, counter.prefixes)


def report(reader: ArchiveReader, found: Inspection) -> Iterator[str]:
    """The lines to print, in a fixed order."""
    head, contents = reader.head, found.contents
    if head is None:
        yield "Kind: export, without a checksum; whether its end is missing cannot be said"
    else:
        yield f"Kind: archive, format {head.format}"
        yield f"ClusterId: {head.cluster_id or 'unknown'}"
        yield f"SavedAt: {datetime.fromtimestamp(head.saved_at_ms / 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"
        yield f"Confirmed: {confirmation(head.confirmed, contents.applied, head.last_log_index, head.leader_id)}"
        if head.migrating_from:
            yield f"MigratingFrom: {head.migrating_from}; it has only some of the records, and is not restored"
        yield f"Features: {', '.join(head.features) or 'none'}"
    yield f"Secrets: {'all values, in clear text' if head is None else head.secrets}"
    yield f"DataVersion: {contents.version}"
    yield f"Node: {'unknown' if contents.node_id is None else contents.node_id}"
    yield f"LastApplied: {contents.applied}"
    yield f"Index: {contents.applied.index}"
    yield f"Term: {contents.applied.term}"
    yield f"LastSeq: {contents.last_seq}"
    if contents.log_entries:
        yield f"LogEntries: {contents.log_entries}, up to {contents.last_log_id}, applied by a restore"
    if contents.membership is not None:
        yield f"Voters: {list(contents.membership.voters)}"
        yield f"NonVoters: {list(contents.membership.learners)}"
    yield "Nodes:"
    for node in contents.nodes.values():
        yield f"  - id={node.node_id} raft={node.endpoint}"
    yield f"Keys: {found.keys}"
    yield f"KeysThatExpire: {found.expiring}"
    yield f"ValuesSize: {found.values_size_bytes}"
    yield "KeysByPrefix:"
    for prefix, count in sorted(found.prefixes.items()):
        yield f"  - {prefix or NO_PREFIX} {count}"
    yield f"Lines: {reader.number}"
    yield f"SHA-256: {'none' if reader.sha256 is None else f'{reader.sha256} confirmed'}"


def confirmation(confirmed: bool, applied: LogId, last_log_index: int, leader_id: int | None) -> str:
    """What a backup may lack."""
    if confirmed:
        return "yes, by a quorum: it holds everything that was acknowledged before it began"
    behind = max(0, last_log_index - applied.index)
    leader = "knew no leader" if leader_id is None else f"took node {leader_id} for the leader"
    return (
        f"no: it ends at entry {applied.index}, {behind} entries before the end of the node's own log; what the cluster "
        f"acknowledged after that is missing, and nobody can say how much; the node {leader}"
    )

"""Two exports, key by key: what is to be stored so that the second becomes the first.

The source's export becomes a state file, because one of upstream's has its newest writes only as lines of its log. The
target's is read line by line beside it; both are in key order. A record without `proposed_at_ms` counts as one with 0,
which is what every record has here. Runs in a helper thread of a program of its own.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import NamedTuple

from metasrv.backup.archive import ArchiveReader
from metasrv.backup.contents import build_state
from metasrv.backup.lines import parse_line
from metasrv.migration.changes import Change
from metasrv.model.errors import BackupError
from metasrv.model.types import KVMeta, SeqV
from metasrv.state.bulk import BulkRecord
from metasrv.state.reader import StateReader


class Difference(NamedTuple):
    """One key that the two sides do not hold alike; None where a side has no record."""

    key: str
    source: SeqV | None
    target: SeqV | None

    def __str__(self) -> str:
        return f"{self.key!r} (source: {_text(self.source)}; target: {_text(self.target)})"

    @property
    def may_be_expiry(self) -> bool:
        """Whether an expiry explains it: the source has no record, and the target's is to expire."""
        return self.source is None and self.target is not None and (self.target.meta or KVMeta()).expire_at is not None

    def changes(self) -> list[Change]:
        """What makes the target's record the source's."""
        changes = []
        if self.target is not None and (self.source is None or self.source.seq <= self.target.seq):
            changes.append(Change(self.key, self.target.seq, None))
        if self.source is not None:
            changes.append(Change(self.key, self.source.seq, self.source))
        return changes


def _text(record: SeqV | None) -> str:
    if record is None:
        return "no record"
    expire_at, proposed_at_ms = record.meta or KVMeta()
    return f"seq {record.seq}, {len(record.data)} bytes, expire_at {expire_at}, proposed_at_ms {proposed_at_ms}"


class Mirror(NamedTuple):
    """The source at one instant, as a state file."""

    path: str
    last_seq: int
    key_count: int


def mirror_of(export: str, path: str) -> Mirror:
    """Make the state file `path` of an export of the source. Raises BackupError, DataDamagedError or StorageError."""
    try:
        with open(export, "rb") as file:
            reader = ArchiveReader(file, "the source's export")
            _, applied = build_state(reader, path, lambda _lines, _size_bytes: None, only_committed=True)
    except OSError as error:
        raise BackupError(f"{export}: {error.strerror}") from error
    return Mirror(path, applied.seq, applied.key_count)


def differences(mirror: Mirror, export: str) -> Generator[Difference, None, None]:
    """The keys that the source and an export of the target do not hold alike, in key order.

    Raises BackupError, DataDamagedError or StorageError.
    """
    try:
        with StateReader(mirror.path) as view, open(export, "rb") as file:
            target = _records(ArchiveReader(file, "the target's export"))
            theirs = next(target, None)
            for key, record in view.records():
                while theirs is not None and theirs[0] < key:
                    yield Difference(theirs[0], None, theirs[1])
                    theirs = next(target, None)
                if theirs is None or theirs[0] != key:
                    yield Difference(key, record, None)
                    continue
                if theirs[1] != record:
                    yield Difference(key, record, theirs[1])
                theirs = next(target, None)
            while theirs is not None:
                yield Difference(theirs[0], None, theirs[1])
                theirs = next(target, None)
    except OSError as error:
        raise BackupError(f"{export}: {error.strerror}") from error


def _records(reader: ArchiveReader) -> Iterator[tuple[str, SeqV]]:
    last: str | None = None
    for text in reader.lines():
        line = parse_line(text)
        if not isinstance(line, BulkRecord):
            continue
        if last is not None and line.key <= last:
            raise reader.wrong("its key does not follow the one before")
        last = line.key
        yield line.key, SeqV(line.seq, line.data, KVMeta(line.expire_at, line.proposed_at_ms))

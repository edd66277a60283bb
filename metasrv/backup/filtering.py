"""`metactl filter-tenant`: the lines of an export that belong to one tenant.

The input is read three times, so that a large one takes little memory: to learn who owns what, to decide about each line,
and to copy. Nothing is written unless all of it could be decided. Runs in a program of its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from metasrv.backup.archive import ArchiveReader
from metasrv.backup.lines import Header, parse_line
from metasrv.backup.tenants import EVERYBODY, NOBODY, Catalog, same_tenant
from metasrv.model.errors import BackupError
from metasrv.state.bulk import BulkRecord

_LEFT_OUT, _KEPT, _RECODED = range(3)
_STATE = "state_machine/"
_KEYED = ("GenericKV", "Expire")
_NAMED_MAX = 20
"""How many undecided lines an error names."""


@dataclass(slots=True)
class Report:
    """How many lines there were of each sort."""

    total: int = 0
    header: int = 0
    raft_log_skipped: int = 0
    state_machine: int = 0
    kept: int = 0
    dropped: int = 0

    def text(self) -> str:
        """The line that upstream's tool ends with."""
        return (
            f"filter-tenant: total={self.total}, header={self.header}, raft_log_skipped={self.raft_log_skipped}, "
            f"state_machine={self.state_machine}, kept={self.kept}, dropped={self.dropped}"
        )


class TenantFilter:
    """Filters one input. `source` can be read from its beginning again."""

    def __init__(self, source: BinaryIO, name: str, tenant: str, note: Callable[[str], None]) -> None:
        """`note` is told of records that are left out because what they belonged to is gone."""
        self._source = source
        self._name = name
        self._tenant = tenant
        self._note = note
        self._catalog = Catalog()
        self._decisions = bytearray()
        self.report = Report()

    def decide(self) -> None:
        """Decide about every line. Raises BackupError naming the lines that belong to nobody who is known."""
        self._learn()
        for key, speaker in self._catalog.missing(self._tenant):
            raise BackupError(f"{self._name}: {key} is missing, and {speaker} speaks of it")
        undecided: list[str] = []
        for reader, text in self._lines():
            decision = self._decision(reader, text, undecided)
            self._decisions.append(decision)
        if undecided:
            raise BackupError(
                f"{self._name}: nothing was written, because these lines belong to no tenant that is known "
                f"({len(undecided)} in all): {'; '.join(undecided[:_NAMED_MAX])}"
            )

    def lines(self) -> Iterator[str]:
        """The lines that are kept, after `decide`."""
        for (_reader, text), decision in zip(self._lines(), self._decisions, strict=True):
            if decision == _KEPT:
                yield text.decode().rstrip("\r\n")
            elif decision == _RECODED:
                yield _with_numbers(text)

    def _lines(self) -> Iterator[tuple[ArchiveReader, bytes]]:
        self._source.seek(0)
        reader = ArchiveReader(self._source, self._name)
        for text in reader.lines():
            yield reader, text

    def _learn(self) -> None:
        for reader, text in self._lines():
            try:
                line = parse_line(text)
                if reader.number == 1 + (reader.head is not None) and not isinstance(line, Header):
                    raise BackupError("the first line of a backup names its data version; one without it cannot be read")
                if isinstance(line, BulkRecord):
                    self._catalog.learn(line.key, line.data)
            except BackupError as error:
                raise reader.wrong(str(error)) from error

    def _decision(self, reader: ArchiveReader, text: bytes, undecided: list[str]) -> int:
        report = self.report
        report.total += 1
        tree, body = json.loads(text)
        ((kind, value),) = body.items()
        if tree == "header":
            report.header += 1
            return _KEPT
        if not tree.startswith(_STATE):
            report.raft_log_skipped += 1
            return _LEFT_OUT
        report.state_machine += 1
        if kind in _KEYED:
            key = value["key"] if kind == "GenericKV" else (value.get("value") or {}).get("key")
            if not self._keeps(reader, key, undecided, kind):
                report.dropped += 1
                return _LEFT_OUT
        report.kept += 1
        return _RECODED if kind == "GenericKV" and isinstance(value["value"]["data"], str) else _KEPT

    def _keeps(self, reader: ArchiveReader, key: Any, undecided: list[str], kind: str) -> bool:
        owner = self._catalog.owner(key) if isinstance(key, str) else None
        if owner is None:
            undecided.append(f"line {reader.number}: {key}")
        elif owner == NOBODY and kind == "GenericKV":
            self._note(f"left out, because what it belongs to is gone or it is short-lived: {key}")
        return owner is not None and (owner == EVERYBODY or (owner != NOBODY and same_tenant(owner, self._tenant)))


def _with_numbers(text: bytes) -> str:
    """A record of an archive as a line of an export: its value as numbers, as upstream reads it."""
    record = parse_line(text)
    tree, body = json.loads(text)
    if isinstance(record, BulkRecord):
        body["GenericKV"]["value"]["data"] = list(record.data)
    return json.dumps([tree, body], ensure_ascii=False, separators=(",", ":"))

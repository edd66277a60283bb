"""An archive: the lines of a backup between a first line that says what it is and a last one with its checksum.

    ["archive",{"Head":{"cluster_id":…,"node_id":…,"saved_at_ms":…,"confirmed":true,…}}]
    ["archive",{"Secret":{"name":…,"data":…}}]          as many as there are, if the head says that it holds them
    the lines of docs/contract/grpc.md section g
    ["archive",{"End":{"lines":N,"sha256":…}}]

The checksum covers every byte before the last line. A file without both lines is an export: it is read as well, and its
end cannot be proved. Nothing is held but one line. Runs in a program of its own.
"""

from __future__ import annotations

import hashlib
from base64 import b64decode
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, Protocol

from metasrv.backup.lines import MALFORMED, json_of, number, optional
from metasrv.grpc_api.export_lines import ARCHIVE_FORMAT, ARCHIVE_FORMAT_WITH_SECRETS, ArchiveHead, archive_line
from metasrv.model.errors import BackupError
from metasrv.model.limits import BACKUP_LINE_SIZE_BYTES_MAX, BACKUP_SECRETS_MAX

_MARK = b'["archive",'
_SAVED_AT_MS_MAX = 253_402_300_799_999
"""The end of the year 9999, the last that Python's dates know."""


class Sink(Protocol):
    """Takes the bytes of an archive."""

    def write(self, data: bytes, /) -> object: ...


class ArchiveWriter:
    """Writes an archive from its lines, of which the first is the head, and adds the last one."""

    def __init__(self, file: Sink) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self.lines = 0
        self.size_bytes = 0

    def write(self, lines: Sequence[str]) -> None:
        """Append lines of a backup. Raises OSError."""
        data = ("\n".join(lines) + "\n").encode()
        self._digest.update(data)
        self._file.write(data)
        self.lines += len(lines)
        self.size_bytes += len(data)

    def finish(self) -> str:
        """Write the last line; returns the checksum."""
        sha256 = self._digest.hexdigest()
        self._file.write((archive_line("End", {"lines": self.lines, "sha256": sha256}) + "\n").encode())
        return sha256


class ArchiveReader:
    """The lines of a backup in an archive or an export. After `lines` has ended without an error, all of it was there."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self.name = name
        self.number = 0
        """Number of the line that was read last, from 1."""
        self.head: ArchiveHead | None = None
        """None for an export."""
        self.sha256: str | None = None
        """The checksum that was confirmed; None for an export."""
        self.size_bytes = 0
        self.secrets: dict[str, bytes] = {}
        """The secrets that the archive holds, once its lines have been read."""

    def lines(self) -> Iterator[bytes]:
        """Every line of the backup itself. Raises BackupError naming the line, OSError."""
        digest = hashlib.sha256()
        read = self._file.readline
        while line := read(BACKUP_LINE_SIZE_BYTES_MAX + 1):
            self.number += 1
            self.size_bytes += len(line)
            if len(line) > BACKUP_LINE_SIZE_BYTES_MAX:
                raise self.wrong(f"it is longer than {BACKUP_LINE_SIZE_BYTES_MAX} bytes")
            if line.startswith(_MARK):
                kind, body = self._own(line)
                if kind == "End":
                    self._finish(body, digest.hexdigest())
                    return
                if kind == "Head":
                    self._begin(body)
                else:
                    self._take_secret(body)
            elif line.strip():
                yield line
            digest.update(line)
        if self.head is not None:
            raise BackupError(f"{self.name}: it ends with line {self.number}, before its last line: it was cut off")

    def wrong(self, what: str) -> BackupError:
        """The error that names the line which was read last."""
        return BackupError(f"{self.name}: line {self.number}: {what}")

    def _own(self, line: bytes) -> tuple[str, Any]:
        try:
            _, body = json_of(line)
            (kind,) = body
            if kind not in ("Head", "Secret", "End") or type(body[kind]) is not dict:
                raise ValueError("neither a first nor a last line, nor a secret")
        except MALFORMED as error:
            raise self.wrong(f"it is no line of an archive: {error}") from error
        return kind, body[kind]

    def _begin(self, body: dict[str, Any]) -> None:
        if self.number != 1:
            raise self.wrong("another archive begins here")
        if body.get("format") not in (ARCHIVE_FORMAT, ARCHIVE_FORMAT_WITH_SECRETS):
            raise self.wrong(
                f"the archive has format {body.get('format')!r}, this version of metactl reads {ARCHIVE_FORMAT} and "
                f"{ARCHIVE_FORMAT_WITH_SECRETS}"
            )
        try:
            self.head = _head_of(body)
        except KeyError as error:
            raise self.wrong(f"the first line lacks {error}") from error
        except ValueError as error:
            raise self.wrong(f"the first line is not that of an archive: {error}") from error

    def _take_secret(self, body: dict[str, Any]) -> None:
        if self.head is None or not self.head.holds_secrets:
            raise self.wrong("a secret, and the first line does not say that the archive holds any")
        name, data = body.get("name"), body.get("data")
        try:
            if type(name) is not str or type(data) is not str or name in self.secrets:
                raise ValueError("it has no name of its own")
            self.secrets[name] = b64decode(data, validate=True)
        except ValueError as error:
            raise self.wrong(f"a secret cannot be read: {error}") from error
        if len(self.secrets) > BACKUP_SECRETS_MAX:
            raise self.wrong(f"it holds more than {BACKUP_SECRETS_MAX} secrets")

    def _finish(self, body: dict[str, Any], sha256: str) -> None:
        if self.head is None:
            raise self.wrong("the archive ends, but its first line is missing")
        if body.get("lines") != self.number - 1:
            raise self.wrong(
                f"the archive has {self.number - 1} lines before this one, it was written with {body.get('lines')}"
            )
        if body.get("sha256") != sha256:
            raise self.wrong(f"the SHA-256 of all lines before it is {sha256}, it was written with {body.get('sha256')}")
        self.sha256 = sha256
        if self._file.read(1):
            raise self.wrong("something follows the last line of the archive")


def _head_of(body: dict[str, Any]) -> ArchiveHead:
    """The first line's members, each of its kind. Raises KeyError or ValueError."""
    features = body["features"]
    if type(features) is not list or not all(type(name) is str for name in features):
        raise ValueError("features is not a list of names")
    texts = {name: body[name] for name in ("cluster_id", "secrets", "migrating_from") if body.get(name) is not None}
    if not all(type(text) is str for text in texts.values()):
        raise ValueError(f"{' and '.join(texts)} are texts")
    head = ArchiveHead(
        texts.get("cluster_id"),
        optional(body["node_id"]),
        number(body["saved_at_ms"], _SAVED_AT_MS_MAX),
        _truth(body["confirmed"], "confirmed"),
        number(body["last_log_index"]),
        optional(body["leader_id"]),
        tuple(features),
        _truth(body.get("holds_secrets", False), "holds_secrets"),
        format=body["format"],
        migrating_from=texts.get("migrating_from", ""),
    )
    return head._replace(secrets=texts["secrets"]) if "secrets" in texts else head


def _truth(value: Any, name: str) -> bool:
    if type(value) is not bool:
        raise ValueError(f"{name} is neither true nor false")
    return value

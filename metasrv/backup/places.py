"""Where scheduled backups are kept: the names of their archives, and a directory of them (`bucket.py` is the other kind).

    metasrv-<cluster id>-<time>-<index>.archive         complete and checked
    .metasrv-<cluster id>-<time>-<index>.node<id>.part  a draft, while it is written and checked

The name says of which cluster an archive is, and of which instant, so that a listing is all that a new leader has to
read, and other clusters may use the same place. Blocks; used in a thread of its own.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import BinaryIO, Protocol

from metasrv.model.errors import BackupError
from metasrv.node.backups import ArchiveName
from metasrv.process.operating_system import sync_directory, sync_file
from metasrv.process.private_files import open_private

DRAFT_AGE_SECONDS_MAX = 24 * 3600
"""A draft of another node that is older was left by a crash."""
_TIME_FORMAT = "%Y%m%dT%H%M%S"
_NAME = re.compile(r"metasrv-(?P<cluster>[A-Za-z0-9]+)-(?P<time>\d{8}T\d{6})(?P<ms>\d{3})Z-(?P<index>\d+)\.archive\Z")


def archive_name(cluster_id: str, saved_at_ms: int, index: int) -> str:
    """The name of an archive."""
    at = datetime.fromtimestamp(saved_at_ms // 1000, UTC)
    return f"metasrv-{cluster_id}-{at:{_TIME_FORMAT}}{saved_at_ms % 1000:03d}Z-{index}.archive"


def parse_name(name: str, cluster_id: str, size_bytes: int) -> ArchiveName | None:
    """What the name says; None for whatever is no archive of this cluster."""
    found = _NAME.match(name)
    if found is None or found["cluster"] != cluster_id:
        return None
    try:
        at = datetime.strptime(found["time"], _TIME_FORMAT).replace(tzinfo=UTC)
    except ValueError:
        return None
    return ArchiveName(name, int(at.timestamp()) * 1000 + int(found["ms"]), int(found["index"]), size_bytes)


def in_order(found: Iterable[ArchiveName | None]) -> list[ArchiveName]:
    """The archives, the oldest first."""
    return sorted((one for one in found if one is not None), key=lambda one: (one.saved_at_ms, one.log_index, one.name))


def draft_name(name: str, node_id: int) -> str:
    """What the archive is called until it has been checked: two nodes never write to the same draft."""
    return f".{name.removesuffix('.archive')}.node{node_id}.part"


class Place(Protocol):
    """A directory or a bucket. Every method raises BackupError with a sentence that names the place."""

    text: str
    """What it is called in sentences."""

    def archives(self, cluster_id: str) -> list[ArchiveName]:
        """Complete archives of the cluster, the oldest first."""
        ...

    def sweep(self, cluster_id: str, node_id: int) -> None:
        """Remove drafts of the cluster that a crash left: those of this node, and old ones."""
        ...

    def store(self, draft: str, chunks: Iterable[bytes]) -> int:
        """Write a draft; returns its size in bytes."""
        ...

    def open(self, draft: str) -> contextlib.AbstractContextManager[BinaryIO]:
        """Read a draft again."""
        ...

    def put_in_place(self, draft: str, name: str) -> None:
        """Give a draft its name."""
        ...

    def discard(self, draft: str) -> None:
        """Remove a draft, if it is there."""
        ...

    def remove(self, name: str) -> None:
        """Remove an archive."""
        ...


class DirectoryPlace:
    """A directory. It has to exist: one that is missing is more often not mounted than not made."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.text = path

    def archives(self, cluster_id: str) -> list[ArchiveName]:
        with self._faults("be read"), os.scandir(self._path) as entries:
            return in_order(
                parse_name(entry.name, cluster_id, entry.stat().st_size) for entry in entries if entry.is_file()
            )

    def sweep(self, cluster_id: str, node_id: int) -> None:
        with self._faults("be read"):
            names = [name for name in os.listdir(self._path) if name.startswith(f".metasrv-{cluster_id}-")]
            for name in names:
                if not name.endswith(".part"):
                    continue
                with contextlib.suppress(FileNotFoundError):  # another node swept it
                    age_seconds = time.time() - os.stat(self._at(name)).st_mtime
                    if name.endswith(f".node{node_id}.part") or age_seconds > DRAFT_AGE_SECONDS_MAX:
                        os.unlink(self._at(name))

    def store(self, draft: str, chunks: Iterable[bytes]) -> int:
        size_bytes = 0
        with self._faults("be written"):
            descriptor = open_private(self._at(draft), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC)
            with open(descriptor, "wb", buffering=0) as file:
                for chunk in chunks:
                    rest = memoryview(chunk)
                    while rest:
                        rest = rest[file.write(rest) :]
                    size_bytes += len(chunk)
                sync_file(descriptor)
        return size_bytes

    @contextlib.contextmanager
    def _faults(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise BackupError(
                f"the directory of backups, {self._path}, cannot {what}: {error.strerror or error}"
            ) from error

    @contextlib.contextmanager
    def open(self, draft: str) -> Iterator[BinaryIO]:
        with self._faults("be read"), open(self._at(draft), "rb") as file:
            yield file

    def put_in_place(self, draft: str, name: str) -> None:
        with self._faults("be written"):
            os.rename(self._at(draft), self._at(name))
            sync_directory(self._path)

    def discard(self, draft: str) -> None:
        with self._faults("be written"), contextlib.suppress(FileNotFoundError):
            os.unlink(self._at(draft))

    def remove(self, name: str) -> None:
        with self._faults("be written"), contextlib.suppress(FileNotFoundError):
            os.unlink(self._at(name))

    def _at(self, name: str) -> str:
        return os.path.join(self._path, name)

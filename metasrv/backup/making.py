"""One scheduled backup, from a pinned view to an archive in its place: write a draft, read it again, give it its name.

What was written is checked as `metactl snapshot inspect` does, from where it is kept, before it counts. Memory is that of
a few pages, whatever the size. Runs in a thread of its own, which gives way to the event loop and stops when told to.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from metasrv.backup.archive import ArchiveReader, ArchiveWriter
from metasrv.backup.encryption import ArchiveKey, Encryptor, opened_archive_in
from metasrv.backup.inspecting import inspect
from metasrv.backup.places import Place, archive_name, draft_name
from metasrv.grpc_api.export_lines import ArchiveHead, export_lines
from metasrv.model.errors import BackupError
from metasrv.model.types import LogId
from metasrv.state.reader import StateReader

CHUNK_SIZE_BYTES = 256 * 1024
REST_PER_WORK = 3.0
"""While the state is written, a backup rests three times as long as it has worked: it takes a quarter of a core."""
REST_SECONDS_MAX = 0.25


class Pace:
    """How fast a backup may go, and whether it is to go on. `wait` is called in the backup's thread."""

    def __init__(self, busy: Callable[[], bool]) -> None:
        """`busy` says whether the state is being written, and nothing is in a hurry; any thread may call it."""
        self._busy = busy
        self._worked_from = time.monotonic()
        self._abandoned = threading.Event()
        self.reason = ""

    def abandon(self, reason: str) -> None:
        """Let the backup end with this reason at its next step. Called on the event loop."""
        self.reason = self.reason or reason
        self._abandoned.set()

    def wait(self) -> None:
        """Rest between two steps of work. Raises BackupError when the backup is to end."""
        worked_seconds = time.monotonic() - self._worked_from
        rest_seconds = min(REST_SECONDS_MAX, worked_seconds * REST_PER_WORK) if self._busy() else 0.0
        if self._abandoned.wait(rest_seconds) if rest_seconds else self._abandoned.is_set():
            raise BackupError(self.reason)
        self._worked_from = time.monotonic()


class Draft(NamedTuple):
    """An archive that was written and checked, and does not have its name yet."""

    draft: str
    name: str
    size_bytes: int
    keys: int


def make_draft(
    place: Place, view: StateReader, head: ArchiveHead, purged: LogId | None, key: ArchiveKey | None, pace: Pace
) -> Draft:
    """Write the archive of `view`, close that, and check what was written. `purged`: as for `export_lines`.

    Raises BackupError, ViewLostError, StorageError, DataDamagedError.
    """
    if head.cluster_id is None or head.node_id is None:
        raise BackupError("this node belongs to no cluster yet")
    place.sweep(head.cluster_id, head.node_id)
    name = archive_name(head.cluster_id, head.saved_at_ms, view.last_applied.index)
    draft = draft_name(name, head.node_id)
    try:
        size_bytes = place.store(draft, _chunks(export_lines(view, head.node_id, purged, head), key, pace))
        view.close()  # the state's write-ahead log need not wait for the check as well
        keys = _check(place, draft, view, key, pace)
    except BaseException:
        _discard(place, draft)
        raise
    return Draft(draft, name, size_bytes, keys)


def finish(place: Place, draft: Draft, cluster_id: str, keep: int) -> int:
    """Put the archive in its place and remove the oldest beyond `keep`; returns how many. Raises BackupError."""
    try:
        place.put_in_place(draft.draft, draft.name)
    except BackupError:
        _discard(place, draft.draft)
        raise
    surplus = place.archives(cluster_id)[:-keep]
    for old in surplus:
        place.remove(old.name)
    return len(surplus)


def _discard(place: Place, draft: str) -> None:
    """Remove a draft that is of no use; the next attempt sweeps one that cannot be removed now."""
    try:
        place.discard(draft)
    except BackupError as error:
        error.add_note(f"{draft} is left")


def _check(place: Place, draft: str, view: StateReader, key: ArchiveKey | None, pace: Pace) -> int:
    """Read everything back; returns the number of keys. Raises BackupError."""
    with place.open(draft) as file:
        opened, _ = opened_archive_in(file, key, draft)
        reader = ArchiveReader(opened, draft)
        found = inspect(reader, lambda _lines, _size: pace.wait())
    if reader.sha256 is None or found.keys != view.key_count or found.contents.applied != view.last_applied:
        raise BackupError(
            f"{place.text}: {draft} was written with {view.key_count} keys up to entry {view.last_applied.index}, and "
            f"{found.keys} keys up to entry {found.contents.applied.index} were read again"
        )
    return found.keys


class _Waiting:
    """Takes what an archive writes until it is handed on."""

    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: bytes, /) -> None:
        self.data += data

    def taken(self) -> bytes:
        data = bytes(self.data)
        self.data.clear()
        return data


def _chunks(lines: Iterator[str], key: ArchiveKey | None, pace: Pace) -> Iterator[bytes]:
    """The bytes of the archive, encrypted where there is a key."""
    encryptor = None if key is None else Encryptor(key)
    waiting = _Waiting()
    writer = ArchiveWriter(waiting)
    if encryptor is not None:
        yield encryptor.head
    page: list[str] = []
    page_size = 0
    for line in lines:
        page.append(line)
        page_size += len(line)
        if page_size < CHUNK_SIZE_BYTES:
            continue
        writer.write(page)
        page, page_size = [], 0
        data = waiting.taken()
        yield data if encryptor is None else encryptor.update(data)
        pace.wait()
    if page:
        writer.write(page)
    writer.finish()
    data = waiting.taken()
    yield data if encryptor is None else encryptor.update(data) + encryptor.finish()

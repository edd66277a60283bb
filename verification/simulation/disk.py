"""A machine's disk: real files on a memory file system, and what a power loss would leave of them.

Files are identified by inode. A name is durable once any directory was synced after the name was made: a journalling
file system commits everything before as well. Content is durable as of the file's last sync.

Two kinds of files are synced inside SQLite, where the model cannot see it: the raft log, whose transactions each end with
a sync, and the state's database file, which only checkpoints write to. Both count as durable at any time; what a power
loss in the middle of a transaction leaves is made from the file before and after it. A state file that was renamed into
place, as a snapshot is, counts only once it was synced.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable

Image = dict[str, bytes]
"""Relative path to content: what a machine's disk holds while nothing runs on it."""

_PAGE_SIZE_BYTES = 512
_WAL_HEADER_SIZE_BYTES = 32
_MARK_SUFFIX = "-mark"
_ALWAYS_DURABLE = ("log/raft.db", "log/raft.db-wal", "state/state.db")
_STATE_FILE = "state/state.db"
_STATE_DRAFT = "state/state.db.new"
_LOG_FILES = "log/raft.db"
"""SQLite syncs the directory too when it first syncs a new write-ahead log."""
_NEVER_KEPT = ("-shm", "LOCK")


class Disk:
    """One data directory."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._content: dict[int, bytes] = {}
        """Durable content by inode: of files that were synced, and of always durable files that lost their name."""
        self._names: list[dict[str, int]] = [{}]
        """The durable names, then every later state of the names, oldest first."""
        self._taken_away: set[int] = set()
        """Inodes that lost a name by a system call of the product, not of SQLite."""

    # ------------------------------------------------------------------ the system calls that matter

    def file_synced(self, path: str) -> None:
        self._content[os.stat(path).st_ino] = _read(path)
        if path.endswith(f"{_STATE_FILE}-wal"):
            # A checkpoint follows: it copies the write-ahead log into the state file, which SQLite then syncs.
            self._content.setdefault(os.stat(path.removesuffix("-wal")).st_ino, b"")

    def directory_synced(self) -> None:
        self._names = [self._scan()]

    def before_name_change(self, path: str, source: str | None = None) -> None:
        """`path` is about to be unlinked, or replaced by `source`: a power loss may still bring it back."""
        if source is not None and source.endswith(_STATE_DRAFT):
            self.file_synced(source)  # SQLite synced it with the transaction that filled it
        if os.path.exists(path):
            self._taken_away.add(os.stat(path).st_ino)
        if path.endswith(_ALWAYS_DURABLE) and os.path.exists(path):
            self.file_synced(path)

    def after_name_change(self) -> None:
        self._names.append(self._scan())

    def all_synced(self) -> None:
        """Everything as it is now has reached the disk."""
        self._names = [self._scan()]
        for path, inode in self._names[0].items():
            self._content[inode] = _read(os.path.join(self.root, path))

    # ------------------------------------------------------------------ what is left

    def image(self) -> Image:
        """After the death of the process: every byte that was written."""
        return {path: _read(os.path.join(self.root, path)) for path in self._scan()}

    def image_after_power_loss(self, source: random.Random) -> Image:
        """What was synced, and as much of the rest as `source` decides."""
        current = self._scan()
        names = dict(source.choice([*self._names, current]))
        names.update((path, inode) for path, inode in current.items() if _LOG_FILES in path)
        image: Image = {}
        for path, inode in sorted(names.items()):
            live = current.get(path) == inode
            durable = self._content.get(inode, b"")
            if not live:
                # When SQLite removes its log on closing, all of it has been copied into the database and synced.
                if not path.endswith("-wal") or inode in self._taken_away:
                    image[path] = durable
                continue
            now = _read(os.path.join(self.root, path))
            if path.endswith(_STATE_FILE) and inode not in self._content:
                image[path] = survivors(b"", now, source)
            elif path.endswith(_ALWAYS_DURABLE):
                image[path] = now
            elif path.endswith(_MARK_SUFFIX):
                image[path] = mixed(durable, now, source, len(now) // 2) if durable else now
            elif path.endswith("-wal"):
                image[path] = wal_survivors(durable, now, source)
            else:
                image[path] = survivors(durable, now, source)
        return image

    def _scan(self) -> dict[str, int]:
        """Every file's inode by its path, except for files that are rebuilt at each start."""
        found: dict[str, int] = {}
        directories = [("", self.root)]
        while directories:
            prefix, directory = directories.pop()
            try:
                entries = list(os.scandir(directory))
            except FileNotFoundError:
                continue
            for entry in entries:
                if entry.is_dir():
                    directories.append((f"{prefix}{entry.name}/", entry.path))
                elif not entry.name.endswith(_NEVER_KEPT):
                    found[prefix + entry.name] = entry.inode()
        return found


def survivors(before: bytes, after: bytes, source: random.Random) -> bytes:
    """What is left of a file of which only `before` was synced: no change, a prefix of the changes, or any sectors."""
    fate = source.random()
    if before == after or fate < 0.4:
        return before
    if fate < 0.6:
        cut = source.randint(0, len(after))
        return after[:cut] + before[cut:]
    return mixed(before, after, source, _PAGE_SIZE_BYTES)


def wal_survivors(before: bytes, after: bytes, source: random.Random) -> bytes:
    """As `survivors`; SQLite syncs a new header of a write-ahead log before it writes the first frame."""
    begun = after[:_WAL_HEADER_SIZE_BYTES] + before[_WAL_HEADER_SIZE_BYTES:]
    return survivors(begun, after, source)


def mixed(before: bytes, after: bytes, source: random.Random, block_size_bytes: int) -> bytes:
    """Each block of the file as it was before or after; the end of a grown file may be missing or zero."""
    size_bytes = max(len(before), len(after))
    blocks = range(0, size_bytes, block_size_bytes)
    fates = source.getrandbits(len(blocks)) if blocks else 0
    parts = []
    for number, start in enumerate(blocks):
        chosen = after if fates >> number & 1 else before
        parts.append(chosen[start : start + block_size_bytes].ljust(min(block_size_bytes, size_bytes - start), b"\0"))
    return b"".join(parts)


def torn_write(root: str, run: Callable[[], object], source: random.Random) -> None:
    """Run one write of the raft log; leave the files as a power loss in the middle of it would."""
    path = os.path.join(root, "df_meta/V004/log/raft.db-wal")
    mark = os.path.join(root, "df_meta/V004/log/raft.db-mark")
    before, mark_before = _read(path) if os.path.exists(path) else b"", _read(mark)
    run()
    after = _read(path)
    _write(path, wal_survivors(before, after, source))
    _write(mark, mark_before)


def write_image(root: str, image: Image) -> None:
    """Put the files of a machine into a new directory."""
    made: set[str] = set()
    for path, content in image.items():
        target = os.path.join(root, path)
        directory = os.path.dirname(target)
        if directory not in made:
            os.makedirs(directory, mode=0o700, exist_ok=True)
            made.add(directory)
        _write(target, content)


def _read(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        size_bytes = os.fstat(descriptor).st_size
        return os.pread(descriptor, size_bytes, 0)
    finally:
        os.close(descriptor)


def _write(path: str, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(descriptor, content)
    finally:
        os.close(descriptor)

"""Whether the files that a running node works with still stand under their names.

A file that is removed or replaced stays open, and the node would go on acknowledging into something that the next start
does not find. Without the directory of snapshots it could neither write one nor take a leader's. So it
stops (invariant 9). A snapshot file itself may go: it is a copy, and another one is written when it is needed. Looks at
names and inodes only, about each second, in a helper thread: a disk that hangs must not hold up the event loop.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Mapping

from metasrv.model.errors import DataDamagedError, FatalError
from metasrv.node.opening import ADVICE, OpenedData
from metasrv.process.data_directory import FileId, file_id
from metasrv.raft.log.format import mark_path, wal_path

PERIOD_SECONDS = 1.0
WHAT = "removed or replaced while this node runs, which stops instead of acknowledging what no start would find"
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ESTALE)


class FilesInPlace:
    """What was seen of the files of `data`, which are open."""

    def __init__(self, data: OpenedData) -> None:
        self._directory, self._machine = data.directory, data.machine
        log, state = self._directory.log_path, self._directory.state_path
        self._log_paths = (log, mark_path(log), wal_path(log))
        self._state_paths = (state, f"{state}-wal", f"{state}-shm")
        self._other_paths = (self._directory.snapshot_directory,)
        self._seen: dict[str, FileId] = {}
        self._installs = self._machine.installs
        self.problem()

    async def watch(self, failed: Callable[[FatalError], None]) -> None:
        """Look each second; call `failed` once, when a file is gone."""
        while True:
            await asyncio.sleep(PERIOD_SECONDS)
            if await asyncio.to_thread(_first_moved, self._expected()) is None:
                continue
            # The loop may have put another file in its place meanwhile. Nothing does while it looks itself.
            problem = self.problem()
            if problem is not None:
                failed(problem)
                return

    def problem(self) -> DataDamagedError | None:
        """What is wrong at this moment; to be asked on the event loop."""
        path = _first_moved(self._expected())
        if path is None:
            return None
        return DataDamagedError(path, "directory" if path in self._other_paths else "file", WHAT, ADVICE)

    def _expected(self) -> Mapping[str, FileId]:
        """The files by path; those that have appeared since the last look are included from now on."""
        if self._machine.installs != self._installs:
            self._installs = self._machine.installs
            for path in self._state_paths:  # a snapshot has taken their place
                self._seen.pop(path, None)
        for path in (*self._log_paths, *self._state_paths, *self._other_paths):
            if path not in self._seen:
                try:
                    self._seen[path] = file_id(os.stat(path))
                except OSError:
                    continue  # SQLite makes a write-ahead log with the first write
        return {**self._directory.files(), **self._seen}


def _first_moved(expected: Mapping[str, FileId]) -> str | None:
    """The first path that no longer names the same file. A disk that does not answer proves nothing."""
    for path, known in expected.items():
        try:
            if file_id(os.stat(path)) != known:
                return path
        except OSError as error:
            if error.errno in _GONE:
                return path
    return None

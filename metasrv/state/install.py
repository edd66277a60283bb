"""Puts a verified snapshot file in the place of the state file, safe against a crash at any point.

The steps, and what the next start finds after a crash following each:

1. mark the snapshot file as one with a write-ahead log,   the old state
   sync it
2. rename it to `<state>.install`, sync the directory      the decision: the new state, once 3-5 are done again
3. remove `<state>-wal`, `-shm` and `-journal`, sync       as after 2. They belong to the old file, and SQLite would
                                                           play the old write-ahead log into the new file
4. rename `<state>.install` to `<state>`                   the new state
5. sync the directory

`finish_install` does steps 3 to 5; a start calls it first of all. Old connections of this process keep their unlinked
files; SQLite sees that the file has moved and neither checkpoints nor removes anything when they close. They must
be closed only after step 4, or closing would move a large write-ahead log on the event loop. Freeing the old files'
blocks takes a file system a tenth of a second for 100 MiB; `OldFiles` has that done by a thread of its own.
"""

from __future__ import annotations

import os
import threading

from metasrv.model.errors import StorageError
from metasrv.process.operating_system import show_thread_name, sync_file
from metasrv.state.store import sync_directory

_FORMAT_OFFSET = 18
"""Place of the two bytes of SQLite's header that name the journal mode, write version and read version."""
_FORMAT_WITH_WAL = b"\2\2"


class OldFiles:
    """Keeps the replaced files' blocks until `dispose`, which frees them off the event loop.

    Made only once the installation is decided: closing a descriptor of a state file that stays in use would drop
    the locks of its connections.
    """

    def __init__(self, state_path: str) -> None:
        self._descriptors: list[int] = []
        for path in (state_path, f"{state_path}-wal"):
            try:
                self._descriptors.append(os.open(path, os.O_RDONLY))
            except OSError:
                continue  # no such file, so nothing to free

    def dispose(self) -> None:
        """Free the blocks in the background; every connection to the old files must be closed by now."""
        threading.Thread(target=self._close, name="dispose", daemon=True).start()

    def _close(self) -> None:
        show_thread_name()
        while self._descriptors:
            os.close(self._descriptors.pop())


def begin_install(snapshot_path: str, state_path: str) -> None:
    """Steps 1 and 2; the snapshot file is moved away. Raises StorageError, and then nothing has changed."""
    try:
        descriptor = os.open(snapshot_path, os.O_RDWR)
        try:
            # SQLite's own way to this mark (PRAGMA journal_mode) costs several syncs on the event loop.
            os.pwrite(descriptor, _FORMAT_WITH_WAL, _FORMAT_OFFSET)
            sync_file(descriptor)
        finally:
            os.close(descriptor)
        os.replace(snapshot_path, _pending(state_path))
        sync_directory(state_path)
    except OSError as error:
        raise StorageError(f"{snapshot_path}: the snapshot could not be put in place: {error}") from error


def finish_install(state_path: str) -> bool:
    """Steps 3 to 5 if an installation was decided; returns whether it was. Raises StorageError."""
    try:
        if not os.path.exists(_pending(state_path)):
            return False
        for suffix in ("-wal", "-shm", "-journal"):
            if os.path.exists(state_path + suffix):
                os.unlink(state_path + suffix)
        sync_directory(state_path)
        os.replace(_pending(state_path), state_path)
        sync_directory(state_path)
    except OSError as error:
        raise StorageError(f"{state_path}: the snapshot could not be put in place: {error}") from error
    return True


def _pending(state_path: str) -> str:
    return f"{state_path}.install"

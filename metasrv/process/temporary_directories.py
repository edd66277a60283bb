"""Temporary directories of a process, which a kill leaves behind, and their removal at the next start.

The name carries the id of the process, so that a start can tell what nobody uses any more from what another node on
this machine is working in. Blocks; runs in helper threads, and before the node serves.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import time

logger = logging.getLogger(__name__)

PURPOSES = ("heap", "profile")
_AGE_SECONDS_MAX = 3600.0
"""No profile takes as long: an older directory is left over, whatever process has the id in its name now."""


def make_temporary_directory(purpose: str) -> str:
    """A new directory for one of `PURPOSES`, to be removed by the caller. Raises OSError."""
    return tempfile.mkdtemp(prefix=f"metasrv-{purpose}-{os.getpid()}-")


def sweep_temporary_directories() -> int:
    """Remove what processes that are gone have left; returns how many. To be called before this one has made any.

    A directory that cannot be removed, of another user for example, stays.
    """
    removed = 0
    try:
        with os.scandir(tempfile.gettempdir()) as entries:
            left = [entry.path for entry in entries if _is_left(entry)]
    except OSError as error:
        logger.warning("temporary directories of earlier processes are not looked for: %s", error)
        return 0
    for path in left:
        shutil.rmtree(path, ignore_errors=True)
        removed += not os.path.exists(path)
    if removed:
        logger.info("%d temporary directories of earlier processes are removed", removed)
    return removed


def _is_left(entry: os.DirEntry[str]) -> bool:
    prefixes = tuple(f"metasrv-{purpose}-" for purpose in PURPOSES)
    if not entry.name.startswith(prefixes):
        return False
    try:
        status = entry.stat(follow_symlinks=False)
        if not entry.is_dir(follow_symlinks=False) or status.st_uid != os.getuid():
            return False
    except OSError:
        return False  # removed meanwhile
    if time.time() - status.st_mtime > _AGE_SECONDS_MAX:
        return True
    parts = entry.name.split("-")
    return len(parts) > 3 and parts[2].isdecimal() and not _runs(int(parts[2]))


def _runs(process_id: int) -> bool:
    """Whether another process has this id; this one has made no directory yet."""
    if process_id == os.getpid():
        return False
    try:
        os.kill(process_id, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True

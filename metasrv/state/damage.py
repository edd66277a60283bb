"""Checks of a state or snapshot file that SQLite does not make when it opens the file (invariant 9).

Only for files that no connection of this process has open: closing a descriptor of a SQLite file drops the locks
that the process holds on it. Runs before the loop's work begins, or in a helper thread.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import BinaryIO

from metasrv.model.errors import DataDamagedError

ADVICE = (
    "`metasrv check` says what else is damaged; while the others keep a quorum, `metasrv --rebuild` gets this node's data"
    " from them"
)
_MAGIC = b"SQLite format 3\0"
_WAL_MAGICS = (0x377F0682, 0x377F0683)
_WAL_HEADER_SIZE_BYTES = 32
WAL_FRAME_HEADER_SIZE_BYTES = 24


def damaged(path: str, where: str, what: str) -> DataDamagedError:
    """A DataDamagedError with the usual advice."""
    return DataDamagedError(path, where, what, ADVICE)


def check_file(path: str) -> None:
    """Raise DataDamagedError when `path` is empty, not a SQLite file, or shorter than its header says."""
    size_bytes = os.stat(path).st_size
    if size_bytes == 0:
        raise damaged(path, "byte 0", "the file is empty")
    with open(path, "rb") as file:
        header = file.read(100)
    if len(header) < 100:
        raise damaged(path, f"byte {size_bytes}", "the file ends inside its header")
    if header[:16] != _MAGIC:
        raise damaged(path, "byte 0", "this is not a SQLite file")
    page_size = int.from_bytes(header[16:18], "big")
    page_size = 65536 if page_size == 1 else page_size
    if page_size < 512 or page_size & (page_size - 1):
        raise damaged(path, "byte 16", f"page size {page_size} is impossible")
    if header[18] not in (1, 2) or header[19] not in (1, 2):
        raise damaged(path, "byte 18", "the file format version is unknown")
    pages_present = size_bytes // page_size
    pages_named = int.from_bytes(header[28:32], "big")
    if pages_present >= pages_named:
        return
    # A crash in the middle of a checkpoint leaves the file short, but then the write-ahead log has the rest. Counted
    # first, because a damaged header may name any number of pages.
    missing = pages_named - pages_present
    in_wal = set(_pages_of_wal(f"{path}-wal", page_size))
    if missing <= len(in_wal):
        missing = sum(page not in in_wal for page in range(pages_present + 1, pages_named + 1))
    if missing:
        raise damaged(path, f"byte {size_bytes}", f"the file is cut off: {missing} of {pages_named} pages are missing")


def _pages_of_wal(path: str, page_size: int) -> Iterator[int]:
    try:
        file = open(path, "rb")  # noqa: SIM115 - closed below; a missing file is an empty log
    except FileNotFoundError:
        return
    with file:
        yield from _frames(file, page_size)


def _frames(file: BinaryIO, page_size: int) -> Iterator[int]:
    header = file.read(_WAL_HEADER_SIZE_BYTES)
    if len(header) < _WAL_HEADER_SIZE_BYTES or int.from_bytes(header[:4], "big") not in _WAL_MAGICS:
        return
    salts = header[16:24]
    while len(frame := file.read(WAL_FRAME_HEADER_SIZE_BYTES)) == WAL_FRAME_HEADER_SIZE_BYTES and frame[8:16] == salts:
        yield int.from_bytes(frame[:4], "big")
        file.seek(page_size, os.SEEK_CUR)

"""The snapshot files of a node by their names, and what they take on the disk.

Names what it reads; must not know what is in a file or who sends it. Callable from every thread.
"""

from __future__ import annotations

import os


def finished_files(directory: str) -> list[str]:
    """Paths of the finished snapshot files, oldest first by what they hold: a copied directory has other file times."""
    names = [name for name in os.listdir(directory) if name.endswith(".snap")]
    return [os.path.join(directory, name) for name in sorted(names, key=_position_of)]


def size_of_files(directory: str) -> int:
    """Bytes of all snapshot files, and of those that are being written or received; 0 for what cannot be looked at.

    Whoever asks shows a figure. That the directory is gone is noticed elsewhere (`node/files_in_place.py`).
    """
    try:
        with os.scandir(directory) as entries:
            return sum(_size_of(entry) for entry in entries)
    except OSError:
        return 0


def _size_of(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat().st_size
    except OSError:
        return 0  # removed since it was listed


def _position_of(name: str) -> tuple[int, ...]:
    """Index, term and time in the name of a snapshot file; zeros for a file that somebody else put there."""
    try:
        term, _, index, wall_ms = map(int, name.removesuffix(".snap").split("-"))
    except ValueError:
        return (0, 0, 0)
    return (index, term, wall_ms)

"""A directory as text: every file with its rights, size and time, as `ls -lR` has it.

Names and sizes alone; no file is opened, no link is followed. Must not know what the files are. Runs in a helper thread.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime

from metasrv.model.limits import DIAGNOSTICS_FILES_MAX


def directory_listing(root: str) -> str:
    """The files below `root` in the order of their names, a directory's own line before what is in it."""
    lines = [f"{root}:"]
    for position, line in enumerate(_lines(root, "")):
        if position >= DIAGNOSTICS_FILES_MAX:
            lines.append(f"… only the first {DIAGNOSTICS_FILES_MAX:,} files are listed")
            break
        lines.append(line)
    try:
        room = os.statvfs(root)
        free, size = room.f_bavail * room.f_frsize, room.f_blocks * room.f_frsize
        lines.append(f"free on its disk: {free:,} of {size:,} bytes, {room.f_favail:,} files")
    except OSError as error:
        lines.append(f"its disk does not say what is free: {error.strerror}")
    return "\n".join(lines) + "\n"


def _lines(directory: str, below: str) -> Iterator[str]:
    try:
        with os.scandir(directory) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        yield f"{below or '.'} cannot be listed: {error.strerror}"
        return
    for entry in entries:
        name = f"{below}{entry.name}"
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue  # it went away meanwhile
        except OSError as error:
            yield f"{_printable(name)} cannot be looked at: {error.strerror}"
            continue
        changed = datetime.fromtimestamp(status.st_mtime, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        yield f"{stat.filemode(status.st_mode)} {status.st_size:>15,} {changed} {_printable(name)}"
        if stat.S_ISDIR(status.st_mode):
            yield from _lines(entry.path, f"{name}/")


def _printable(name: str) -> str:
    return name if name.isprintable() else repr(name)

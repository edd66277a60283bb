"""One log file per hour, another one when it grows too large; the oldest are removed.

Files are called `metasrv.<hour in UTC>.log`, then `.1.log` and so on within the hour; nothing is ever renamed, so a
reader that follows a file keeps it. Runs on the logging helper thread. A full disk costs lines, never the process.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from datetime import UTC, datetime
from io import FileIO
from time import time

from metasrv.model.errors import StorageError
from metasrv.process.private_files import make_file_private, make_private_directory, open_private, secure_directory
from metasrv.process.standard_streams import STANDARD_ERROR, say

_NAME = re.compile(r"^metasrv\.(\d{4}-\d{2}-\d{2}-\d{2})(?:\.(\d+))?\.log$")


class RotatingFileHandler(logging.Handler):
    """Writes whole lines and keeps at most `limit` files of at most about `max_size_bytes`.

    A group with the id `allowed_group` keeps its rights to the directory. Raises OSError when the directory or the first
    file cannot be written, StorageError when others can write to it.
    """

    def __init__(self, directory: str, limit: int, max_size_bytes: int, allowed_group: int | None = None) -> None:
        super().__init__()
        self._directory = directory
        self._limit = limit
        self._max_size_bytes = max_size_bytes
        self._hour = ""
        self._part = 0
        self._stream: FileIO | None = None
        self._size_bytes = 0
        self._complained = False
        self._allowed_group = allowed_group
        self.opening_notice = self._prepare_directory()
        """What was changed about the directory's rights; empty for nothing. Nobody can log it yet."""
        self._open(_hour(time()))

    @property
    def path(self) -> str:
        """The file that lines go to now."""
        return self._path(self._part)

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record).encode("utf-8", "backslashreplace") + b"\n"
        try:
            self._write(line, _hour(record.created))
        except OSError as error:
            self._close_stream()
            self._complain(error)
        else:
            self._complained = False

    def reopen(self) -> None:
        """Close the file and open the one of that name again: it may have been renamed, or removed with its directory.

        Takes the handler's lock; for the logging helper thread.
        """
        with self.lock or contextlib.nullcontext():
            try:
                self._prepare_directory()
                self._open(max(_hour(time()), self._hour))
            except (OSError, StorageError) as error:
                self._complain(error)

    def close(self) -> None:
        self._close_stream()
        super().close()

    def _prepare_directory(self) -> str:
        """Make it this user's alone, unless it has files of others: /var/log must not be closed to them."""
        make_private_directory(self._directory)
        shared = any(_NAME.match(name) is None for name in os.listdir(self._directory))
        notice = secure_directory(self._directory, self._allowed_group, shared=shared)
        for _, _, name in self._files():
            make_file_private(os.path.join(self._directory, name), self._allowed_group)
        return notice

    def _write(self, line: bytes, hour: str) -> None:
        # A clock that went back must not reopen an old file.
        hour = max(hour, self._hour)
        if self._stream is None or hour != self._hour:
            self._open(hour)
        elif self._size_bytes > 0 and self._size_bytes + len(line) > self._max_size_bytes:
            self._close_stream()
            self._part += 1
            self._open(hour)
        if self._stream is not None:
            while line:  # a nearly full disk may take only a part; the next write then fails
                written = self._stream.write(line)
                self._size_bytes += written
                line = line[written:]

    def _open(self, hour: str) -> None:
        """Open the newest file of the hour for appending; a full one is left alone."""
        self._close_stream()
        if hour != self._hour:
            self._hour = hour
            parts = [part for found_hour, part, _ in self._files() if found_hour == hour]
            self._part = max(parts, default=0)
        while os.path.exists(self.path) and os.path.getsize(self.path) >= self._max_size_bytes:
            self._part += 1
        # Unbuffered and in append mode: a line is in the file when it is written, as one write.
        self._stream = FileIO(self.path, "ab", opener=open_private)
        self._size_bytes = os.path.getsize(self.path)
        self._remove_oldest()

    def _path(self, part: int) -> str:
        suffix = f".{part}" if part else ""
        return os.path.join(self._directory, f"metasrv.{self._hour}{suffix}.log")

    def _files(self) -> list[tuple[str, int, str]]:
        """Hour, part and name of every log file, oldest first."""
        matches = [_NAME.match(name) for name in os.listdir(self._directory)]
        return sorted((found[1], int(found[2] or 0), found[0]) for found in matches if found)

    def _remove_oldest(self) -> None:
        for _, _, name in self._files()[: -self._limit]:
            path = os.path.join(self._directory, name)
            if path != self.path:
                os.remove(path)

    def _close_stream(self) -> None:
        if self._stream is not None:
            stream, self._stream = self._stream, None
            stream.close()

    def _complain(self, error: OSError | StorageError) -> None:
        """Say once on standard error that lines are lost; the log itself cannot say it."""
        if not self._complained:
            self._complained = True
            say(f"metasrv: log lines are lost, {self.path}: {getattr(error, 'strerror', None) or error}", STANDARD_ERROR)


def _hour(created: float) -> str:
    return datetime.fromtimestamp(created, UTC).strftime("%Y-%m-%d-%H")

"""Standard output and standard error of a node: lines that reach nobody never end it, and never hold it up.

A node may be started without these streams (`>&-`), with a full disk behind them, or with a pipe that nobody reads or
whose reader has gone. What it says there also stands in its log, so a line that cannot be written now is left out. Works
on descriptors: Python's own streams would keep what they could not write, and fail again at exit. Does not know what is
said. Callable from every thread.
"""

from __future__ import annotations

import logging
import os
import select
import sys
from collections.abc import Callable

STANDARD_OUTPUT = 1
STANDARD_ERROR = 2

PIECE_SIZE_BYTES = 512
"""POSIX's smallest PIPE_BUF: a pipe that is ready for writing takes as much without a wait."""
PATIENCE_SECONDS = 1.0
"""How long to wait for a slow reader of standard error before a line is left out. The event loop says nothing there."""


def open_missing_streams() -> None:
    """Put the null device where a standard stream is closed; to be called before anything else is opened.

    The next file or socket would get the stream's number otherwise, and be written to by whatever prints.
    """
    for descriptor in (0, STANDARD_OUTPUT, STANDARD_ERROR):
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != descriptor:
                os.dup2(opened, descriptor)
                os.close(opened)
    # Python has None in the place of a stream that was closed when it started.
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  # lives as long as the process
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  # lives as long as the process


def say(text: str, descriptor: int = STANDARD_OUTPUT) -> None:
    """Write a line, as far as the stream takes it at this moment; for standard error, within `PATIENCE_SECONDS`."""
    patience_seconds = PATIENCE_SECONDS if descriptor == STANDARD_ERROR else 0.0
    write_now(descriptor, f"{text}\n".encode("utf-8", "backslashreplace"), patience_seconds)


def write_now(descriptor: int, data: bytes, patience_seconds: float = 0.0) -> int:
    """Write what the stream takes, waiting at most `patience_seconds` for each piece; returns how many bytes it took."""
    written = 0
    try:
        while written < len(data):
            _, ready, _ = select.select([], [descriptor], [], patience_seconds)
            if not ready:
                break
            written += os.write(descriptor, data[written : written + PIECE_SIZE_BYTES])
    except (OSError, ValueError):  # closed, full, or without a reader
        return written
    return written


class StandardErrorHandler(logging.Handler):
    """Log lines to standard error; a reader that does not read costs lines there, not the log file and not the stop."""

    def __init__(self, write: Callable[[int, bytes, float], int] = write_now) -> None:
        super().__init__()
        self._write = write
        self._stuck = False
        self._torn = False

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record).encode("utf-8", "backslashreplace") + b"\n"
        if self._torn:
            line = b"\n" + line
        written = self._write(STANDARD_ERROR, line, 0.0 if self._stuck else PATIENCE_SECONDS)
        self._stuck = written < len(line)
        if written > 0:
            self._torn = self._stuck

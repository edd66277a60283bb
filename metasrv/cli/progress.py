"""How far a long command is: one line that is written over on a terminal, a line now and then elsewhere.

Writes to standard error. Knows no command.
"""

from __future__ import annotations

import contextlib
import sys
import time

from metasrv.cli.terminal import note

_REFRESH_SECONDS = 0.2
_LINES_BETWEEN_NOTES = 100_000
_SECONDS_BETWEEN_NOTES = 10.0
_MEBIBYTE = 1024 * 1024


class Progress:
    """Shows the number of lines and bytes done so far."""

    def __init__(self, doing: str) -> None:
        """`doing` is the verb in the past: `read`, `saved`."""
        self._doing = doing
        self._terminal = sys.stderr is not None and sys.stderr.isatty()
        self._shown_at = 0.0
        self._noted = 0

    def __call__(self, lines: int, size_bytes: int) -> None:
        text = f"{self._doing} {lines:,} lines, {size_bytes / _MEBIBYTE:,.1f} MiB"
        if self._terminal:
            if time.monotonic() - self._shown_at >= _REFRESH_SECONDS:
                self._write_over(text)
        elif lines // _LINES_BETWEEN_NOTES > self._noted:
            self._noted = lines // _LINES_BETWEEN_NOTES
            note(text)

    def say(self, text: str) -> None:
        """Show what is done now: on a terminal at once, elsewhere a line every ten seconds."""
        if self._terminal:
            self._write_over(text)
        elif time.monotonic() - self._shown_at >= _SECONDS_BETWEEN_NOTES:
            self._shown_at = time.monotonic()
            note(text)

    def _write_over(self, text: str) -> None:
        self._shown_at = time.monotonic()
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(f"\r{text}\x1b[K")
            sys.stderr.flush()

    def end(self) -> None:
        """Remove the line from the terminal."""
        if self._terminal:
            with contextlib.suppress(OSError, ValueError):
                sys.stderr.write("\r\x1b[K")
                sys.stderr.flush()

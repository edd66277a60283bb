"""The terminal of `metactl top`: draws frames, reads keys, and leaves everything as it was.

Redraws when there is news, when a key was pressed and when the terminal has another size. Runs in the main thread.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
import threading
import time
import tty
from collections.abc import Iterator
from typing import TextIO

from rich.console import Console, Group
from rich.live import Live

from metasrv.cli.top.source import Source
from metasrv.cli.top.view import SORTS, Look, frame

WAIT_SECONDS = 0.2
"""So long a change of the size may take to be seen."""
_PLAIN_LOCALES = ("C", "POSIX")
_KEYS = {b"\x1b[C": "next", b"\x1b[D": "previous", b"\x1bOC": "next", b"\x1bOD": "previous"}


def is_ascii_only(stream: TextIO) -> bool:
    """Whether a terminal shows no more than ASCII, by its encoding and by what its user's locale says."""
    locale = os.environ.get("LC_ALL") or os.environ.get("LC_CTYPE") or os.environ.get("LANG") or ""
    try:
        "█●…←".encode(stream.encoding or "ascii")
    except (UnicodeError, LookupError):
        return True
    return stream.isatty() and locale in _PLAIN_LOCALES


class Screen:
    """Follows a source until it is told to quit."""

    def __init__(self, source: Source, interval_seconds: int) -> None:
        self._source = source
        self._interval_seconds = interval_seconds
        self._console = Console(file=sys.stdout, highlight=False)
        self._ascii_only = is_ascii_only(sys.stdout)
        self._sort = 0
        self._paused = False
        self._news = source.latest
        self._changed = threading.Event()
        self._quits = False

    def run(self) -> None:
        """Draw until `q`, an interrupt or a request to end."""
        self._source.changed = self._changed.set
        self._source.start()
        keys = sys.stdin.fileno() if sys.stdin is not None and sys.stdin.isatty() else None
        with _ended_by_signal(), _key_by_key(keys), Live(console=self._console, screen=True, auto_refresh=False) as live:
            self._follow(live, keys)

    def _follow(self, live: Live, keys: int | None) -> None:
        renewed_at, size, stale = float("-inf"), None, True
        while not self._quits:
            now = time.monotonic()
            if self._changed.is_set() and not self._paused and now - renewed_at >= self._pace():
                self._changed.clear()
                self._news, renewed_at, stale = self._source.latest, now, True
            if stale or self._console.size != size:
                size, stale = self._console.size, False
                live.update(Group(*frame(self._news, self._look())), refresh=True)
            stale = self._wait(keys) or stale

    def _pace(self) -> float:
        """The first frames are drawn as they come: a view that is not complete yet helps nobody."""
        return float(self._interval_seconds) if self._news.sight.events and not self._source.latest.trouble else 0.0

    def _look(self) -> Look:
        width, height = self._console.size
        return Look(width, height, self._ascii_only, SORTS[self._sort], self._paused, keys=True)

    def _wait(self, keys: int | None) -> bool:
        """Wait a little; whether a key changed what is to be shown."""
        if keys is None:
            time.sleep(WAIT_SECONDS)
            return False
        if not select.select([keys], [], [], WAIT_SECONDS)[0]:
            return False
        pressed = os.read(keys, 64)
        if not pressed:  # the terminal is gone
            self._quits = True
        return self._press(_KEYS.get(pressed) or pressed.decode("ascii", "replace"))

    def _press(self, key: str) -> bool:
        if key in ("q", "Q", "\x04"):
            self._quits = True
        elif key in ("p", "P", " "):
            self._paused = not self._paused
            self._changed.set()
        elif key in ("s", "S", "next"):
            self._sort = (self._sort + 1) % len(SORTS)
        elif key == "previous":
            self._sort = (self._sort - 1) % len(SORTS)
        else:
            return False
        return True


@contextlib.contextmanager
def _key_by_key(descriptor: int | None) -> Iterator[None]:
    """Keys come at once and are not shown; the terminal is as before afterwards."""
    if descriptor is None:
        yield
        return
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


@contextlib.contextmanager
def _ended_by_signal() -> Iterator[None]:
    """A request to end restores the terminal first."""

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

"""The newest lines of the log in bounded memory, for the diagnostics of this node.

Lines are kept as they are written, without secrets; a long one is cut. They are here also where the log goes to standard
error alone. Must not know who reads them. Written to on the logging helper thread, read on any.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable

from metasrv.model.limits import LOG_RECENT_LINE_CHARACTERS_MAX, LOG_RECENT_LINES_MAX, LOG_RECENT_SIZE_CHARACTERS_MAX

CUT = " … cut"


class RecentLines(logging.Handler):
    """Keeps as many lines as both limits allow."""

    def __init__(self, redact: Callable[[str], str]) -> None:
        super().__init__()
        self._redact = redact
        self._lines: deque[str] = deque()
        self._characters = 0

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record)
        if len(line) > LOG_RECENT_LINE_CHARACTERS_MAX:
            line = line[:LOG_RECENT_LINE_CHARACTERS_MAX] + CUT
        self._lines.append(line)
        self._characters += len(line)
        while len(self._lines) > LOG_RECENT_LINES_MAX or self._characters > LOG_RECENT_SIZE_CHARACTERS_MAX:
            self._characters -= len(self._lines.popleft())

    def lines(self) -> list[str]:
        """The lines, oldest first; secrets that became known after a line was written are left out of it, too."""
        self.acquire()
        try:
            lines = list(self._lines)
        finally:
            self.release()
        return [self._redact(line) for line in lines]

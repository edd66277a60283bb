"""What the admin port refuses or cuts off, as one log line for each kind within a time, with a count.

Whoever reaches the port can do each of it thousands of times a second, so nothing of it is a line or a traceback by
itself. Must not know connections. Runs on the event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

logger = logging.getLogger(__name__)

REPORT_SECONDS = 10.0

WARNINGS_OF_SERVER = {
    "Invalid HTTP request received.": "what was sent is not HTTP",
    "Exceeded concurrency limit.": "a request was refused, all connections are busy",
    "Unsupported upgrade request.": "a request asked for another protocol",
}
"""What the server's library warns of, in the words of this log; the text of another warning counts as a kind."""
FOLLOW_UP = "No supported WebSocket library detected."
"""The library says this behind a refused upgrade, which is counted already."""


class CutOffs:
    """Counts by kind, and writes a line for each kind when the time is over."""

    def __init__(self, listener: str) -> None:
        self._listener = listener
        self._counts: Counter[str] = Counter()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, loop: asyncio.AbstractEventLoop, kind: str) -> None:
        """Count one more of this kind."""
        self._counts[kind] += 1
        if self._timer is None:
            self._timer = loop.call_later(REPORT_SECONDS, self.report)

    def report(self) -> None:
        """Write the lines and begin to count anew."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for kind, count in self._counts.most_common():
            logger.warning("%s, %d times within %.0f s: %s", self._listener, count, REPORT_SECONDS, kind)
        self._counts.clear()


class CountedWarnings(logging.LoggerAdapter[logging.Logger]):
    """The library's logger for one connection: its warnings are counted, its errors are written."""

    def __init__(self, written: logging.Logger, count: Callable[[str], None]) -> None:
        super().__init__(written)
        self._count = count

    @property
    def level(self) -> int:
        """The library compares it before it traces."""
        return self.logger.level

    def warning(self, msg: object, *_args: object, **_kwargs: Any) -> None:
        """Count it."""
        text = str(msg)
        if not text.startswith(FOLLOW_UP):
            self._count(WARNINGS_OF_SERVER.get(text, text))

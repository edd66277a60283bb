"""Lines of the log that repeat: the first is written at once, those after it are counted, and the count is one line.

Only a line of the same logger with the same level, text and fields counts as the same. The log of a node that fails in
the same way a thousand times a second stays readable, and says how often. Must not know files or formats. Runs on the
logging helper thread.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from metasrv.model.limits import LOG_FOLDED_CHARACTERS_MAX, LOG_FOLDED_LINES_MAX

FOLD_SECONDS = 10.0
"""From the first line to the one with the count."""
AUDIT_LOGGER = "metasrv.audit"
"""Each of its lines stands for one request, and none may be missing."""

Handlers = tuple[Any, ...]
Write = Callable[[logging.LogRecord, Handlers], None]


class _Key(NamedTuple):
    """What makes two lines the same."""

    name: str
    level: int
    text: str
    trace: str | None
    fields: str


@dataclass(slots=True)
class _Folded:
    """A line that was written, and the newest of those that were not."""

    since: float
    newest: logging.LogRecord
    handlers: Handlers
    more: int = 0


class Folding:
    """Passes records on to `write`, with those that repeat folded; records are as the entrance of the log fixed them."""

    def __init__(self, write: Write, fields_of: Callable[[logging.LogRecord], dict[str, Any]]) -> None:
        self._write = write
        self._fields_of = fields_of
        self._folded: dict[_Key, _Folded] = {}
        """By the time of their first line, the oldest first."""
        self._clock: Callable[[], float] = time.monotonic

    def take(self, record: logging.LogRecord, handlers: Handlers) -> None:
        """Write it, or count it; and write the counts that are due."""
        now = self._clock()
        self.write_due(now)
        key = self._key(record)
        if key is None:
            self._write(record, handlers)
            return
        known = self._folded.get(key)
        if known is not None:
            known.newest, known.handlers, known.more = record, handlers, known.more + 1
            return
        if len(self._folded) >= LOG_FOLDED_LINES_MAX:
            self._end(next(iter(self._folded)))
        self._folded[key] = _Folded(now, record, handlers)
        self._write(record, handlers)

    def seconds_left(self) -> float | None:
        """Until the next count is due; None when nothing is folded."""
        for folded in self._folded.values():
            return max(0.0, folded.since + FOLD_SECONDS - self._clock())
        return None

    def write_due(self, now: float | None = None) -> None:
        """Write the counts whose time is over."""
        now = self._clock() if now is None else now
        while self._folded:
            key = next(iter(self._folded))
            if now < self._folded[key].since + FOLD_SECONDS:
                return
            self._end(key)

    def write_all(self) -> None:
        """Write every count: the log ends."""
        for key in tuple(self._folded):
            self._end(key)

    def _end(self, key: _Key) -> None:
        folded = self._folded.pop(key)
        if folded.more:
            record = folded.newest
            seconds = max(1, round(self._clock() - folded.since))
            times = "once more" if folded.more == 1 else f"{folded.more:,} times more"
            record.msg = f"{record.msg} ({times} within {seconds} s)"
            self._write(record, folded.handlers)

    def _key(self, record: logging.LogRecord) -> _Key | None:
        """None for a line that is never folded: an audit line, one for a person who debugs, one that is too long."""
        if record.levelno < logging.INFO or record.name == AUDIT_LOGGER:
            return None
        fields = self._fields_of(record)
        key = _Key(record.name, record.levelno, str(record.msg), record.exc_text, repr(fields) if fields else "")
        length = len(key.text) + len(key.trace or "") + len(key.fields)
        return key if length <= LOG_FOLDED_CHARACTERS_MAX else None

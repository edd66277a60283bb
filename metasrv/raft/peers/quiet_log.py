"""Faults that repeat: the same sentence about the same thing is logged when it is new, then once a minute at most.

Knows nothing of what it logs. Runs on the event loop.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable
from dataclasses import dataclass

from metasrv.model.limits import LOGGED_SUBJECTS_MAX
from metasrv.process.clock import Clock

REPEAT_AFTER_SECONDS = 60.0
"""A fault that lasts is written again after this time."""


@dataclass(slots=True)
class _Last:
    sentence: str
    logged_at: float
    suppressed: int


class QuietLog:
    """Writes warnings, and leaves repetitions out."""

    def __init__(self, logger: logging.Logger, clock: Clock) -> None:
        self._logger = logger
        self._clock = clock
        self._last: dict[Hashable, _Last] = {}

    def warn(
        self, subject: Hashable, sentence: str, *, whenever_it_changes: bool = True, level: int = logging.WARNING
    ) -> None:
        """Write `sentence` about `subject`, if it is new or old enough.

        Strangers choose what they send, and so the sentence: for them `whenever_it_changes` is False.
        """
        now = self._clock.monotonic()
        last = self._last.get(subject)
        recent = last is not None and now - last.logged_at < REPEAT_AFTER_SECONDS
        if last is not None and recent and (last.sentence == sentence or not whenever_it_changes):
            last.suppressed += 1
            return
        more = ""
        if last is not None and last.suppressed:
            if last.sentence == sentence or not whenever_it_changes:
                more = f" (and {last.suppressed} more since the last line)"
            else:
                more = f" (before that, the last line would have come {last.suppressed} more times)"
        self._last.pop(subject, None)
        if len(self._last) >= LOGGED_SUBJECTS_MAX:
            del self._last[next(iter(self._last))]
        self._last[subject] = _Last(sentence, now, 0)
        self._logger.log(level, "%s%s", sentence, more)

    def recovered(self, subject: Hashable, sentence: str) -> None:
        """The fault is over: write so, unless it comes and goes so often that its lines are being left out."""
        last = self._last.get(subject)
        if last is None or not last.suppressed:
            self._logger.info("%s", sentence)

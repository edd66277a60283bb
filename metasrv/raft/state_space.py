"""Gives free space of the state file back while the node serves, in slices that no request notices.

A slice is one small transaction on the event loop between two entries: it moves some pages from the file's end into
free ones. The file itself gets shorter when its write-ahead log is moved (`state_log.py`), which is asked for at the
end. A part stays free, because what deletes usually writes again. Runs on the event loop; knows neither SQLite nor
what is stored.
"""

from __future__ import annotations

import logging

from metasrv.model.limits import STATE_FREE_SIZE_BYTES_KEPT
from metasrv.process.clock import Clock
from metasrv.raft.state_log import StateLog
from metasrv.state.machine import StateMachine

logger = logging.getLogger(__name__)

FREE_SHARE = 4
"""Begin once one part in so many of the file is free, so that a large state that changes is left alone."""
PAGES_MAX = 24
"""Free pages at the end cost a tenth of those that have to be moved, and nobody knows which the next are: this many
of the dear ones take less than 3 ms."""
PAGES_MIN = 1
"""In a file with millions of free pages one alone takes a millisecond: SQLite looks for it in the list of all."""
_PAGE_SIZE_BYTES = 4096
SLICE_SECONDS_TARGET = 0.0015
"""A slice that takes longer is followed by a smaller one."""
ASKED_SIZE_BYTES_KEPT = 64 * 1024
"""What stays free when an operator asks: entries that come meanwhile free some pages all the time."""
_PAUSE_SECONDS = 0.02
_LOOK_SECONDS = 1.0


class StateSpace:
    """See the module. `kept`: bytes that may stay free."""

    def __init__(
        self, *, machine: StateMachine, clock: Clock, state_log: StateLog, kept: int = STATE_FREE_SIZE_BYTES_KEPT
    ) -> None:
        self._machine = machine
        self._clock = clock
        self._state_log = state_log
        self._kept = kept
        self._pages = PAGES_MIN
        self._giving = False
        self._asked = False
        self._next_at = 0.0

    def ask(self) -> None:
        """Give back nearly everything, once, however little it is."""
        self._giving = self._asked = True
        self._next_at = 0.0

    def is_over(self) -> bool:
        """Whether what was asked for is given back; the file gets shorter when its write-ahead log is moved."""
        return not self._asked

    def consider(self) -> None:
        """After each step: give a slice back if it is time. Raises StorageError or DataDamagedError."""
        started = self._clock.monotonic()
        if started < self._next_at or self._state_log.takes_no_more:
            return
        free_bytes, size_bytes = self._machine.free_size_bytes()
        if not self._giving and free_bytes <= max(self._kept, size_bytes // FREE_SHARE):
            self._next_at = started + _LOOK_SECONDS
            return
        if free_bytes <= (ASKED_SIZE_BYTES_KEPT if self._asked else self._kept // 2):
            self._state_log.move_soon(cut=self._asked)
            self._giving = self._asked = False
            self._next_at = started + _LOOK_SECONDS
            logger.info("free space of the state is given back; %d bytes are left", size_bytes)
            return
        self._giving = True
        self._machine.give_back_space(self._pages)
        self._state_log.shortened(self._pages * _PAGE_SIZE_BYTES)
        ended = self._clock.monotonic()
        if ended - started > SLICE_SECONDS_TARGET:
            self._pages = max(PAGES_MIN, self._pages // 2)
        elif self._pages < PAGES_MAX:
            self._pages += 1
        self._next_at = ended + _PAUSE_SECONDS

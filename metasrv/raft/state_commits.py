"""When applied entries are committed to the state file: several at a time, some tens of milliseconds later at the most.

The raft log is what is durable, so nobody waits for these commits; after a crash the log gives the state what it lacks.
Whoever reads the state file through another connection, or syncs it, commits first. Runs on the event loop.
"""

from __future__ import annotations

import logging

from metasrv.model.limits import DISK_SLOW_SECONDS, STATE_UNCOMMITTED_SIZE_BYTES_MAX
from metasrv.process.clock import Clock
from metasrv.raft.observer import RaftObserver
from metasrv.raft.state_log import written_size_bytes
from metasrv.state.machine import StateMachine

logger = logging.getLogger(__name__)

COMMIT_SECONDS_MAX = 0.05
"""From the first entry of a transaction to its commit, while the engine is free."""


class StateCommits:
    """See the module."""

    def __init__(self, machine: StateMachine, clock: Clock, observer: RaftObserver) -> None:
        self._machine = machine
        self._clock = clock
        self._observer = observer
        self._begun_at = 0.0
        self._size_bytes = 0
        machine.commits_later = True
        machine.committed = self._committed

    def applied(self, content_size_bytes: int, commands: int) -> None:
        """One entry took effect. Raises StorageError when a commit was due and the disk refuses."""
        if self._machine.uncommitted == 1:
            self._begun_at = self._clock.monotonic()
            self._size_bytes = 0
        self._size_bytes += written_size_bytes(content_size_bytes, commands)
        if self._size_bytes >= STATE_UNCOMMITTED_SIZE_BYTES_MAX:
            self._machine.commit()

    def consider(self) -> None:
        """After each step: commit if it is time. Raises StorageError when the disk refuses."""
        if self._machine.uncommitted and self._clock.monotonic() - self._begun_at >= COMMIT_SECONDS_MAX:
            self._machine.commit()

    def _committed(self, seconds: float) -> None:
        """A commit kept the event loop for these seconds, whoever asked for it."""
        self._observer.state_committed(seconds)
        if seconds > DISK_SLOW_SECONDS:
            logger.warning("a commit to %s took %.1f s, and everything waited for it", self._machine.path, seconds)

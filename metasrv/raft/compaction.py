"""Log purge without a copy of the state, so that its cost does not grow with the state (ARCHITECTURE.md section 6).

The state file is durable by itself, so the log may be purged up to the applied index that a finished sync of the state
has put on disk. Policy: every `snapshot_logs_since_last` applied entries, keeping `max_applied_log_to_keep` of them;
earlier when the log in memory grows past its limit. What a snapshot on its way to a peer must be followed by stays, up
to a larger limit: a peer that hangs must not fill the memory. The sync runs in the state thread; the purge is a lazy
log write.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from metasrv.model.entries import leader_id_of
from metasrv.model.errors import FatalError, StorageError
from metasrv.model.limits import LOG_MEMORY_BYTES_HELD_MAX, LOG_MEMORY_BYTES_MAX
from metasrv.model.types import LogId
from metasrv.raft.log.format import CONTENT, TERM
from metasrv.raft.log.storage_thread import Storage
from metasrv.raft.log.store import LogStore
from metasrv.raft.snapshots import Snapshots
from metasrv.state.durability import sync_state
from metasrv.state.machine import StateMachine

logger = logging.getLogger(__name__)

_STEP_ENTRIES_MAX = 4_096
"""Purged in one step, which must stay short: what a transfer held back can be many."""


class Compaction:
    """Decides when to sync the state and how far to purge the log."""

    def __init__(
        self,
        *,
        store: LogStore,
        snapshots: Snapshots,
        thread: Storage,
        machine: StateMachine,
        logs_since_last: int,
        logs_to_keep: int,
        failed: Callable[[FatalError], None],
    ) -> None:
        self._store = store
        self._snapshots = snapshots
        self._thread = thread
        self._machine = machine
        self._logs_since_last = max(1, logs_since_last)
        self._logs_to_keep = logs_to_keep
        self._failed = failed
        self._synced_index = machine.last_applied.index
        self._running = False
        self._unfinished = False
        """The last purge left something for the next step."""
        self._asked = False
        self._asked_index = 0
        """What is before this entry goes, whatever the policy keeps."""

    def purged(self) -> LogId | None:
        """The last purged entry; the log keeps its position, as Raft's consistency check needs it."""
        first = self._store.first_index
        entry = self._store.entry_at(first)
        return LogId(entry[TERM], first, leader_id_of(entry[CONTENT])) if entry is not None and first > 1 else None

    def ask(self, index: int) -> None:
        """Purge what is before this entry with the next step, whatever the policy keeps, but not what a peer is sent."""
        self._asked, self._asked_index = True, index

    def is_over(self) -> bool:
        """Whether nothing is left of what was asked for."""
        return not (self._asked or self._running or self._unfinished)

    def consider(self) -> None:
        """Start a sync of the state if enough was applied since the last one."""
        if self._running:
            return
        if self._unfinished:
            self._purge()
        applied = self._machine.last_applied.index
        early = applied > self._synced_index and self._is_crowded()
        if not early and not self._asked and applied - self._synced_index < self._logs_since_last:
            return
        self._machine.commit()
        self._running, self._asked = True, False

        def done(_result: object, error: BaseException | None) -> None:
            self._running = False
            if error is not None:
                self._failed(
                    error if isinstance(error, FatalError) else StorageError(f"the state cannot be synced: {error}")
                )
                return
            self._synced_index = applied
            self._purge()

        self._thread.submit(_make_durable, self._machine.path, on_done=done)

    def _floor(self) -> int | None:
        """What a peer needs behind its snapshot; None also when nothing else is left to purge and it fills the memory."""
        floor, store = self._snapshots.purge_floor(), self._store
        if floor is not None and floor <= store.first_index and store.bytes_in_memory > LOG_MEMORY_BYTES_HELD_MAX:
            return None
        return floor

    def _is_crowded(self) -> bool:
        """The log is too large, and a purge would make it smaller."""
        if self._store.bytes_in_memory <= LOG_MEMORY_BYTES_MAX:
            return False
        floor = self._floor()
        return floor is None or floor > self._store.first_index

    def _purge(self) -> None:
        store, floor = self._store, self._floor()
        first_kept = self._synced_index - (1 if self._is_crowded() else max(1, self._logs_to_keep))
        first_kept = max(first_kept, min(self._asked_index, self._synced_index))
        if floor is not None:
            first_kept = min(first_kept, floor)
        until = min(first_kept, store.first_index + _STEP_ENTRIES_MAX)
        self._unfinished = until < first_kept
        if until <= store.first_index:
            return
        if floor is None and self._snapshots.purge_floor() is not None:
            logger.warning(
                "the log is purged although a peer that is sent a snapshot needs it, and will be sent another:"
                " %d bytes of it are in memory",
                store.bytes_in_memory,
            )
        logger.debug("purging the log before entry %d", until)
        store.purge_to(until)


def _make_durable(state_path: str) -> None:
    """In the state thread: sync what is committed."""
    sync_state(state_path)

"""Keeps the state's write-ahead log short: decides when it is moved into the state file, and when it begins anew.

Three steps in the state thread (`state/durability.py`): syncs of a few MiB, so that none is long; passes beside the
loop's writes; then the restart, for which the loop holds back committed entries. It goes on with everything else
meanwhile: messages, log writes, reads of what is applied. The pause is two or three small syncs long, as the raft log's
own are.

A reader on an older instant keeps the log from beginning anew. When the log has grown past its limit, all views are
revoked: their clients are told to read again. Runs on the event loop; knows neither SQLite nor who reads.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from metasrv.model.errors import FatalError, StorageError
from metasrv.model.limits import (
    STATE_FREE_SIZE_BYTES_KEPT,
    STATE_LOG_PINNED_SIZE_BYTES_MAX,
    STATE_LOG_SIZE_BYTES_KEPT,
    STATE_LOG_SIZE_BYTES_TARGET,
    STATE_LOG_UNSYNCED_SIZE_BYTES_MAX,
)
from metasrv.model.sizes import size_text
from metasrv.process.clock import Clock
from metasrv.raft.log.storage_thread import Storage
from metasrv.raft.observer import RaftObserver
from metasrv.state.durability import LogPasses, LogRestart, checkpoint, restart_log, sync_log
from metasrv.state.machine import StateMachine

logger = logging.getLogger(__name__)

_ENTRY_SIZE_BYTES = 4 * 1024
"""What one entry writes to the log beside its commands: the page with its position."""
_COMMAND_SIZE_BYTES = 4 * 1024
"""What one command writes beside its content: its page. Several commands of an entry may share one, so that this is
corrected by what is found; too low a guess shows in the size of the file."""
_SHARE_MIN = 1 / 16
_LOOKS_PER_TARGET = 256
"""How often the sizes of the files are looked at while the target is written: not after each small entry."""
_AGAIN_SECONDS = 1.0
"""After a reader was in the way, or the disk was slow."""
SHORTENED_SIZE_BYTES_MAX = 8 * 1024 * 1024
"""Given back and not yet cut off the state file, which happens in the last pass: a file system takes about a third of a
millisecond for each MiB, and entries may have to wait for it."""
LOG_SIZE_BYTES_MIN = 64 * 1024
"""A log that is cut keeps this: a new one begins with a frame that must stay."""
_SHORTEN_AGAIN_SECONDS = 0.1
"""Between two pieces cut off a long file."""
RESTART_SECONDS_MAX = 0.1
"""A restart that would take longer, judged by the last pass, waits for a better moment."""
URGENT_FACTOR = 4
"""Unless the log is so many times its target."""


def written_size_bytes(content_size_bytes: int, commands: int) -> int:
    """About what an entry writes, if its commands share no page."""
    return content_size_bytes + _ENTRY_SIZE_BYTES + commands * _COMMAND_SIZE_BYTES


@dataclass(frozen=True, slots=True)
class StateLogLimits:
    """Sizes in bytes; the simulator's are smaller."""

    unsynced: int = STATE_LOG_UNSYNCED_SIZE_BYTES_MAX
    target: int = STATE_LOG_SIZE_BYTES_TARGET
    kept: int = STATE_LOG_SIZE_BYTES_KEPT
    pinned_max: int = STATE_LOG_PINNED_SIZE_BYTES_MAX
    free_kept: int = STATE_FREE_SIZE_BYTES_KEPT
    """Free space of the state file itself (`state_space.py`)."""


class StateLog:
    """See the module. `hold(True)` makes the engine leave committed entries where they are until `hold(False)`."""

    def __init__(
        self,
        *,
        machine: StateMachine,
        thread: Storage,
        clock: Clock,
        observer: RaftObserver,
        limits: StateLogLimits,
        hold: Callable[[bool], None],
        failed: Callable[[FatalError], None],
    ) -> None:
        self._machine = machine
        self._thread = thread
        self._clock = clock
        self._observer = observer
        self._limits = limits
        self._hold = hold
        self._failed = failed
        self._closed = False
        self._running = False
        self.restarting = False
        """The state file must not be written to, or replaced, at this moment."""
        self.restarts = 0
        """How many were begun."""
        self._written_bytes = 0.0
        """Estimated, since the last passes began."""
        self._unseen_bytes = 0
        """Estimated at the most, since the sizes of the files were looked at."""
        self._shortened_bytes = 0
        self._synced_bytes = 0.0
        """The part written before the last sync."""
        self._share = 1.0
        """The share of the largest estimate that the last passes found to have been written."""
        self._is_new = True
        """The log began anew after the last passes, so that the next ones find only what came since."""
        self._file_size_bytes = machine.file_sizes().log_bytes
        """When the last passes or the last restart were over."""
        self._changed = True
        self._cuts = False
        """It is to be cut to next to nothing, once, because an operator asked for that."""
        self._again_at: float | None = 0.0 if self._file_size_bytes > limits.target else None
        """When to try again, although nothing was written: what an earlier run left, or a reader was in the way."""

    def applied(self, content_size_bytes: int, commands: int) -> None:
        """One entry took effect."""
        size_bytes = written_size_bytes(content_size_bytes, commands)
        self._written_bytes += size_bytes * self._share
        self._unseen_bytes += size_bytes
        self._changed = True

    def shortened(self, size_bytes: int) -> None:
        """So much of the state file was given back; what was moved for that is in the log, and is no more than that."""
        self._shortened_bytes += size_bytes
        self.applied(size_bytes, 0)

    @property
    def takes_no_more(self) -> bool:
        """Whether nothing more may be given back for now: the log has to be moved first; a reader may be in the way."""
        return self.restarting or self._shortened_bytes >= SHORTENED_SIZE_BYTES_MAX

    @property
    def is_moving(self) -> bool:
        """Whether it is being moved, or is to be, into the state file, which gets shorter by that."""
        return self._running or self._again_at is not None

    def consider(self) -> None:
        """After each step: revoke views, start the passes, if it is time."""
        due = self._again_at is not None and self._clock.monotonic() >= self._again_at
        if not self._changed and not due:
            return
        self._changed = False
        grown = False
        if due or self._unseen_bytes * _LOOKS_PER_TARGET >= self._limits.target:
            self._unseen_bytes = 0
            sizes = self._machine.file_sizes()
            self._check_views(sizes.database_bytes, sizes.log_bytes)
            grown = self._has_grown(sizes.log_bytes)
        if self._running:
            return
        shortened = self._shortened_bytes >= SHORTENED_SIZE_BYTES_MAX and self._again_at is None
        if due or shortened or grown or self._written_bytes >= self._limits.target:
            self._start_passes()
        elif self._written_bytes - self._synced_bytes >= self._limits.unsynced:
            self._start_sync()

    def _has_grown(self, log_bytes: int) -> bool:
        """More was written than estimated: a new log is longer than the remains of the old one only once all is new."""
        if self._is_new:
            return log_bytes >= self._limits.target and log_bytes > self._file_size_bytes
        return log_bytes >= self._file_size_bytes + self._limits.target

    def _check_views(self, database_bytes: int, log_bytes: int) -> None:
        views = self._machine.views
        limit = self._limits.pinned_max + database_bytes
        views.hurry = log_bytes > limit // 2
        if log_bytes > limit and len(views):
            count = views.revoke(
                f"this read took so long that the write-ahead log of the state grew to {size_text(log_bytes)} meanwhile;"
                f" the limit is {size_text(limit)}. Read again, less at a time or while less is written"
            )
            self._plan(_SHORTEN_AGAIN_SECONDS)
            logger.warning(
                "%d large reads are ended: they kept the state's write-ahead log, now %s, from starting over",
                count,
                size_text(log_bytes),
            )

    def _plan(self, seconds: float | None) -> None:
        self._again_at = None if seconds is None else self._clock.monotonic() + seconds

    def move_soon(self, *, cut: bool = False) -> None:
        """Move the log and begin it anew although little was written: the state file got shorter.

        With `cut` the file of the log gets as short as can be, although it will have to grow again.
        """
        self._cuts = self._cuts or cut
        self._plan(0.0)

    def close(self) -> None:
        """Start nothing new; what runs in the state thread comes to its end."""
        self._closed = True

    # ------------------------------------------------------------------ syncs and passes

    def _start_sync(self) -> None:
        if not self._commit():
            return
        self._running = True
        self._synced_bytes = self._written_bytes

        def done(_result: bool | None, error: BaseException | None) -> None:
            self._running = False
            if error is not None:
                self._fail(error)

        self._thread.submit(sync_log, self._machine.path, on_done=done)

    def _start_passes(self) -> None:
        if not self._commit():
            return
        self._running = True
        estimated_bytes, self._written_bytes, self._synced_bytes = self._written_bytes, 0.0, 0.0

        def done(passes: LogPasses | None, error: BaseException | None) -> None:
            if passes is None:
                self._fail(error)
                return
            if self._is_new and estimated_bytes >= self._limits.target:
                self._share = min(1.0, max(_SHARE_MIN, self._share * passes.size_bytes / estimated_bytes))
            self._is_new = False
            self._passed(passes)

        self._plan(None)
        self._thread.submit(checkpoint, self._machine.path, on_done=done)

    def _passed(self, passes: LogPasses) -> None:
        self._file_size_bytes = self._machine.file_sizes().log_bytes
        if self._closed:
            return
        if passes.moved < passes.frames or self._is_slow(passes):
            self._running = False
            self._plan(_AGAIN_SECONDS)
        else:
            self._start_restart()

    def _is_slow(self, passes: LogPasses) -> bool:
        return passes.seconds > RESTART_SECONDS_MAX and passes.size_bytes < URGENT_FACTOR * self._limits.target

    # ------------------------------------------------------------------ restart

    def _start_restart(self) -> None:
        if not self._commit():  # an open transaction would be in the way
            return
        self.restarting = True
        self.restarts += 1
        self._hold(True)
        started_at = self._clock.monotonic()
        kept = LOG_SIZE_BYTES_MIN if self._cuts else self._limits.kept

        def done(restart: LogRestart | None, error: BaseException | None) -> None:
            self.restarting = self._running = False
            self._observer.applying_paused(self._clock.monotonic() - started_at)
            if restart is None:
                self._fail(error)
                return
            self._file_size_bytes = restart.file_size_bytes
            if not restart.restarted:
                self._plan(_AGAIN_SECONDS)
            else:
                self._is_new = True
                self._shortened_bytes = 0
                if restart.file_size_bytes > kept:
                    self._plan(_SHORTEN_AGAIN_SECONDS)
                else:
                    self._cuts = False
            self._hold(False)

        self._thread.submit(restart_log, self._machine.path, kept, on_done=done)

    def _commit(self) -> bool:
        """Let the state thread see what is applied; False when the disk refuses, and so the node stops."""
        try:
            self._machine.commit()
        except FatalError as error:
            self._failed(error)
            return False
        return True

    def _fail(self, error: BaseException | None) -> None:
        text = f"the state's write-ahead log cannot be moved into the state file: {error}"
        self._failed(error if isinstance(error, FatalError) else StorageError(text))

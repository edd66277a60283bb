"""The product's state machine, with a witness of each applied entry and a disk that can be full.

Does not change what is applied. Runs where the state machine runs.
"""

from __future__ import annotations

from typing import Protocol

from metasrv.model.commands import Reply
from metasrv.model.entries import Entry
from metasrv.model.types import LogId
from metasrv.state.format import SnapshotTail
from metasrv.state.machine import StateMachine
from verification.simulation.storage import DiskFaults, on_full_disk


class Watcher(Protocol):
    """The process that the state machine belongs to."""

    @property
    def faults(self) -> DiskFaults: ...

    def applied(self, log_id: LogId, entry: Entry, replies: tuple[Reply, ...], /) -> None: ...

    def installed(self) -> None: ...


class WatchedMachine(StateMachine):
    """`watcher` is set once the process is composed."""

    watcher: Watcher | None = None

    def apply_entry(self, log_id: LogId, entry: Entry) -> tuple[Reply, ...]:
        watcher = self.watcher
        if watcher is None:
            return super().apply_entry(log_id, entry)
        replies = super().apply_entry(log_id, entry)
        watcher.applied(log_id, entry, replies)
        return replies

    def commit(self) -> None:
        faults = None if self.watcher is None else self.watcher.faults
        if faults is not None and faults.state_full > 0 and self.uncommitted:
            faults.state_full -= 1
            on_full_disk(super().commit, ())
        else:
            super().commit()

    def install(self, path: str) -> SnapshotTail:
        tail = super().install(path)
        if self.watcher is not None:
            self.watcher.installed()
        return tail

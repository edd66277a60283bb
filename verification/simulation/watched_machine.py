"""The product's state machine, with a witness of each applied entry and a disk that can be full.

Does not change what is applied. Runs where the state machine runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from metasrv.model.commands import Reply
from metasrv.model.entries import Entry
from metasrv.model.types import LogId
from metasrv.state.format import SnapshotTail
from metasrv.state.machine import StateMachine
from verification.simulation.storage import on_full_disk

if TYPE_CHECKING:
    from verification.simulation.machine import Process


class WatchedMachine(StateMachine):
    """`process` is set once the process is composed."""

    process: Process | None = None

    def apply_entry(self, log_id: LogId, entry: Entry) -> tuple[Reply, ...]:
        process = self.process
        if process is None:
            return super().apply_entry(log_id, entry)
        faults = process.machine.faults
        if faults.state_full > 0:
            faults.state_full -= 1
            replies: tuple[Reply, ...] = on_full_disk(super().apply_entry, (log_id, entry))
        else:
            replies = super().apply_entry(log_id, entry)
        process.machine.world.witness.applied(process, log_id, entry, replies)
        return replies

    def install(self, path: str) -> SnapshotTail:
        tail = super().install(path)
        if self.process is not None:
            self.process.machine.world.witness.installed(self.process)
        return tail

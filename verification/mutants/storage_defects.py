"""Defects of what is written and when, and of what is read after a restart."""

from __future__ import annotations

import os
from typing import Any

from metasrv.model.types import LogId
from metasrv.node import opening
from metasrv.process.data_directory import DataDirectory
from metasrv.raft import compaction
from metasrv.raft.compaction import Compaction
from metasrv.raft.core.driver import Driver
from metasrv.raft.core.step import Core, Events, Ready
from metasrv.raft.log.format import PendingWrite
from metasrv.raft.log.store import LogStore, LogWriter
from metasrv.raft.state_log import StateLog
from metasrv.state import format, install, machine
from metasrv.state.machine import StateMachine
from verification.mutants.patching import Mutant, Replacement


def _term_not_stored() -> list[Replacement]:
    set_term, take = LogStore.setCurrentTerm, LogStore.take_pending

    def kept_in_memory(self: LogStore, term: int, vote: str | None) -> None:
        set_term(self, term, vote)
        self._term_changed = False

    def with_old_term(self: LogStore) -> PendingWrite | None:
        pending = take(self)
        return None if pending is None else pending._replace(term=self.last_term, voted_for=None)

    return [(LogStore, "setCurrentTerm", kept_in_memory), (LogStore, "take_pending", with_old_term)]


def _vote_not_stored() -> list[Replacement]:
    take = LogStore.take_pending

    def without_vote(self: LogStore) -> PendingWrite | None:
        pending = take(self)
        return None if pending is None else pending._replace(voted_for=None)

    return [(LogStore, "take_pending", without_vote)]


def _no_sync_before_send() -> list[Replacement]:
    return [(Core, "_divide", lambda _self, outbox: (outbox, []))]


def _leader_counts_itself_early() -> list[Replacement]:
    def step(self: Driver) -> None:
        if not self._stopped:
            self._take_step()

    real = Core.step

    def core_step(self: Core, events: Events) -> Ready:
        self._writing = False
        return real(self, events)

    return [(Driver, "_step", step), (Driver, "busy", lambda _self: False), (Core, "step", core_step)]


def _restart_clears_log() -> list[Replacement]:
    real = opening._reconcile

    def clear(directory: DataDirectory, store: LogStore, writer: LogWriter, machine: StateMachine) -> None:
        real(directory, store, writer, machine)
        applied_index = machine.last_applied.index
        previous, last = store.entry_at(applied_index - 1), store.entry_at(applied_index)
        if previous is not None and last is not None:
            store.reset_to([previous, last])

    return [(opening, "_reconcile", clear)]


def _purged_before_state_is_synced() -> list[Replacement]:
    return [(compaction, "_make_durable", lambda _state_path: None)]


def _synced_before_it_is_committed() -> list[Replacement]:
    consider = Compaction.consider

    def without_commit(self: Compaction) -> None:
        held: Any = self._machine
        held.commit = lambda: None
        try:
            consider(self)
        finally:
            del held.commit

    return [(Compaction, "consider", without_commit)]


def _snapshot_not_synced() -> list[Replacement]:
    def begin_install(snapshot_path: str, state_path: str) -> None:
        descriptor = os.open(snapshot_path, os.O_RDWR)
        try:
            os.pwrite(descriptor, install._FORMAT_WITH_WAL, install._FORMAT_OFFSET)
        finally:
            os.close(descriptor)
        os.replace(snapshot_path, install._pending(state_path))

    return [(machine, "begin_install", begin_install)]


def _sequence_not_restored() -> list[Replacement]:
    real = StateMachine.install

    def keep_own(self: StateMachine, path: str) -> Any:
        seq = self._applied.seq
        tail = real(self, path)
        self._applied = self._applied._replace(seq=seq)
        return tail

    return [(StateMachine, "install", keep_own)]


def _position_behind() -> list[Replacement]:
    out = format.applied_out

    def one_behind(applied: Any) -> Any:
        log_id: LogId = applied.log_id
        return out(applied._replace(log_id=log_id._replace(index=log_id.index - 1)))

    return [(machine, "applied_out", one_behind)]


def _last_pass_never_taken() -> list[Replacement]:
    def passes_are_enough(self: StateLog) -> None:
        self._running = False

    return [(StateLog, "_start_restart", passes_are_enough)]


STORAGE_MUTANTS = (
    Mutant("term not stored", "the term and the vote stay in memory", _term_not_stored),
    Mutant("vote not stored", "the vote stays in memory, the term is stored", _vote_not_stored),
    Mutant(
        "no sync before send", "votes and acknowledgements leave before the log is on the disk (D3)", _no_sync_before_send
    ),
    Mutant(
        "leader counts itself early", "the engine goes on while its own log is written (D4)", _leader_counts_itself_early
    ),
    Mutant(
        "restart clears the log",
        "what the log holds behind the state is dropped at start (D2)",
        _restart_clears_log,
        ("kill all", "snapshots in a loop", "kill rolling"),
    ),
    Mutant(
        "purge before sync",
        "the log is shortened although the state is not on the disk",
        _purged_before_state_is_synced,
        ("power loss of one", "power loss of all"),
    ),
    Mutant(
        "sync before commit",
        "the log is shortened although the last entries are in no committed transaction of the state",
        _synced_before_it_is_committed,
        ("kill one", "kill leader", "kill all"),
    ),
    Mutant(
        "last pass never taken",
        "the state's write-ahead log is moved into the state file but never begins anew by intent",
        _last_pass_never_taken,
        ("slow syncs", "snapshots in a loop"),
    ),
    Mutant(
        "snapshot not synced",
        "a received snapshot is put in place without a sync",
        _snapshot_not_synced,
        ("power loss after snapshot",),
    ),
    Mutant(
        "sequence not restored",
        "a snapshot is installed without its sequence number",
        _sequence_not_restored,
        ("lagging follower",),
    ),
    Mutant(
        "position one behind",
        "the state stores the position before the entry's",
        _position_behind,
        ("kill one", "lagging follower"),
    ),
)

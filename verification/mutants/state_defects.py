"""Defects of applying entries to the state."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from metasrv.model.commands import Command, Reply
from metasrv.model.entries import RegularEntry
from metasrv.model.types import LogId, SeqV, WriteLimits
from metasrv.raft.core.log_time import LogTime
from metasrv.raft.expiry_ticks import ExpiryTicks
from metasrv.state import machine, write_limits
from metasrv.state.command_rules import apply_command
from metasrv.state.digest import Removed
from metasrv.state.effects import EntryEffects
from metasrv.state.instants import Instants
from metasrv.state.machine import StateMachine
from metasrv.state.store import Store
from metasrv.state.watch import WatchHub
from verification.mutants.patching import Mutant, Replacement
from verification.simulation.machine import Process
from verification.simulation.watched_machine import WatchedMachine


def _apply_raises() -> list[Replacement]:
    def unguarded(effects: EntryEffects, _position: int, command: Any) -> Any:
        return apply_command(effects, command)

    return [(machine, "apply_guarded", unguarded)]


def _local_now_ms(state: StateMachine) -> int | None:
    """What the wall clock of the node says whose state this is."""
    process = state.watcher if isinstance(state, WatchedMachine) else None
    return process.machine.world.clock.wall_ms() if isinstance(process, Process) else None


def _time_is_local() -> list[Replacement]:
    real = StateMachine._apply_commands

    def apply(self: StateMachine, log_id: LogId, entry: RegularEntry, refused: dict[int, str]) -> tuple[Reply, ...]:
        now_ms = _local_now_ms(self)
        return real(self, log_id, entry if now_ms is None else entry._replace(time_ms=now_ms), refused)

    return [(StateMachine, "_apply_commands", apply)]


def _sweep_by_local_clock() -> list[Replacement]:
    """The local clock decides only what has expired; the log's time is stored."""
    real_sweep, real_apply = EntryEffects.sweep, StateMachine._apply_commands
    now: list[int | None] = [None]

    def apply(self: StateMachine, log_id: LogId, entry: RegularEntry, refused: dict[int, str]) -> tuple[Reply, ...]:
        now[0] = _local_now_ms(self)
        return real_apply(self, log_id, entry, refused)

    def sweep(self: EntryEffects) -> None:
        log_time_ms = self.time_ms
        self.time_ms = now[0] or log_time_ms
        real_sweep(self)
        self.time_ms = log_time_ms

    return [(StateMachine, "_apply_commands", apply), (EntryEffects, "sweep", sweep)]


def _time_stands_still() -> list[Replacement]:
    """The larger one of the last time and the wall clock, as it was before R10."""

    def now_ms(self: LogTime) -> int:
        self._base_ms = max(self._base_ms, self._clock.wall_ms())
        return self._base_ms

    return [(LogTime, "now_ms", now_ms)]


def _reads_by_local_clock() -> list[Replacement]:
    real = StateMachine.get

    def get(self: StateMachine, key: str, now_ms: int) -> SeqV | None:
        return real(self, key, _local_now_ms(self) or now_ms)

    return [(StateMachine, "get", get)]


def _no_ticks() -> list[Replacement]:
    return [(ExpiryTicks, "consider", lambda _self: None)]


def _watch_event_lost() -> list[Replacement]:
    real = WatchHub.publish

    def publish(self: WatchHub, changes: Iterable[Any]) -> None:
        real(self, list(changes)[:-1])

    return [(WatchHub, "publish", publish)]


def _reads_of_many_instants() -> list[Replacement]:
    def read(self: Instants, index: int, key: str, now_ms: int) -> SeqV | None:
        del index
        return self._read_present(key, now_ms)

    return [(Instants, "read", read)]


def _one_node_stores_another_value() -> list[Replacement]:
    """The reply says the right one, and the records in memory have it; only the file of one node differs."""
    real_put, real_apply = Store.put, StateMachine._apply_commands
    node_id = [0]

    def apply(self: StateMachine, log_id: LogId, entry: RegularEntry, refused: dict[int, str]) -> tuple[Reply, ...]:
        process = self.watcher if isinstance(self, WatchedMachine) else None
        node_id[0] = process.machine.node_id if isinstance(process, Process) else 0
        return real_apply(self, log_id, entry, refused)

    def put(self: Store, key: str, record: SeqV, replaced: SeqV | None) -> int:
        stored = record._replace(data=record.data + b"?") if node_id[0] == 2 and record.seq % 5 == 0 else record
        return real_put(self, key, stored, replaced)

    return [(StateMachine, "_apply_commands", apply), (Store, "put", put)]


def _digest_forgets_what_was_swept() -> list[Replacement]:
    real = Store.delete_expired

    def delete_expired(self: Store, time_ms: int) -> Removed:
        return real(self, time_ms)._replace(digest=0)

    return [(Store, "delete_expired", delete_expired)]


def _read_only_is_not_checked() -> list[Replacement]:
    def never(_limits: WriteLimits, _command: Command) -> None:
        return None

    return [(write_limits, "refusal_while_read_only", never)]


def _quota_is_not_checked() -> list[Replacement]:
    return [(write_limits, "_growth_bound", lambda _command: -(2**60))]


def _one_node_takes_writes() -> list[Replacement]:
    """Node 2 forgets that the cluster is read-only; every other node refuses."""
    real_refusal, real_apply = write_limits.refusal_while_read_only, StateMachine._apply_commands
    node_id = [0]

    def apply(self: StateMachine, log_id: LogId, entry: RegularEntry, refused: dict[int, str]) -> tuple[Reply, ...]:
        process = self.watcher if isinstance(self, WatchedMachine) else None
        node_id[0] = process.machine.node_id if isinstance(process, Process) else 0
        return real_apply(self, log_id, entry, refused)

    def refusal(limits: WriteLimits, command: Command) -> str | None:
        return None if node_id[0] == 2 else real_refusal(limits, command)

    return [(StateMachine, "_apply_commands", apply), (write_limits, "refusal_while_read_only", refusal)]


STATE_MUTANTS = (
    Mutant(
        "read-only not checked in apply",
        "a write that is in the log takes effect although the cluster is read-only",
        _read_only_is_not_checked,
        favours=("read-only",),
    ),
    Mutant(
        "one node takes writes",
        "a single node applies writes while the cluster is read-only",
        _one_node_takes_writes,
        favours=("read-only",),
    ),
    Mutant(
        "quota not checked in apply",
        "a write that lets the data grow past the quota takes effect",
        _quota_is_not_checked,
        favours=("quota",),
    ),
    Mutant(
        "one node stores another value",
        "a node stores a value that the entry does not have, and answers with the right one",
        _one_node_stores_another_value,
    ),
    Mutant(
        "digest forgets what was swept",
        "records that expire stay in the digest of the state",
        _digest_forgets_what_was_swept,
    ),
    Mutant("apply raises", "a command that cannot be applied raises in apply (D7)", _apply_raises),
    Mutant("time of the local clock", "entries take effect at the node's own time", _time_is_local),
    Mutant("expiry by the local clock", "the node's own clock decides what has expired", _sweep_by_local_clock),
    Mutant(
        "time stands still",
        "log time waits for a wall clock that is behind it (R10)",
        _time_stands_still,
        favours=("clock jump",),
    ),
    Mutant(
        "reads by the local clock",
        "a read hides what has expired by the clock of the node that answers (R11)",
        _reads_by_local_clock,
        favours=("clock jump",),
    ),
    Mutant("no ticks", "an expiry waits for the next write of somebody (R11)", _no_ticks),
    Mutant("watch event lost", "the last change of an entry is not told to watchers", _watch_event_lost),
    Mutant("reads of many instants", "KvGetMany reads each key as it is when it is asked for", _reads_of_many_instants),
)

"""A replicated store as a user of plain pysyncobj would write it.

The journal file and the dump are on, as its documentation advises for data that must survive. Elections, journal, dump
and acknowledgements are pysyncobj's own. Only the network and the clock are simulated, and dumps are written at once
instead of by a fork.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pysyncobj import SyncObj, SyncObjConf, replicated
from pysyncobj import syncobj as engine_module
from pysyncobj.config import FAIL_REASON
from pysyncobj.transport import Transport

from metasrv.model import commands as c
from metasrv.model.codec import decode_command
from metasrv.model.types import SeqV
from metasrv.raft.core.translation import engine_node

TICK_SECONDS = 0.05
"""The documented default of autoTickPeriod."""
_CLOCK_STEP_SECONDS = 0.001
"""Time that each look at the clock takes; without it, loops bounded by time would never end in virtual time."""

REFUSED = (FAIL_REASON.QUEUE_FULL, FAIL_REASON.MISSING_LEADER, FAIL_REASON.REQUEST_DENIED)
"""Reasons that mean certainly not executed; any other one except for success leaves the outcome open."""
SUCCESS = FAIL_REASON.SUCCESS


@dataclass(frozen=True, slots=True)
class StockSettings:
    """The settings of pysyncobj that the comparison changes; the others keep their defaults."""

    use_batch: bool
    """appendEntriesUseBatch: True by default; False is what its documentation advises for low latency."""
    heartbeat_seconds: float
    timeout_min_seconds: float
    timeout_max_seconds: float
    entries_before_dump: int


class StockStore(SyncObj):  # type: ignore[misc]  # pysyncobj is untyped
    """Registers, counters and tags. What is set after `super().__init__` is the replicated state."""

    def __init__(
        self, node_id: int, others: list[int], directory: str, settings: StockSettings, transport: Transport
    ) -> None:
        configuration = SyncObjConf(
            autoTick=False,
            journalFile=os.path.join(directory, "journal"),
            fullDumpFile=os.path.join(directory, "dump"),
            useFork=False,
            appendEntriesUseBatch=settings.use_batch,
            appendEntriesPeriod=settings.heartbeat_seconds,
            raftMinTimeout=settings.timeout_min_seconds,
            raftMaxTimeout=settings.timeout_max_seconds,
            logCompactionMinEntries=settings.entries_before_dump,
            commandsWaitLeader=False,
        )
        with _nothing_to_poll():
            super().__init__(
                engine_node(node_id),
                [engine_node(i) for i in others],
                configuration,
                nodeClass=engine_node,
                transport=transport,
            )
        self.records: dict[str, bytes] = {}
        self.counts: dict[str, int] = {}
        """How often each tag was written."""

    @replicated  # type: ignore[untyped-decorator]
    def execute(self, encoded: bytes) -> c.Reply:
        """One command, as an application would replicate it: it never raises."""
        command = decode_command(encoded)
        if isinstance(command, c.Upsert):
            self.records[command.key] = b"1"
            return c.TransactionReply(True, (), "")
        if not isinstance(command, c.Transaction):
            return c.ErrorReply("it cannot be applied")
        success = all(self._holds(condition) for condition in command.conditions)
        operations = command.if_then if success else command.else_then
        return c.TransactionReply(success, tuple(r for o in operations for r in self._run(o)), "")

    def _holds(self, condition: c.Condition) -> bool:
        present = self.records.get(condition.key)
        return present is None if condition.target == c.Target.SEQ else present == condition.operand

    def _run(self, operation: c.TransactionOperation) -> list[c.OperationResponse]:
        if isinstance(operation, c.FetchIncrease):
            before = int(self.records.get(operation.key, b"0"))
            self.records[operation.key] = str(before + operation.delta).encode()
            return [c.FetchIncreaseResponse(operation.key, 0, before, 0, before + operation.delta)]
        if isinstance(operation, c.Put) and operation.key.startswith("log/"):
            self.counts[operation.key] = self.counts.get(operation.key, 0) + 1
        elif isinstance(operation, c.Put) and operation.ttl_ms is None:
            self.records[operation.key] = operation.value
        return []

    # ------------------------------------------------------------------ for the simulator

    def get(self, key: str, _now_ms: int) -> SeqV | None:
        value = self.records.get(key)
        return None if value is None else SeqV(1, value)

    def close_files(self) -> None:
        self._SyncObj__raftLog._destroy()

    def dump_now(self) -> None:
        self.forceLogCompaction()

    def leads(self) -> bool:
        return bool(self._isLeader())

    def believed_leader(self) -> int | None:
        node = self._getLeader()
        return None if node is None else int(node.id)


class _NoPoller:
    def poll(self, timeout: float) -> None: ...

    def subscribe(self, *_arguments: object) -> None: ...


class _NoPipe:
    def notify(self) -> None: ...


@contextmanager
def _nothing_to_poll() -> Iterator[None]:
    """No descriptors: the simulator calls when something arrives."""
    saved = engine_module.createPoller, engine_module.PipeNotifier
    engine_module.createPoller = lambda _kind: _NoPoller()
    engine_module.PipeNotifier = lambda _poller: _NoPipe()
    try:
        yield
    finally:
        engine_module.createPoller, engine_module.PipeNotifier = saved


class SteppingClock:
    """The simulated clock as pysyncobj reads it: a little later at each look, until the next event."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._last = 0.0
        self._looks = 0

    def __call__(self) -> float:
        now = self._monotonic()
        self._looks = self._looks + 1 if now == self._last else 0
        self._last = now
        return now + self._looks * _CLOCK_STEP_SECONDS

    @contextmanager
    def installed(self) -> Iterator[None]:
        saved: Any = engine_module.monotonicTime
        engine_module.monotonicTime = self
        try:
            yield
        finally:
            engine_module.monotonicTime = saved

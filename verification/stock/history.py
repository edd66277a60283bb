"""One history of a plain pysyncobj cluster: the same seed, load and faults as metasrv's, and what its clients lost.

Membership is fixed. Faults that have no counterpart in pysyncobj (joins and leaves, syncs that are slow or fail, hostile
bytes) are left out of the plan; snapshots and transfers are made with its own calls.
"""

from __future__ import annotations

import asyncio
import gc
import random
from dataclasses import dataclass, field, replace
from typing import Any

from metasrv.model.errors import NotDoneError, UnknownOutcomeError
from metasrv.raft.core.translation import engine_node
from metasrv.testing.linearizability import SearchTooLongError, check
from metasrv.testing.models import CounterModel, RegisterModel
from verification.simulation.clients import Clients
from verification.simulation.cluster import SimulatedCluster, opened
from verification.simulation.history import CHECK_STEPS_MAX, HEAL_SECONDS_MAX
from verification.simulation.nemesis import Inflict, Nemesis
from verification.simulation.network_faults import NETWORK_FAULTS
from verification.simulation.plan import Plan
from verification.simulation.process_faults import PROCESS_FAULTS
from verification.stock.engine import SteppingClock, StockSettings
from verification.stock.machine import StockMachine, StockProcess

_FORM_SECONDS_MAX = 60.0
_WARM_UP_WRITES = 12
"""Writes before the history begins, so that there is something to dump."""


class StockCluster(SimulatedCluster):
    """The simulated world with other machines in it."""

    def add_stock(self, node_id: int, size: int, settings: StockSettings) -> StockMachine:
        machine = StockMachine(self, node_id, size, settings)
        self.machines[node_id] = machine  # type: ignore[assignment]
        return machine

    def stock(self) -> list[StockMachine]:
        machines: dict[int, Any] = dict(self.machines)
        return [machines[node_id] for node_id in sorted(machines)]

    def living(self) -> list[StockProcess]:
        return [m.process for m in self.stock() if m.process is not None]

    def leader(self) -> Any:
        leading = [p for p in self.living() if p.engine.leads()]
        return max(leading, key=lambda p: int(p.engine.raftCurrentTerm), default=None)

    def voters(self) -> list[int]:
        return sorted(self.machines)


class StockClients(Clients):
    """Clients whose reads go to the node that the asked node takes for the leader."""

    async def read(self, client: int, node_id: int, key: str) -> str | None:
        return await super().read(client, self._leader_of(node_id), key)

    async def read_counter(self, client: int, node_id: int, key: str) -> int:
        return await super().read_counter(client, self._leader_of(node_id), key)

    def _leader_of(self, node_id: int) -> int:
        process: Any = self._cluster.machines[node_id].process
        return node_id if process is None else process.engine.believed_leader() or node_id


async def _dumps(nemesis: Nemesis, source: random.Random) -> None:
    for _ in range(source.randint(3, 15)):
        process: Any = nemesis.any(source).process
        if process is not None:
            process.loop.call_soon(process.engine.dump_now)
        await asyncio.sleep(0.1 * source.random())


async def _lagging(nemesis: Nemesis, source: random.Random) -> None:
    machine = nemesis.follower(source)
    network = nemesis.cluster.network
    others = [i for i in nemesis.cluster.machines if i != machine.node_id]
    paths = [path for i in others for path in ((i, machine.node_id), (machine.node_id, i))]
    for path in paths:
        network.cut(*path)
    try:
        for _ in range(source.randint(2, 5)):
            await asyncio.sleep(0.3)
            process: Any = nemesis.leader(source).process
            if process is not None:
                process.loop.call_soon(process.engine.dump_now)
    finally:
        for path in paths:
            network.mend(*path)


async def _transfers(nemesis: Nemesis, source: random.Random) -> None:
    for _ in range(source.randint(2, 8)):
        process: Any = nemesis.leader(source).process
        target = source.choice([None, *(engine_node(i) for i in nemesis.cluster.machines)])
        if process is not None:
            process.loop.call_soon(process.engine.transferLeadership, target)
        await asyncio.sleep(0.3 * source.random())


STOCK_FAULTS: dict[str, Inflict] = {
    **{kind: inflict for kind, inflict in PROCESS_FAULTS.items() if kind != "hostile bytes"},
    **NETWORK_FAULTS,
    "snapshots in a loop": _dumps,
    "lagging follower": _lagging,
    "transfers in a loop": _transfers,
}


@dataclass(slots=True)
class StockOutcome:
    """What came of one history."""

    acknowledged: int = 0
    unknown: int = 0
    reads: int = 0
    lost: list[str] = field(default_factory=list)
    """Tags of acknowledged writes that are not in the healed cluster."""
    doubled: list[str] = field(default_factory=list)
    """Tags of writes that took effect more than once."""
    denied: list[str] = field(default_factory=list)
    """Tags of writes that were reported as not done, and are there."""
    not_linearizable: bool = False
    """Some read or answer contradicts the others, although no write was lost or doubled."""
    stuck: str = ""
    """Why the healed cluster makes no progress."""
    diverged: bool = False
    """Nodes that have applied the same entries hold different records."""
    refusals: int = 0
    """Nodes that could not be started on their own files any more."""
    trace: list[str] | None = None

    @property
    def wrong(self) -> bool:
        return bool(self.lost or self.doubled or self.denied or self.not_linearizable or self.stuck or self.diverged)


def run_stock_history(plan: Plan, *, use_batch: bool, keep_trace: bool = False) -> StockOutcome:
    """Run it; the same plan gives the same outcome, in any process."""
    plan = replace(plan, faults=tuple(fault for fault in plan.faults if fault.kind in STOCK_FAULTS))
    gc.disable()
    try:
        with opened(f"{plan.seed}", plan.tuning, keep_trace=keep_trace, make=StockCluster) as cluster:
            assert isinstance(cluster, StockCluster)
            with SteppingClock(cluster.clock.monotonic).installed():
                return _StockHistory(plan, cluster, use_batch).run()
    finally:
        gc.enable()


class _StockHistory:
    def __init__(self, plan: Plan, cluster: StockCluster, use_batch: bool) -> None:
        tuning = plan.tuning
        self._plan = plan
        self._cluster = cluster
        self._settings = StockSettings(
            use_batch,
            tuning.heartbeat_ms / 2000,
            tuning.election_timeout_min_ms / 1000,
            tuning.election_timeout_max_ms / 1000,
            tuning.snapshot_logs_since_last,
        )
        self._clients = StockClients(cluster, str(plan.seed), plan.clients, plan.operations, plan.pause_seconds)
        self._nemesis = Nemesis(cluster, str(plan.seed), STOCK_FAULTS)
        self._outcome = StockOutcome()

    def run(self) -> StockOutcome:
        cluster, outcome, told = self._cluster, self._outcome, self._clients.told
        for node_id in range(1, self._plan.size + 1):
            cluster.add_stock(node_id, self._plan.size, self._settings).start()
        try:
            cluster.run(self._live(), self._plan.seconds + HEAL_SECONDS_MAX + _FORM_SECONDS_MAX + 60.0)
        except TimeoutError:
            outcome.stuck = "the history did not come to an end"
        outcome.acknowledged, outcome.unknown, outcome.reads = len(told.done), len(told.perhaps), told.reads
        outcome.refusals = sum(machine.refusals > 0 for machine in cluster.stock())
        outcome.trace = cluster.trace.lines
        if not outcome.stuck:
            self._judge()
        return outcome

    async def _live(self) -> None:
        cluster = self._cluster
        await cluster.until(lambda: all(process.joined for process in cluster.living()))
        for number in range(_WARM_UP_WRITES):
            await self._until_written(1 + number % self._plan.size)
        for process in cluster.living():
            process.at_start = process.disk.image()
        load = asyncio.create_task(self._clients.run())
        await self._nemesis.run(list(self._plan.faults), self._plan.seconds)
        self._clients.stop()
        await self._nemesis.heal()
        await load
        deadline = cluster.scheduler.now + HEAL_SECONDS_MAX
        problem = await self._problem()
        while problem and cluster.scheduler.now < deadline:
            await asyncio.sleep(0.1)
            problem = await self._problem()
        self._outcome.stuck = problem
        if not problem:
            await self._read_everything()

    async def _until_written(self, node_id: int) -> None:
        while True:
            try:
                await self._clients.mark(node_id)
            except (NotDoneError, UnknownOutcomeError):
                await asyncio.sleep(0.05)
            else:
                return

    async def _problem(self) -> str:
        """Why not every node takes writes and has applied what the leader has; empty when all do."""
        for machine in self._cluster.stock():
            try:
                await self._clients.mark(machine.node_id)
            except (NotDoneError, UnknownOutcomeError) as error:
                return f"no write through node {machine.node_id}: {error}"
        leader = self._cluster.leader()
        if leader is None:
            return "nobody leads"
        applied = leader.engine.raftLastApplied
        await asyncio.sleep(0.3)
        behind = [p.machine.node_id for p in self._cluster.living() if p.engine.raftLastApplied < applied]
        return f"nodes {behind} have not applied {applied}" if behind else ""

    async def _read_everything(self) -> None:
        for kind, key in self._clients.keys_used():
            for node_id in sorted(self._cluster.machines):
                try:
                    if kind == "register":
                        await self._clients.read(1000 + node_id, node_id, key)
                    else:
                        await self._clients.read_counter(1000 + node_id, node_id, key)
                except (NotDoneError, UnknownOutcomeError):
                    continue  # the leader changed meanwhile; the writes are checked anyway

    # ------------------------------------------------------------------ the verdict

    def _judge(self) -> None:
        outcome, told, living = self._outcome, self._clients.told, self._cluster.living()
        leader = self._cluster.leader()
        if leader is None:
            outcome.stuck = "nobody leads"
            return
        counts = leader.engine.counts
        outcome.lost = sorted(tag for tag in told.done if counts.get(tag, 0) == 0)
        outcome.doubled = sorted(tag for tag, count in counts.items() if count > 1)
        outcome.denied = sorted(tag for tag in told.not_done if tag in counts)
        states: dict[int, object] = {}
        for process in living:
            state = (process.engine.records, process.engine.counts)
            if states.setdefault(process.engine.raftLastApplied, state) != state:
                outcome.diverged = True
        if not outcome.lost and not outcome.doubled:
            outcome.not_linearizable = self._contradictory()

    def _contradictory(self) -> bool:
        for kind, model in (("register/", RegisterModel()), ("counter/", CounterModel())):
            operations = [o for o in self._clients.told.operations if o.key.startswith(kind)]
            try:
                if check(operations, model, steps_max=CHECK_STEPS_MAX):
                    return True
            except SearchTooLongError:
                continue  # a key that is not decided does not count against it
        return False

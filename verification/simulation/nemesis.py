"""Inflicts the faults of a plan on a simulated cluster, and heals it afterwards.

Each fault is a coroutine that does harm, waits and undoes it. Each has its own random source, so that leaving one out
does not change the others. Also acts as the cluster's operator: starts what stopped by itself, and replaces a node
whose files were refused by an empty one that joins.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from metasrv.model.errors import DataDamagedError, FatalError, IdentityError, RemovedError, StorageError
from verification.simulation.cluster import SimulatedCluster
from verification.simulation.machine import Machine, Process


@dataclass(frozen=True, slots=True)
class PlannedFault:
    """One fault of a plan."""

    number: int
    kind: str
    at_seconds: float

    def __str__(self) -> str:
        return f"{self.at_seconds:7.3f} s  {self.kind} (fault {self.number})"


Inflict = Callable[["Nemesis", random.Random], Awaitable[None]]


async def _no_clients(_node_id: int) -> None:
    """A nemesis without clients."""


async def _nothing_to_check(_process: Process) -> None:
    """A nemesis without checks."""


REBUILD_VOTERS_MIN = 3
"""With fewer voters the others are no majority without the node that is rebuilt."""
_RUNBOOK_SECONDS = 0.6
"""How long the operator needs for a look at the cluster; longer than a comparison takes to come round."""


class Nemesis:
    """What a fault may use: the cluster, choices of machines, extra clients, and rules about lost disks."""

    def __init__(self, cluster: SimulatedCluster, seed: str, kinds: dict[str, Inflict]) -> None:
        self.cluster = cluster
        self.inflicted: Counter[str] = Counter()
        self.lost: set[int] = set()
        """Nodes whose disk is gone and that have not yet been admitted again: never two at a time."""
        self.changing_members = False
        """A membership change is under way; nothing is wiped meanwhile."""
        self.probe: Callable[[int, int], None] = lambda _reads, _writes: None
        """Have clients read through one node and write through another, now."""
        self.under_way: Counter[str] = Counter()
        """The faults that are being inflicted now, by kind."""
        self.write: Callable[[int], None] = lambda _node_id: None
        """Have a client write through a node, now."""
        self.mark: Callable[[int], Awaitable[None]] = _no_clients
        """Write through a node, and wait for the answer."""
        self.check_refuses: Callable[[Process], Awaitable[None]] = _nothing_to_check
        """Ask a node that says that its copy of the state is damaged."""
        self.asked: list[asyncio.Future[None]] = []
        """What operators asked for and is not to be cut off, so that it takes effect now or never."""
        self._rebuilding: list[asyncio.Task[None]] = []
        self._seed = seed
        self._kinds = kinds
        self._tasks: list[asyncio.Task[None]] = []
        self._healing = False

    # ------------------------------------------------------------------ faults

    async def run(self, faults: list[PlannedFault], seconds: float) -> None:
        """Inflict all faults at their times; return after `seconds`."""
        for machine in self.cluster.machines.values():
            self.look_after(machine)
        self._tasks = [asyncio.create_task(self._inflict(fault)) for fault in faults]
        await asyncio.sleep(seconds)

    async def _inflict(self, fault: PlannedFault) -> None:
        await asyncio.sleep(fault.at_seconds)
        self.inflicted[fault.kind] += 1
        self.cluster.note(f"fault {fault.number}: {fault.kind}")
        source = random.Random(f"{self._seed}/fault {fault.number}")
        self.under_way[fault.kind] += 1
        try:
            await self._kinds[fault.kind](self, source)
        finally:
            self.under_way[fault.kind] -= 1

    async def heal(self) -> None:
        """End every fault and start every machine that should run."""
        self._healing = True
        for task in self._tasks:
            task.cancel()
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                self.cluster.witness.violation(f"a fault failed: {type(result).__name__}: {result}")
        self.cluster.note("heal")
        self.cluster.network.mend_all()
        for machine in self.cluster.machines.values():
            self.mend(machine)

    def mend(self, machine: Machine) -> None:
        """Make the machine's disk good again, and have its process run."""
        faults = machine.faults
        faults.slow_until = 0.0
        faults.errors.clear()
        faults.stalls.clear()
        faults.state_full = 0
        if machine.process is not None:
            machine.process.loop.steps_left = None
            machine.process.loop.resume()
            if self._misled(machine):  # the operator corrects its `join`
                machine.kill()
                machine.start()
        elif not machine.removed:
            machine.start()

    def _misled(self, machine: Machine) -> bool:
        """Whether a node waits that was told nothing of the others, or is empty and was told what is out of date."""
        process = machine.process
        if process is None or process.joined:
            return False
        replica = process.consensus.replica
        if replica.engine.membership().voters:
            return not replica.resources.settings.hints
        return not {self.cluster.endpoint(i) for i in machine.joins}.intersection(machine.addresses)

    # ------------------------------------------------------------------ the operator

    def look_after(self, machine: Machine) -> None:
        """Start the machine again whenever its process ends by itself."""
        machine.on_exit = lambda error: self._ended(machine, error)
        machine.on_damage = self._damage_found

    def _damage_found(self, process: Process) -> None:
        self.cluster.loop.call_later(_RUNBOOK_SECONDS, self._begin_rebuild, process)

    def _begin_rebuild(self, process: Process) -> None:
        self._rebuilding = [task for task in self._rebuilding if not task.done()]
        self._rebuilding.append(asyncio.create_task(self._rebuild(process)))

    async def _rebuild(self, process: Process) -> None:
        """As the runbook says: replace what the node has, once the others can spare it."""
        machine = process.machine
        await self.check_refuses(process)
        others = [other for other in self.all() if other is not machine]
        while machine.process is process and process.proving.findings.damage and not machine.removed:
            voters = self.cluster.voters()
            changing = self.changing_members and not self._healing  # a change that the healing cut short stays marked
            spared = not self.lost and not changing and not any(other.damaged for other in others)
            if spared and len(voters) >= REBUILD_VOTERS_MIN and self.cluster.leader() is not None:
                self.cluster.note(f"node {machine.node_id} is rebuilt")
                self.cluster.witness.count("rebuilds")
                self.wipe(machine)
                machine.start()
                return
            await asyncio.sleep(_RUNBOOK_SECONDS)

    def _ended(self, machine: Machine, error: FatalError | None) -> None:
        useless = machine.damaged and isinstance(error, DataDamagedError | IdentityError | StorageError)
        if (useless or isinstance(error, RemovedError)) and not machine.removed:
            self._replace(machine)
        if not machine.removed:
            self.cluster.loop.call_later(0.05 + self.cluster.source.random() * 0.3, self._restart, machine)

    def _restart(self, machine: Machine) -> None:
        if not machine.removed:
            machine.start()

    def _replace(self, machine: Machine) -> None:
        """Give the machine an empty disk, with which it joins as a new member: its files are useless."""
        self.cluster.note(f"node {machine.node_id} gets an empty disk")
        machine.empty()
        self.watch_for(machine)

    def watch_for(self, machine: Machine) -> None:
        """Count the node's disk as lost until the node serves again as a member."""
        self.lost.add(machine.node_id)
        self.cluster.loop.call_later(0.05, self._look_for_member, machine)

    def _look_for_member(self, machine: Machine) -> None:
        if machine.process is not None and machine.process.joined:
            self.lost.discard(machine.node_id)
        else:
            self.cluster.loop.call_later(0.05, self._look_for_member, machine)

    def may_lose_disk(self) -> bool:
        """Whether the files of one node may be destroyed without losing what was acknowledged.

        Damaged files may prove useless at any later time, even when the node has started on them.
        """
        if any(machine.damaged for machine in self.cluster.machines.values()):
            return False
        return not self.lost and not self.changing_members and len(self.cluster.voters()) >= 3

    def may_miss_one(self) -> bool:
        """Whether the cluster without one member still has a majority when all damaged files prove useless."""
        rest = len(self.cluster.voters()) - 1
        damaged = sum(machine.damaged for machine in self.cluster.machines.values())
        return not damaged or rest - damaged > rest // 2

    def wipe(self, machine: Machine) -> None:
        """Kill the node and replace its disk by an empty one."""
        machine.kill()
        self._replace(machine)

    # ------------------------------------------------------------------ choosing

    def any(self, source: random.Random) -> Machine:
        machines = self.cluster.machines
        return machines[source.choice(sorted(machines))]

    def leader(self, source: random.Random) -> Machine:
        """The leader's machine, or any when nobody leads."""
        process = self.cluster.leader()
        return self.any(source) if process is None else process.machine

    def follower(self, source: random.Random) -> Machine:
        leader = self.leader(source)
        others = [i for i in sorted(self.cluster.machines) if i != leader.node_id]
        return self.cluster.machines[source.choice(others)]

    def some(self, source: random.Random, count: int) -> list[Machine]:
        chosen = source.sample(sorted(self.cluster.machines), count)
        return [self.cluster.machines[node_id] for node_id in chosen]

    def minority(self, source: random.Random) -> list[Machine]:
        return self.some(source, max(1, (len(self.cluster.machines) - 1) // 2))

    def majority(self, source: random.Random) -> list[Machine]:
        return self.some(source, len(self.cluster.machines) // 2 + 1)

    def all(self) -> list[Machine]:
        return [machine for _, machine in sorted(self.cluster.machines.items())]

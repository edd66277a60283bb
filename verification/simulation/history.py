"""One history from its plan to its verdict: load and faults, healing, progress, and what its clients were told."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from dataclasses import dataclass, field
from itertools import cycle

from metasrv.model.errors import NotDoneError, UnknownOutcomeError
from metasrv.testing.linearizability import SearchTooLongError, check
from metasrv.testing.models import CounterModel, RegisterModel
from verification.simulation.clients import Clients, Told
from verification.simulation.clock_checks import check_clock_hand_over
from verification.simulation.cluster import START_SECONDS, SimulatedCluster, opened
from verification.simulation.copy_checks import (
    check_another_value,
    check_found,
    check_good_copies,
    check_refuses,
)
from verification.simulation.expiry_checks import check_expiry
from verification.simulation.formation import form, formed_images
from verification.simulation.limit_faults import take_off
from verification.simulation.machine import Process
from verification.simulation.nemesis import REBUILD_VOTERS_MIN, Nemesis
from verification.simulation.plan import FAULTS, Plan
from verification.simulation.watching import END_KEY, FIRST_KEY, Watching
from verification.simulation.world import STATE_LOG_SIZE_BYTES_MAX

HEAL_SECONDS_MAX = 30.0
"""Simulated time after the last fault within which every member must serve again."""
CHECK_STEPS_MAX = 500_000
_SPREAD_SECONDS_MAX = 0.1
"""Time for followers to hear of the last commit."""
SETTLE_SECONDS_MAX = 3.0
"""Time within which every node has answered once no requests come: the longest timeout, and a pause."""
_LOOK_SECONDS = 0.01


@dataclass(slots=True)
class Outcome:
    """What came of a history."""

    plan: Plan
    violations: list[str]
    digest: str
    seconds: float
    """Simulated."""
    events: int
    messages: int
    done: int
    perhaps: int
    not_done: int
    reads: int
    undecided: int
    """Keys whose check took too many steps and was given up."""
    faults: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    """Other events, by name."""
    trace: list[str] | None = None


def run_history(plan: Plan, *, keep_trace: bool = False) -> Outcome:
    """Run it; the same plan gives the same outcome, in any process."""
    images = () if plan.forms else formed_images(plan.size)
    gc.disable()
    try:
        with opened(str(plan.seed), plan.tuning, plan.wire, keep_trace=keep_trace) as cluster:
            return _History(plan, cluster).run(images)
    finally:
        gc.enable()


class _History:
    def __init__(self, plan: Plan, cluster: SimulatedCluster) -> None:
        self._plan = plan
        self._cluster = cluster
        self._clients = Clients(cluster, str(plan.seed), plan.clients, plan.operations, plan.pause_seconds)
        self._nemesis = Nemesis(cluster, str(plan.seed), FAULTS)
        self._nemesis.probe = self._clients.probe
        self._nemesis.write = self._clients.write
        self._nemesis.mark = self._clients.mark
        self._nemesis.check_refuses = lambda process: check_refuses(cluster, process)
        self._watching: dict[Process, Watching] = {}
        self._undecided = 0

    def run(self, images: tuple[dict[str, bytes], ...]) -> Outcome:
        plan, cluster = self._plan, self._cluster
        cluster.on_start = self._watch
        for number, image in enumerate(images, start=1):
            cluster.add_machine(number, image)
        for machine in cluster.machines.values():
            machine.joins = tuple(i for i in cluster.machines if i != machine.node_id)
            machine.bootstrap = machine.node_id == 1  # it keeps its configuration when it loses its disk
            machine.start()
        limit = plan.seconds + HEAL_SECONDS_MAX + 60.0
        try:
            cluster.run(self._live(), limit)
        except TimeoutError:
            cluster.witness.violation("the history did not come to an end")
        violations = cluster.witness.violations
        if not violations:
            self._judge(self._clients.told)
        cluster.note(f"end: {len(violations)} violations")
        told = self._clients.told
        return Outcome(
            plan,
            list(violations),
            cluster.trace.digest(),
            cluster.scheduler.now - START_SECONDS,
            cluster.scheduler.events,
            cluster.network.messages,
            len(told.done),
            len(told.perhaps),
            len(told.not_done),
            told.reads,
            self._undecided,
            self._nemesis.inflicted,
            cluster.invariants.counts + cluster.network.counts,
            cluster.trace.lines,
        )

    # ------------------------------------------------------------------ the course of it

    async def _live(self) -> None:
        plan, cluster = self._plan, self._cluster
        if plan.forms:
            await form(cluster, plan.size)
        load = asyncio.create_task(self._clients.run())
        await self._nemesis.run(list(plan.faults), plan.seconds)
        self._clients.stop()
        await self._nemesis.heal()
        await asyncio.gather(*self._nemesis.asked, return_exceptions=True)
        await load
        healed_at = cluster.scheduler.now
        await check_found(cluster)
        if cluster.witness.violations:
            return
        problem = await self._until_well(cluster.scheduler.now + HEAL_SECONDS_MAX)
        if problem:
            cluster.witness.violation(f"no progress {HEAL_SECONDS_MAX:.0f} s after the last fault: {problem}")
            return
        cluster.note(f"well after {cluster.scheduler.now - healed_at:.3f} s")
        await self._read_everything()

    async def _until_well(self, deadline: float) -> str:
        """Wait until every member serves and holds the same; at the deadline, what is still wrong."""
        while True:
            problem = await self._problem()
            if not problem or self._cluster.witness.violations:
                return ""
            if self._cluster.scheduler.now > deadline:
                return problem
            await asyncio.sleep(0.05)

    async def _problem(self) -> str:
        cluster = self._cluster
        leader = cluster.leader()
        if leader is None:
            return "nobody leads"
        if self._nemesis.lost:
            return f"nodes {sorted(self._nemesis.lost)} have not been admitted again"
        membership = leader.data.machine.membership
        members = sorted({*membership.voters, *membership.learners})
        for node_id in members:
            if not cluster.machines[node_id].serves:
                return f"member {node_id} does not serve"
        if problem := await take_off(cluster, leader):
            return problem
        for node_id in filter(self._answers, members):
            try:
                await self._clients.mark(node_id)
            except (NotDoneError, UnknownOutcomeError) as error:
                return f"no write through node {node_id}: {error}"
        applied, deadline = leader.data.machine.last_applied, cluster.scheduler.now + _SPREAD_SECONDS_MAX
        while behind := [node_id for node_id in members if not self._has_applied(node_id, applied.index)]:
            if cluster.scheduler.now > deadline:
                return f"node {behind[0]} has not applied {applied}"
            await asyncio.sleep(_LOOK_SECONDS)
        return ""

    def _answers(self, node_id: int) -> bool:
        """False for a damaged copy that the operator cannot replace, because a cluster of two has no other majority."""
        process = self._cluster.machines[node_id].process
        damaged = process is not None and bool(process.proving.findings.damage)
        return not (damaged and len(self._cluster.voters()) < REBUILD_VOTERS_MIN)

    def _has_applied(self, node_id: int, index: int) -> bool:
        process = self._cluster.machines[node_id].process
        return process is not None and process.data.machine.last_applied.index >= index

    async def _read_everything(self) -> None:
        """Read every key, through one member after the other; the reads are part of the history that is checked."""
        cluster = self._cluster
        members = [node_id for node_id in self._voters() if self._answers(node_id)]
        for (kind, key), node_id in zip(self._clients.keys_used(), cycle(members), strict=False):
            try:
                if kind == "register":
                    await self._clients.read(1000 + node_id, node_id, key)
                else:
                    await self._clients.read_counter(1000 + node_id, node_id, key)
            except (NotDoneError, UnknownOutcomeError) as error:
                if self._was_removed(node_id):
                    continue  # a fault asked for its removal, which took effect only now
                cluster.witness.violation(f"a healed cluster does not answer through node {node_id}: {error}")
                return
        await asyncio.sleep(_LOOK_SECONDS)  # watchers are told in the next turn of their loop
        self._compare_nodes([node_id for node_id in members if not self._was_removed(node_id)])
        await check_expiry(cluster, [node_id for node_id in self._voters() if not self._was_removed(node_id)])
        await check_clock_hand_over(cluster, self._plan.seed, self._voters())
        await check_good_copies(cluster, self._voters())
        await check_another_value(cluster, self._plan.seed, self._voters())
        await self._until_settled()

    async def _until_settled(self) -> None:
        """Wait until no proposal is left (D15), logs can be purged, and the state is short on disk.

        Also until who is out says so, and the log has the address of every member.
        """
        cluster = self._cluster
        deadline = cluster.scheduler.now + SETTLE_SECONDS_MAX
        while True:
            replicas = {p.machine.node_id: p.consensus.replica for p in cluster.processes()}
            owing = {i: count for i, replica in replicas.items() if (count := replica.proposals.pending())}
            holding = {
                i: floor for i, replica in replicas.items() if (floor := replica.snapshots.purge_floor()) is not None
            }
            long = {
                i: log_bytes
                for i, replica in replicas.items()
                if (log_bytes := replica.machine.file_sizes().log_bytes) > STATE_LOG_SIZE_BYTES_MAX
            }
            unaware, astray = self._unaware(), self._astray()
            if not (owing or holding or long or unaware or astray):
                return
            if cluster.scheduler.now > deadline:
                if owing:
                    cluster.witness.violation(f"writes that nobody answered, by node: {owing}")
                if holding:
                    cluster.witness.violation(f"logs that cannot be purged behind an entry, by node: {holding}")
                if unaware:
                    cluster.witness.violation(f"nodes that were removed and do not say so: {unaware}")
                if astray:
                    cluster.witness.violation(f"members whose address is not the one in the log: {astray}")
                if long:
                    cluster.witness.violation(f"write-ahead logs of the state that stay long, by node: {long}")
                return
            await asyncio.sleep(_LOOK_SECONDS)

    def _unaware(self) -> list[int]:
        """Nodes that served and are no longer members, and do not say so."""
        leader = self._cluster.leader()
        if leader is None:
            return []
        membership = leader.data.machine.membership
        return [
            process.machine.node_id
            for process in self._cluster.processes()
            if process.joined
            and process.machine.node_id not in membership
            and process.data.directory.identity.removed is None
        ]

    def _astray(self) -> dict[int, str]:
        """Members that run where the leader's registry or membership does not have them."""
        cluster = self._cluster
        leader = cluster.leader()
        if leader is None:
            return {}
        state, astray = leader.data.machine, {}
        for node_id in (*state.membership.voters, *state.membership.learners):
            member, registered = state.membership.member(node_id), state.nodes.get(node_id)
            known = {None if it is None else it.endpoint for it in (member, registered)}
            if cluster.machines[node_id].serves and known != {cluster.endpoint(node_id)}:
                astray[node_id] = f"{sorted(map(str, known))} instead of {cluster.endpoint(node_id)}"
        return astray

    def _voters(self) -> list[int]:
        """The voters as the leader knows them now; empty without a leader."""
        leader = self._cluster.leader()
        return [] if leader is None else sorted(leader.data.machine.membership.voters)

    def _was_removed(self, node_id: int) -> bool:
        """Whether the leader no longer counts the node as a voter; False without a leader."""
        voters = self._voters()
        return bool(voters) and node_id not in voters

    def _compare_nodes(self, members: list[int]) -> None:
        """Check that all hold the same records at the same index, and that each watch stream has told them."""
        cluster = self._cluster
        dumps: dict[int, tuple[int, list[object]]] = {}
        for node_id in members:
            process = cluster.machines[node_id].process
            if process is None:
                continue
            state = process.data.machine
            records: list[object] = list(state.list_prefix("", None, 0))
            at = state.last_applied.index
            if dumps.setdefault(at, (node_id, records))[1] != records:
                cluster.witness.violation(f"nodes {dumps[at][0]} and {node_id} hold different records at index {at}")
            if not state.rows_fit():
                cluster.witness.violation(f"the rows of node {node_id} do not add up to its digest")
        self._compare_watchers(members)

    def _compare_watchers(self, members: list[int]) -> None:
        cluster = self._cluster
        for node_id in members:
            process = cluster.machines[node_id].process
            watching = None if process is None else self._watching.get(process)
            if process is None or watching is None or not watching.complete:
                continue
            state = process.data.machine
            stored = dict(state.list_range(FIRST_KEY, END_KEY, None, 1_000_000, 0))
            if watching.records != stored:
                cluster.witness.violation(f"the watch stream of node {node_id} did not tell what is stored")

    def _watch(self, process: Process) -> None:
        watching = self._watching[process] = Watching(process)
        process.loop.call_soon(lambda: process.loop.create_task(watching.run()))

    # ------------------------------------------------------------------ the verdict

    def _judge(self, told: Told) -> None:
        witness = self._cluster.witness
        executed = witness.executed
        for tag in sorted(told.done):
            if executed.get(tag, 0) != 1:
                witness.violation(f"acknowledged write {tag} took effect {executed.get(tag, 0)} times")
        for tag in sorted(told.not_done):
            if tag in executed:
                witness.violation(f"write {tag} was said not to be done, and took effect")
        for tag in sorted(told.perhaps):
            if executed.get(tag, 0) > 1:
                witness.violation(f"write {tag} took effect {executed[tag]} times")
        for kind, model in (("register/", RegisterModel()), ("counter/", CounterModel())):
            operations = [operation for operation in told.operations if operation.key.startswith(kind)]
            try:
                for violation in check(operations, model, steps_max=CHECK_STEPS_MAX):
                    witness.violation(str(violation))
            except SearchTooLongError:
                self._undecided += 1

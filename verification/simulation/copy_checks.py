"""What must come of a copy of the state that was harmed, and of one that was not.

A harmed copy is found within a minute, at the tenfold pace of simulated nodes; from then on its node refuses to read and
to write. Copies that are well raise no alarm (`proving.py` hears them all). At the end of each history every member looks
through its file and compares itself once more, and in some another value is applied by one node alone. Runs in the loop
of the world.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from metasrv.model import commands as c
from metasrv.model.errors import RequestError
from verification.simulation.cluster import SimulatedCluster
from verification.simulation.copy_faults import KEYS, apply_another_value, is_harmed, write_record
from verification.simulation.machine import Machine, Process

FOUND_SECONDS_MAX = 60.0 / 10
"""A minute at the pace of `world.PACE`."""
REBUILT_SECONDS_MAX = 15.0
DELETED = f"{KEYS}deleted"
SHARE = 0.06
"""Share of histories at whose end one node applies another value."""
_TIMEOUT_MS = 500
_APPLIED_SECONDS_MAX = 1.0
_LOOK_SECONDS = 0.05
_VOTERS_MIN = 3


async def check_found(cluster: SimulatedCluster) -> None:
    """Faults are over: every harm that is still there is found in time."""
    deadline = cluster.scheduler.now + FOUND_SECONDS_MAX
    while hidden := [machine.node_id for machine in cluster.machines.values() if _hidden(machine)]:
        if cluster.scheduler.now > deadline:
            cluster.witness.violation(f"the harmed copies of nodes {hidden} were not found in {FOUND_SECONDS_MAX:.0f} s")
            return
        await asyncio.sleep(_LOOK_SECONDS)


def _hidden(machine: Machine) -> bool:
    if machine.harm is None or machine.removed:
        return False
    process = machine.process
    return process is None or (is_harmed(process) and not process.proving.findings.damage)


async def check_refuses(cluster: SimulatedCluster, process: Process) -> None:
    """A node that knows its copy to be damaged answers nothing from it while another voter has a good one."""

    async def write(asked: Process) -> object:
        command = c.Upsert(f"{KEYS}refused", c.MatchSeq(c.MatchKind.ANY), c.Operation.UPDATE, b"1")
        return await asked.consensus.propose(command, _TIMEOUT_MS)

    async def read(asked: Process) -> object:
        await asked.consensus.read_barrier(_TIMEOUT_MS)
        return asked.state.get(KEYS, 0)

    calls: tuple[Callable[[Process], Awaitable[object]], ...] = (write, read)
    for call in calls:
        if not _knows_damage(cluster, process):
            return
        try:
            await cluster.ask(process.machine.node_id, call, _TIMEOUT_MS / 1000 + 0.5)
        except RequestError:
            continue
        if _knows_damage(cluster, process):
            name = process.machine.node_id
            cluster.witness.violation(f"node {name} answers a {call.__name__}, and knows that its copy is damaged")
    cluster.witness.count("damaged copies that refused")


def _knows_damage(cluster: SimulatedCluster, process: Process) -> bool:
    own_id = process.machine.node_id
    others = process.consensus.replica.engine.membership().voters.keys() - {own_id}
    good = bool(others) and not any(cluster.suspect(node_id) for node_id in others)
    return process.machine.process is process and good and bool(process.proving.findings.damage)


async def check_good_copies(cluster: SimulatedCluster, members: Sequence[int]) -> None:
    """A record is deleted; then every member looks through its file and compares itself with the others."""
    if not members or await write_record(cluster, members[0], DELETED) is None:
        return

    async def delete(process: Process) -> object:
        command = c.Upsert(DELETED, c.MatchSeq(c.MatchKind.ANY), c.Operation.DELETE, b"")
        return await process.consensus.propose(command, _TIMEOUT_MS)

    async def look(process: Process) -> None:
        await process.proving.proof.comparison.compare()
        await process.proving.proof.scrubber.look_through()

    await _ask_all(cluster, members[:1], delete)
    await _ask_all(cluster, members, look)


async def check_another_value(cluster: SimulatedCluster, seed: int, members: Sequence[int]) -> None:
    """One node alone applies another value: its own file looks good, and only the comparison can tell."""
    source = random.Random(f"{seed}/another value")
    wanted = source.random() < SHARE
    if not wanted or len(members) < _VOTERS_MIN or any(machine.damaged for machine in cluster.machines.values()):
        return
    machine = cluster.machines[source.choice(list(members))]
    key = f"{KEYS}another"
    process = await write_record(cluster, machine.node_id, key)
    if process is None or not await _have_record(cluster, key) or machine.process is not process:
        return  # whoever lacks entries may be sent a snapshot of the other value, and then two copies differ
    apply_another_value(process, key)
    await check_found(cluster)
    if cluster.witness.violations:
        return
    others = [node_id for node_id in members if node_id != machine.node_id]
    # The node's own operator takes it down soon; the others hear of it in their next comparison at the latest.
    for node_id in others:
        other = cluster.machines[node_id].process
        named = other is not None and await _names(cluster, other, machine.node_id)
        if not named and machine.process is process:
            cluster.witness.violation(f"node {node_id} does not name node {machine.node_id}, whose copy differs")
    cluster.witness.count("other values found")
    deadline = cluster.scheduler.now + REBUILT_SECONDS_MAX
    while machine.harm is not None or not machine.serves:
        if cluster.scheduler.now > deadline:
            cluster.witness.violation(f"node {machine.node_id} was not rebuilt in {REBUILT_SECONDS_MAX:.0f} s")
            return
        await asyncio.sleep(_LOOK_SECONDS)


async def _have_record(cluster: SimulatedCluster, key: str) -> bool:
    """Whether every node serves and has applied the record, in time."""

    def has(machine: Machine) -> bool:
        process = machine.process
        return machine.removed or (process is not None and machine.serves and process.state.get(key, 0) is not None)

    deadline = cluster.scheduler.now + _APPLIED_SECONDS_MAX
    while not all(map(has, cluster.machines.values())):
        if cluster.scheduler.now > deadline:
            return False
        await asyncio.sleep(_LOOK_SECONDS)
    return True


async def _names(cluster: SimulatedCluster, process: Process, node_id: int) -> bool:
    """Whether the process names the node as one whose copy differs or is damaged, in time."""
    deadline = cluster.scheduler.now + FOUND_SECONDS_MAX
    while node_id not in process.proving.findings.peers:
        if cluster.scheduler.now > deadline:
            return False
        await asyncio.sleep(_LOOK_SECONDS)
    return True


async def _ask_all(cluster: SimulatedCluster, members: Sequence[int], call: Callable[[Process], Awaitable[Any]]) -> None:
    for node_id in members:
        try:
            await cluster.ask(node_id, call, 5.0)
        except RequestError:
            continue  # a fault asked for its removal, which took effect only now

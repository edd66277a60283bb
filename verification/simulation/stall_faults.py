"""Disks that stop answering for seconds, and what the cluster must do meanwhile.

A write of the raft log, or the restart of the state's write-ahead log, begins and does not end. While a majority is well,
writes through the other nodes must succeed, the node must not say that it leads, and it must not be elected.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass

from metasrv.model.errors import NotDoneError, UnknownOutcomeError
from metasrv.model.types import NO_LIMITS
from metasrv.raft.core.engine import LEADER
from verification.simulation.machine import Machine, Process
from verification.simulation.nemesis import Inflict, Nemesis

LOG_WRITE, STATE_RESTART = "write", "restart_log"
"""The jobs that stall, by the names of their functions."""
STALL_SECONDS = (1.2, 2.5, 5.0)
PROGRESS_SECONDS_MAX = 3.0
"""While a majority is well, a write through a node that is well succeeds at least so often."""
LEADS_SECONDS_MAX = 2.5
"""From then on the node of a disk that does not answer says no more that it leads, and is not elected."""
_LOOK_SECONDS = 0.02
_PAUSE_SECONDS = 0.1
"""Between two rounds of writes."""


async def stalled_leader(nemesis: Nemesis, source: random.Random) -> None:
    await _stall(nemesis, source, nemesis.leader(source))


async def stalled_node(nemesis: Nemesis, source: random.Random) -> None:
    await _stall(nemesis, source, nemesis.any(source))


async def _stall(nemesis: Nemesis, source: random.Random, machine: Machine) -> None:
    jobs = source.choice(((LOG_WRITE,), (STATE_RESTART,), (STATE_RESTART,), (LOG_WRITE, STATE_RESTART)))
    seconds = source.choice(STALL_SECONDS)
    if any(other.faults.stalls for other in nemesis.all()):
        return  # one at a time: a majority stays well
    until = nemesis.cluster.scheduler.now + seconds
    nemesis.cluster.note(f"the disk of node {machine.node_id} stalls for {seconds} s: {jobs}")
    machine.faults.stalls.update(dict.fromkeys(jobs, until))
    watching = asyncio.create_task(_watch(nemesis, machine))
    try:
        if STATE_RESTART in jobs:
            _restart_state_log(machine)
        await _require_progress(nemesis, machine, until)
    finally:
        watching.cancel()
        machine.faults.stalls.clear()
    if watching.done() and not watching.cancelled():
        watching.result()


def _restart_state_log(machine: Machine) -> None:
    """Have the state's write-ahead log begin anew now: by itself it does so only once much was written."""
    process = machine.process
    if process is not None:
        process.loop.call_soon(process.consensus.replica.state_log.move_soon)


def _others_are_well(nemesis: Nemesis, machine: Machine) -> bool:
    """Nothing but this disk is in the way: the others serve, are connected, and no other fault is under way."""
    if nemesis.lost or nemesis.changing_members or machine.node_id not in nemesis.cluster.voters():
        return False
    if any(count and kind not in STALL_FAULTS for kind, count in nemesis.under_way.items()):
        return False
    others = [other for other in nemesis.all() if other is not machine and not other.removed]
    if any(not other.serves or other.faults.slow_until > nemesis.cluster.scheduler.now for other in others):
        return False
    processes = [other.process for other in others if other.process is not None and not other.process.loop.paused]
    if any(process.state.limits != NO_LIMITS for process in processes):
        return False  # the cluster may be read-only since an earlier fault
    return len(processes) == len(others) and not nemesis.cluster.network.incomplete and _are_connected(processes)


def _are_connected(processes: list[Process]) -> bool:
    """Whether each reaches each other: what an earlier fault broke may take seconds to be dialled again."""
    return all(
        one is other or one.consensus.replica.peers.transport.is_connected(other.machine.node_id)
        for one in processes
        for other in processes
    )


async def _require_progress(nemesis: Nemesis, machine: Machine, until: float) -> None:
    """Write through all other nodes, again and again: one of them must succeed.

    Not each: a connection that an earlier fault damaged may keep one of them from the leader for a while.
    """
    scheduler, witness = nemesis.cluster.scheduler, nemesis.cluster.witness
    since = scheduler.now
    while scheduler.now < until:
        await asyncio.sleep(_PAUSE_SECONDS)
        others = [i for i in nemesis.cluster.voters() if i != machine.node_id]
        if not others or not _others_are_well(nemesis, machine):
            since = scheduler.now
            continue
        done_at = await asyncio.gather(*(_write(nemesis, node_id) for node_id in others))
        since = max([since, *done_at])
        if not _others_are_well(nemesis, machine):
            since = scheduler.now
        if scheduler.now - since > PROGRESS_SECONDS_MAX:
            witness.violation(
                f"no write succeeded for {scheduler.now - since:.1f} s although only the disk of node"
                f" {machine.node_id} stalls"
            )
            return


async def _write(nemesis: Nemesis, node_id: int) -> float:
    """When a write through the node succeeded; 0.0 when it did not."""
    try:
        await nemesis.mark(node_id)
    except (NotDoneError, UnknownOutcomeError) as error:
        nemesis.cluster.note(f"no write through node {node_id} beside a disk that stalls: {error}")
        return 0.0
    nemesis.cluster.witness.count("writes beside a stalled disk")
    return nemesis.cluster.scheduler.now


@dataclass(slots=True)
class _Seen:
    """How long one process has waited for its disk, and been well surrounded meanwhile."""

    process: Process
    since: float
    well_since: float
    followed: bool = False
    """It was seen not to lead, long after its disk had stopped to answer."""


async def _watch(nemesis: Nemesis, machine: Machine) -> None:
    """Look at who the node says to be while it waits for its disk."""
    scheduler = nemesis.cluster.scheduler
    seen: _Seen | None = None
    while True:
        await asyncio.sleep(_LOOK_SECONDS)
        process, now = machine.process, scheduler.now
        if process is None or process.loop.paused or not _waits(process):
            seen = None
            continue
        if seen is None or seen.process is not process:
            seen = _Seen(process, now, now)
        if not _others_are_well(nemesis, machine):
            seen.well_since = now
        if now - max(seen.since, seen.well_since) > LEADS_SECONDS_MAX and _says_to_lead(process):
            nemesis.cluster.witness.violation(
                f"node {machine.node_id} leads although its disk has not answered for {now - seen.since:.1f} s"
            )
            return
        if now - seen.since > LEADS_SECONDS_MAX:
            leads = process.consensus.replica.engine.role() == LEADER
            if leads and seen.followed:
                nemesis.cluster.witness.violation(f"node {machine.node_id} was elected while its disk stalls")
                return
            seen.followed = seen.followed or not leads


def _waits(process: Process) -> bool:
    replica = process.consensus.replica
    return replica.driver.busy() or replica.state_log.restarting


def _says_to_lead(process: Process) -> bool:
    answer: bool = process.loop.enter(lambda: process.consensus.status().is_leader)
    return answer


STALL_FAULTS: dict[str, Inflict] = {"stalled leader": stalled_leader, "stalled node": stalled_node}

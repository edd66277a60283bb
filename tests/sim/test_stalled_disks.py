"""A leader whose disk does not answer for seconds: who leads meanwhile, and that its node goes on without a restart."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from metasrv.model import commands as c
from metasrv.model.errors import UnknownOutcomeError
from verification.simulation.cluster import SimulatedCluster, opened
from verification.simulation.formation import formed_images
from verification.simulation.machine import Process, Tuning
from verification.simulation.stall_faults import LOG_WRITE, STATE_RESTART

STALL_SECONDS = 5.0
HANDED_OVER_SECONDS_MAX = 2.0


@pytest.fixture
def cluster() -> Iterator[SimulatedCluster]:
    """Three nodes that run and know a leader."""
    with opened("stalls", Tuning()) as cluster:
        for node_id, image in enumerate(formed_images(3), start=1):
            cluster.add_machine(node_id, image)
        for machine in cluster.machines.values():
            machine.start()
        cluster.run(cluster.until(lambda: all(machine.serves for machine in cluster.machines.values())), 10.0)
        yield cluster
        assert cluster.witness.violations == []


async def put(process: Process) -> object:
    command = c.Upsert("k", c.MatchSeq(c.MatchKind.ANY), c.Operation.UPDATE, b"1")
    return await process.consensus.propose(command, 4_500)


def stall(cluster: SimulatedCluster, process: Process, job: str) -> float:
    """The disk of the process begins to stall; until when."""
    until = cluster.scheduler.now + STALL_SECONDS
    process.faults.stalls[job] = until
    if job == STATE_RESTART:
        process.loop.call_soon(process.consensus.replica.state_log.move_soon)
    return until


def says_to_lead(process: Process) -> bool:
    answer: bool = process.loop.enter(lambda: process.consensus.status().is_leader)
    return answer


@pytest.mark.parametrize("job", [LOG_WRITE, STATE_RESTART])
def test_another_node_leads_within_two_seconds(cluster: SimulatedCluster, job: str) -> None:
    old = cluster.leader()
    assert old is not None
    other = next(i for i in cluster.machines if i != old.machine.node_id)
    cluster.run(cluster.ask(other, put, 2.0), 5.0)
    began_at, until = cluster.scheduler.now, stall(cluster, old, job)

    def another_leads() -> bool:
        return any(says_to_lead(process) for process in cluster.processes() if process is not old)

    if job == STATE_RESTART:  # a write before that would still be applied
        cluster.run(cluster.until(lambda: old.consensus.replica.state_log.restarting), 1.0)
    asking = cluster.loop.create_task(cluster.ask(old.machine.node_id, put, STALL_SECONDS))
    cluster.run(cluster.until(another_leads), 10.0)
    assert cluster.scheduler.now - began_at < HANDED_OVER_SECONDS_MAX
    assert not says_to_lead(old)
    cluster.run(cluster.ask(other, put, 2.0), 5.0)
    cluster.run(cluster.until(lambda: asking.done() and cluster.scheduler.now > began_at + 1.2), 3.0)
    assert isinstance(asking.exception(), UnknownOutcomeError), "it was in the log, and nobody waits until the deadline"
    status = old.loop.enter(old.consensus.status)
    assert (status.disk_stall or "").startswith("the disk stalls")

    cluster.run(cluster.until(lambda: cluster.scheduler.now > until + 0.5), 10.0)
    leader = cluster.leader()
    assert leader is not None
    assert leader is not old, "it was not elected meanwhile"
    assert old.machine.process is old, "it was not restarted"
    assert old.loop.enter(old.consensus.status).disk_stall is None
    cluster.run(cluster.ask(old.machine.node_id, put, 2.0), 5.0)
    cluster.run(cluster.until(lambda: old.state.last_applied == leader.state.last_applied), 1.0)


def test_an_idle_follower_whose_disk_stalls_is_not_elected_when_the_leader_dies(cluster: SimulatedCluster) -> None:
    leader = cluster.leader()
    assert leader is not None
    stalled, third = (p for p in cluster.processes() if p is not leader)
    until = stall(cluster, stalled, STATE_RESTART)
    cluster.run(cluster.until(lambda: stalled.consensus.replica.disk.part is not None), 2.0)
    terms = set(cluster.invariants.leaders)
    leader.machine.kill()
    heard_at = cluster.scheduler.now + 0.005
    cluster.run(cluster.until(lambda: cluster.scheduler.now > heard_at, 0.001), 1.0)  # the connection has broken
    third.consensus.replica.engine.set_election_deadline(cluster.scheduler.now + 0.8)  # so the other's timer fires first
    cluster.run(cluster.until(lambda: says_to_lead(third)), 2.0)
    assert cluster.scheduler.now < until
    elected = {leader_id for term, leader_id in cluster.invariants.leaders.items() if term not in terms}
    assert elected == {third.machine.node_id}
    cluster.run(cluster.ask(third.machine.node_id, put, 2.0), 5.0)

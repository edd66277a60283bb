"""A copy of the state that a simulated node has wrong: found within a minute at the product's own pace, and rebuilt."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from metasrv.model.errors import DamagedCopyError
from metasrv.node.copy_proof import ProofPace
from verification.simulation.cluster import SimulatedCluster, opened
from verification.simulation.copy_checks import check_refuses
from verification.simulation.copy_faults import apply_another_value, flipped_byte, lost_row, write_record
from verification.simulation.formation import formed_images
from verification.simulation.machine import Machine, Process, Tuning
from verification.simulation.nemesis import Inflict, Nemesis

FOUND_SECONDS_MAX = 60.0


@pytest.fixture
def cluster() -> Iterator[SimulatedCluster]:
    """Three nodes that run, know a leader, and look at their copies as often as real ones."""
    with opened("copies", Tuning(pace=ProofPace())) as cluster:
        for node_id, image in enumerate(formed_images(3), start=1):
            cluster.add_machine(node_id, image)
        for machine in cluster.machines.values():
            machine.joins = tuple(other for other in cluster.machines if other != machine.node_id)
            machine.start()
        cluster.run(cluster.until(lambda: all(machine.serves for machine in cluster.machines.values())), 10.0)
        yield cluster


def harmed(cluster: SimulatedCluster) -> Machine:
    (machine,) = (machine for machine in cluster.machines.values() if machine.harm is not None)
    return machine


def knows(machine: Machine) -> bool:
    return machine.process is not None and bool(machine.process.proving.findings.damage)


def alarmed(machine: Machine) -> bool:
    """Whether its process says that any copy is wrong, or has not compared yet."""
    findings = None if machine.process is None else machine.process.proving.findings
    return findings is None or bool(findings.damage or findings.peers) or findings.compared_at is None


async def another_value(nemesis: Nemesis, source: random.Random) -> None:
    process = await write_record(nemesis.cluster, nemesis.follower(source).node_id, "byte/another")
    assert process is not None
    apply_another_value(process, "byte/another")


@pytest.mark.parametrize("fault", [flipped_byte, lost_row, another_value])
def test_a_harmed_copy_is_found_within_a_minute_stops_serving_and_is_rebuilt(
    cluster: SimulatedCluster, fault: Inflict
) -> None:
    nemesis = Nemesis(cluster, "copies", {})
    refused: list[int] = []

    async def check(process: Process) -> None:
        with pytest.raises(DamagedCopyError):
            await cluster.ask(process.machine.node_id, lambda asked: asked.consensus.read_barrier(500), 1.0)
        await check_refuses(cluster, process)
        refused.append(process.machine.node_id)

    nemesis.check_refuses = check
    for machine in cluster.machines.values():
        nemesis.look_after(machine)
    cluster.run(fault(nemesis, random.Random(3)), 5.0)
    machine = harmed(cluster)
    cluster.run(cluster.until(lambda: knows(machine)), FOUND_SECONDS_MAX)
    cluster.run(cluster.until(lambda: machine.harm is None and machine.serves), 20.0)
    cluster.run(cluster.until(lambda: not any(alarmed(other) for other in cluster.machines.values())), 20.0)
    assert refused == [machine.node_id]
    assert cluster.witness.violations == []
    assert cluster.invariants.counts["alarms about the own copy"] == 1
    assert all(other.process is not None and other.process.proving.findings.serves for other in cluster.machines.values())


def test_an_alarm_about_a_good_copy_is_a_violation(cluster: SimulatedCluster) -> None:
    process = cluster.machines[2].process
    assert process is not None
    process.proving.proof.health.peer_differs(3, "they differ")
    process.loop.enter(lambda: process.proving.proof.health.damaged("a key"))
    assert [text.split(":")[0] for text in cluster.witness.violations] == [
        "node 2 raised an alarm about a good copy, of node 3",
        "node 2 raised an alarm about a good copy, of node 2",
    ]

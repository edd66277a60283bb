"""Mistakes that the simulator itself once made: correct behaviour was called a violation, or a history had no end.

Each showed in one of ten thousand histories or more; here the rule that was missing is tested by itself.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from itertools import chain

import pytest

from verification.simulation import scheduler as scheduler_module
from verification.simulation.cluster import SimulatedCluster, opened
from verification.simulation.formation import formed_images
from verification.simulation.history import _History, run_history
from verification.simulation.loop import SimulatedLoop, forget_running_loop
from verification.simulation.machine import Process, Tuning, endpoint_of
from verification.simulation.nemesis import Nemesis
from verification.simulation.plan import FAULTS, make_plan
from verification.simulation.scheduler import Scheduler


@pytest.fixture
def cluster() -> Iterator[SimulatedCluster]:
    """Three nodes that run and know a leader."""
    with opened("mistakes", Tuning()) as cluster:
        for node_id, image in enumerate(formed_images(3), start=1):
            cluster.add_machine(node_id, image)
        for machine in cluster.machines.values():
            machine.start()
        cluster.run(cluster.until(lambda: all(machine.serves for machine in cluster.machines.values())), 10.0)
        yield cluster


def test_a_removal_that_takes_effect_after_the_healing_excuses_the_removed_node(cluster: SimulatedCluster) -> None:
    """A fault had asked for it. The node need not answer any more, and is not compared with the others."""
    history = _History(make_plan(1), cluster)
    leader = cluster.leader()
    assert leader is not None
    removed = next(i for i in cluster.machines if i != leader.machine.node_id)
    for number in range(6):
        key = history._clients._key("register", number)
        cluster.run(history._clients.read(0, leader.machine.node_id, key), 5.0)
    before = history._voters()

    async def leave(process: Process) -> None:
        target = endpoint_of(process.machine.node_id)
        await process.consensus.forwarding.leave(target, removed, 1_000, hops=1)

    cluster.run(cluster.ask(leader.machine.node_id, leave, 2.0), 5.0)
    cluster.machines[removed].kill()
    assert removed in before
    assert removed not in history._voters()
    voters = chain([before], iter(history._voters, None))
    history._voters = lambda: next(voters)  # type: ignore[method-assign]
    cluster.run(history._read_everything(), 60.0)
    assert cluster.witness.violations == []


def test_a_disk_is_not_emptied_under_a_running_node(cluster: SimulatedCluster) -> None:
    """Another fault may have started the node again meanwhile: whoever empties the disk kills it first."""
    with pytest.raises(AssertionError, match="runs"):
        cluster.machines[1].empty()
    nemesis = Nemesis(cluster, "mistakes", FAULTS)
    nemesis.wipe(cluster.machines[1])
    assert cluster.machines[1].image is None


def test_a_node_with_damaged_files_counts_as_a_disk_that_may_be_lost(cluster: SimulatedCluster) -> None:
    """The damage may show at any later time, and a second disk must not be taken beside it."""
    nemesis = Nemesis(cluster, "mistakes", FAULTS)
    assert nemesis.may_lose_disk()
    cluster.machines[2].damaged = True
    assert not nemesis.may_lose_disk()


def test_timers_of_clocks_that_run_wrong_are_never_early() -> None:
    """A timer that is early by a rounding error is set again for the same moment, forever."""
    scheduler = Scheduler()
    source = random.Random(7)
    late: list[float] = []
    for _ in range(2_000):
        scheduler.now += source.uniform(0, 1)
        loop = SimulatedLoop(scheduler, pytest.fail, rate=source.uniform(0.9, 1.1))
        when = loop.time() + source.choice((1e-12, 1e-9, 0.001))
        loop.call_at(when, lambda loop=loop, when=when: late.append(loop.time() - when))
        scheduler.run(scheduler.now + 1, lambda: False)
    forget_running_loop()
    assert len(late) == 2_000
    assert 0 <= min(late) <= max(late) < 1e-9


def test_a_history_in_which_time_stands_still_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler_module, "EVENTS_MAX", 3_000)
    outcome = run_history(make_plan(1))
    assert outcome.violations == ["the history did not come to an end"]


def test_a_call_that_fails_in_a_way_nobody_promised_is_a_violation(cluster: SimulatedCluster) -> None:
    """It ended the whole run, without naming the seed."""

    async def broken(_process: Process) -> None:
        await asyncio.sleep(0)
        raise TypeError("an unsigned integer was expected")

    with pytest.raises(Exception, match="the call failed"):
        cluster.run(cluster.ask(1, broken, 1.0), 5.0)
    assert cluster.witness.violations == ["a call of node 1 ended with TypeError: an unsigned integer was expected"]

"""Sequences of faults in which the others overtake a node: its log differs from theirs, or ends before they begin.

The steps are also faults of their own, but by chance they hardly ever happen in this order and in time.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import contextmanager

from verification.simulation.membership_faults import take_snapshot
from verification.simulation.nemesis import Inflict, Nemesis

_PAUSE_SECONDS = 0.02
"""Between writes: each becomes an entry of its own."""
_INSTALL_LOOKS = 1_500
_INSTALL_LOOK_SECONDS = 0.0005
"""Short: the state is synced again soon after a snapshot was put in place."""


@contextmanager
def cut_off(nemesis: Nemesis, node_id: int) -> Iterator[None]:
    """Cut all paths between the node and the others; clients still reach it."""
    network = nemesis.cluster.network
    paths = [path for i in sorted(nemesis.cluster.machines) if i != node_id for path in ((i, node_id), (node_id, i))]
    for path in paths:
        network.cut(*path)
    try:
        yield
    finally:
        for path in paths:
            network.mend(*path)


async def write_some(nemesis: Nemesis, node_ids: list[int], count: int, source: random.Random) -> None:
    for _ in range(count):
        nemesis.write(source.choice(node_ids))
        await asyncio.sleep(_PAUSE_SECONDS * (0.5 + source.random()))


def _others(nemesis: Nemesis, node_id: int) -> list[int]:
    return [i for i in sorted(nemesis.cluster.machines) if i != node_id]


async def overtaken_leader(nemesis: Nemesis, source: random.Random) -> None:
    """A leader that is cut off adds entries that no other node gets, and finds others in their place when it is back.

    Or the others' logs begin after its own ends, and it gets a snapshot (D1).
    """
    leader = nemesis.leader(source)
    others = _others(nemesis, leader.node_id)
    with cut_off(nemesis, leader.node_id):
        await write_some(nemesis, [leader.node_id], source.randint(2, 6), source)
        await asyncio.sleep(0.4 + 0.2 * source.random())  # the others elect
        await write_some(nemesis, others, source.choice((4, 10, 20)), source)
        if source.random() < 0.5:
            await take_snapshot(nemesis, nemesis.leader(source))


async def candidate_that_lags(nemesis: Nemesis, source: random.Random) -> None:
    """A node that lacks committed entries comes back at the moment in which the leader goes."""
    leader = nemesis.leader(source)
    candidate = nemesis.cluster.machines[source.choice(_others(nemesis, leader.node_id))]
    with cut_off(nemesis, candidate.node_id):
        await write_some(nemesis, [leader.node_id], source.randint(2, 8), source)
        await asyncio.sleep(0.1 + 0.2 * source.random())
    with cut_off(nemesis, leader.node_id):
        await asyncio.sleep(0.5 + 0.5 * source.random())


async def power_loss_after_snapshot(nemesis: Nemesis, source: random.Random) -> None:
    """A node that lags behind gets a snapshot, puts it in place, and loses its power right then."""
    machine = nemesis.follower(source)
    leader = nemesis.leader(source)
    if machine is leader:
        return
    with cut_off(nemesis, machine.node_id):
        await write_some(nemesis, [leader.node_id], source.choice((6, 15)), source)
        await take_snapshot(nemesis, leader)
        await asyncio.sleep(0.1)
    installed = nemesis.cluster.invariants.counts["snapshots installed"]
    for _ in range(_INSTALL_LOOKS):
        await asyncio.sleep(_INSTALL_LOOK_SECONDS)
        if nemesis.cluster.invariants.counts["snapshots installed"] > installed:
            break
    await asyncio.sleep(source.choice((0.0, 0.0, 0.002, 0.05)) * source.random())
    machine.kill(power_lost=True)
    await asyncio.sleep(0.1 * source.random())
    if not machine.removed:
        machine.start()


async def answers_that_lag(nemesis: Nemesis, source: random.Random) -> None:
    """Delay entries to one follower and its answers, while the others commit and purge.

    The leader takes the follower to be further behind than it is, and may send it a snapshot that it does not need (S12).
    """
    leader, follower = nemesis.leader(source), nemesis.follower(source)
    network = nemesis.cluster.network
    paths = ((leader.node_id, follower.node_id), (follower.node_id, leader.node_id))
    for path in paths:
        network.slow_paths[path] = source.choice((0.05, 0.1))
    try:
        await write_some(nemesis, [leader.node_id], source.choice((15, 30, 45)), source)
    finally:
        for path in paths:
            network.slow_paths.pop(path, None)


OVERTAKING_FAULTS: dict[str, Inflict] = {
    "overtaken leader": overtaken_leader,
    "candidate that lags": candidate_that_lags,
    "power loss after snapshot": power_loss_after_snapshot,
    "answers that lag": answers_that_lag,
}

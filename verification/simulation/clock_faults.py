"""Wrong clocks where chance hardly ever has them: what a leader stamped reaches its successor in a snapshot alone.

The steps are faults of their own as well, but hardly ever in this order and in time.
"""

from __future__ import annotations

import asyncio
import random

from verification.simulation.machine import Machine
from verification.simulation.membership_faults import take_snapshot, transfer
from verification.simulation.nemesis import Inflict, Nemesis
from verification.simulation.overtaking_faults import cut_off, write_some
from verification.simulation.process_faults import set_wall_clock

_LOOKS = 1_500
_LOOK_SECONDS = 0.0005
"""Short: the node has to lead before it gets another entry."""
_AHEAD_MS = (300_000, 3_600_000, 86_400_000)


async def leads_after_snapshot(nemesis: Nemesis, source: random.Random) -> None:
    """A node gets what a leader with a clock that is ahead has stamped in a snapshot, and leads right then (R22)."""
    leader, machine = nemesis.leader(source), nemesis.follower(source)
    if machine is leader:
        return
    set_wall_clock(nemesis.cluster, leader, source.choice(_AHEAD_MS))
    with cut_off(nemesis, machine.node_id):
        await write_some(nemesis, [leader.node_id], source.choice((6, 15)), source)
        await asyncio.sleep(0.1)  # so that the snapshot has the last of them
        await take_snapshot(nemesis, leader)
        await asyncio.sleep(0.1)
    if await _installs(nemesis, machine):
        await transfer(nemesis, nemesis.leader(source).node_id, machine.node_id)


async def _installs(nemesis: Nemesis, machine: Machine) -> bool:
    """Wait a while until any node has put a snapshot in place; whether the machine runs then."""
    counts = nemesis.cluster.invariants.counts
    installed = counts["snapshots installed"]
    for _ in range(_LOOKS):
        await asyncio.sleep(_LOOK_SECONDS)
        if counts["snapshots installed"] > installed:
            return machine.process is not None
    return False


CLOCK_FAULTS: dict[str, Inflict] = {"leads after a snapshot": leads_after_snapshot}

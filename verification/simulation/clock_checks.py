"""The clock of the leader at the end of some histories: one that is far off its majority hands leadership over.

All clocks are corrected first, and the faults are over, so that only one clock is wrong. Histories with a clock that
runs too fast or too slow are left out: there nobody may be right for long. Runs in the world's loop.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

from verification.simulation.cluster import SimulatedCluster
from verification.simulation.process_faults import set_wall_clock

SHARE = 0.2
"""Share of histories that are checked: it takes about a simulated second, twenty after earlier hand-overs."""
WRONG_MS = 300_000
HAND_OVER_SECONDS_MAX = 20.0
"""Three rounds of questions take 0.6 s; the pauses after two earlier hand-overs of the same node 18 s."""
_LOOK_SECONDS = 0.05
_VOTERS_MIN = 3
"""With two clocks nobody can say which one is wrong."""


async def check_clock_hand_over(cluster: SimulatedCluster, seed: int, members: Sequence[int]) -> None:
    """Set the leader's clock wrong and wait until another node leads."""
    source = random.Random(f"{seed}/clock of the leader")
    leader = cluster.leader()
    machines = [cluster.machines[node_id] for node_id in members]
    drifting = any(machine.rate != 1.0 for machine in machines)
    if source.random() >= SHARE or leader is None or len(members) < _VOTERS_MIN or drifting:
        return
    for machine in machines:
        set_wall_clock(cluster, machine, 0)
    wrong, off_ms = leader.machine, source.choice((-1, 1)) * WRONG_MS
    set_wall_clock(cluster, wrong, off_ms)
    deadline = cluster.scheduler.now + HAND_OVER_SECONDS_MAX
    while True:
        leader = cluster.leader()
        if leader is not None and leader.machine is not wrong:
            cluster.witness.count("hand-overs by a wrong clock")
            return
        if cluster.scheduler.now > deadline:
            text = f"node {wrong.node_id} still leads after {HAND_OVER_SECONDS_MAX:.0f} s with a clock {off_ms} ms off"
            cluster.witness.violation(text)
            return
        await asyncio.sleep(_LOOK_SECONDS)

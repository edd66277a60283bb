"""Faults of addresses: nodes come back with their data at other addresses, one, two or all at once."""

from __future__ import annotations

import asyncio
import random

from verification.simulation.machine import Machine
from verification.simulation.nemesis import Inflict, Nemesis


async def _move(nemesis: Nemesis, source: random.Random, machines: list[Machine]) -> None:
    """Kill the machines, give each another address, start them.

    A node that starts is told where the others are now, as an operator would in `join`. It can do without when the others
    are where they have always been.
    """
    machines = [machine for machine in machines if not machine.removed]
    staying = [machine for machine in nemesis.all() if machine not in machines]
    others_stay = bool(staying) and all(machine.moves == 0 for machine in staying)
    for machine in nemesis.all():  # also while a cluster is formed, when most know only the first node
        machine.joins = tuple(i for i in sorted(nemesis.cluster.machines) if i != machine.node_id)
    for machine in machines:
        machine.kill(power_lost=source.random() < 0.3)
        machine.move()
    await asyncio.sleep(0.2 * source.random())
    hinted = not others_stay or source.random() < 0.5
    for machine in machines:
        machine.hinted = hinted
        machine.start()
        machine.hinted = True
        await asyncio.sleep(0.1 * source.random())


async def one_moves(nemesis: Nemesis, source: random.Random) -> None:
    await _move(nemesis, source, [source.choice((nemesis.any, nemesis.leader))(source)])


async def two_move(nemesis: Nemesis, source: random.Random) -> None:
    await _move(nemesis, source, nemesis.some(source, 2))


async def all_move(nemesis: Nemesis, source: random.Random) -> None:
    await _move(nemesis, source, nemesis.all())


async def moves_in_a_row(nemesis: Nemesis, source: random.Random) -> None:
    """One after the other, each perhaps before the cluster has heard of the one before."""
    for _ in range(source.randint(2, 4)):
        await one_moves(nemesis, source)
        await asyncio.sleep(0.4 * source.random())


ADDRESS_FAULTS: dict[str, Inflict] = {
    "one node moves": one_moves,
    "two nodes move": two_move,
    "all nodes move": all_move,
    "nodes move in a row": moves_in_a_row,
}

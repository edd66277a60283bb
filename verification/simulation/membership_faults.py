"""Faults of operation: membership changes, snapshots and leadership transfers at bad times."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from metasrv.model.errors import RequestError
from verification.simulation.machine import Machine, Process
from verification.simulation.nemesis import Inflict, Nemesis

_ATTEMPTS = 6
_TIMEOUT_MS = 1_000
_PATIENCE_SECONDS = 1.5
"""Time for a removed node to be admitted with its old disk; then the operator gives it an empty one."""


async def _ask_somebody(nemesis: Nemesis, source: random.Random, call: Callable[[Process], Awaitable[object]]) -> bool:
    """Ask random nodes until one says that it is done."""
    for _ in range(_ATTEMPTS):
        node_id = nemesis.any(source).node_id
        try:
            await nemesis.cluster.ask(node_id, call, _TIMEOUT_MS / 1000 + 0.5)
        except RequestError as error:
            nemesis.cluster.note(f"membership through node {node_id}: {type(error).__name__}: {error}")
            await asyncio.sleep(0.1)
        else:
            return True
    return False


async def _leave(nemesis: Nemesis, source: random.Random, node_id: int) -> bool:
    """As `metactl leave`: any node, one hop to the leader."""
    target = nemesis.any(source).endpoint

    async def call(process: Process) -> None:
        await process.consensus.forwarding.leave(target, node_id, _TIMEOUT_MS, hops=1)

    return await _ask_somebody(nemesis, source, call)


def _begin_change(nemesis: Nemesis) -> bool:
    """Claim the right to change members: one change at a time, none while a disk is lost or too many may be."""
    if nemesis.changing_members or nemesis.lost or not nemesis.may_miss_one():
        return False
    nemesis.changing_members = True
    return True


async def _remove_and_readmit(nemesis: Nemesis, source: random.Random, machine: Machine, *, wipe: bool) -> None:
    """Take a node out of the cluster; stop it; bring it back, with its old disk or an empty one."""
    done = await _leave(nemesis, source, machine.node_id)
    nemesis.cluster.note(f"leave of node {machine.node_id}: {'done' if done else 'not known'}")
    await asyncio.sleep(0.3 * source.random())
    machine.kill()
    await asyncio.sleep(0.3 * source.random())
    if wipe and done:
        machine.kill()  # another fault may have started it meanwhile
        machine.empty()
    machine.start()
    patience = _PATIENCE_SECONDS
    while not machine.serves:
        await asyncio.sleep(0.05)
        patience -= 0.05
        if patience <= 0.0 and done:
            nemesis.wipe(machine)
            machine.start()
            patience = 100.0


async def remove_follower(nemesis: Nemesis, source: random.Random) -> None:
    if not _begin_change(nemesis):
        return
    await _remove_and_readmit(nemesis, source, nemesis.follower(source), wipe=source.random() < 0.5)
    nemesis.changing_members = False


async def remove_leader(nemesis: Nemesis, source: random.Random) -> None:
    """Leadership is handed over first, as a leader cannot remove itself."""
    if not _begin_change(nemesis):
        return
    machine = nemesis.leader(source)
    process = machine.process
    if process is not None:
        await transfer(nemesis, machine.node_id, None)
        await asyncio.sleep(0.2)
    await _remove_and_readmit(nemesis, source, machine, wipe=source.random() < 0.5)
    nemesis.changing_members = False


async def remove_partitioned(nemesis: Nemesis, source: random.Random) -> None:
    if not _begin_change(nemesis):
        return
    machine = nemesis.any(source)
    network = nemesis.cluster.network
    paths = [
        path
        for i in nemesis.cluster.machines
        for path in ((i, machine.node_id), (machine.node_id, i))
        if path[0] != path[1]
    ]
    for path in paths:
        network.cut(*path)
    try:
        await asyncio.sleep(0.5 * source.random())
        await _leave(nemesis, source, machine.node_id)
        await asyncio.sleep(0.5 * source.random())
    finally:
        for path in paths:
            network.mend(*path)
    await asyncio.sleep(0.3)
    await _remove_and_readmit(nemesis, source, machine, wipe=False)
    nemesis.changing_members = False


async def replace_with_empty_disk(nemesis: Nemesis, source: random.Random) -> None:
    """A node's disk is swapped for an empty one while it is down; it comes back under its old id."""
    if nemesis.may_lose_disk():
        machine = source.choice((nemesis.any, nemesis.leader))(source)
        nemesis.wipe(machine)
        await asyncio.sleep(0.2 * source.random())
        machine.start()


async def wipe_first_node_alone(nemesis: Nemesis, source: random.Random) -> None:
    """The node that may begin a cluster comes back empty and hears of nobody for a while: it must wait."""
    machine = nemesis.cluster.machines.get(1)
    if machine is None or not nemesis.may_lose_disk():
        return
    network = nemesis.cluster.network
    others = [i for i in nemesis.cluster.machines if i != machine.node_id]
    paths = [path for i in others for path in ((i, machine.node_id), (machine.node_id, i))]
    nemesis.wipe(machine)
    for path in paths:
        network.cut(*path)
    try:
        machine.start()
        await asyncio.sleep(0.3 + source.random())
    finally:
        for path in paths:
            network.mend(*path)


async def add_node(nemesis: Nemesis, source: random.Random) -> None:
    """A new node joins, as a voter or as a learner that is promoted later."""
    if not _begin_change(nemesis):
        return
    cluster = nemesis.cluster
    machine = cluster.add_machine(max(cluster.machines) + 1)
    nemesis.look_after(machine)
    machine.learner = source.random() < 0.5
    machine.start()
    await cluster.until(lambda: machine.serves)
    if machine.learner:
        await asyncio.sleep(0.3 * source.random())
        machine.learner = False
        machine.kill()
        machine.start()
        await cluster.until(lambda: machine.serves)
    nemesis.changing_members = False


async def add_two_nodes(nemesis: Nemesis, source: random.Random) -> None:
    """Two new nodes ask to join in the same moment: one must wait for the other (D6)."""
    if not _begin_change(nemesis):
        return
    cluster = nemesis.cluster
    machines = [cluster.add_machine(max(cluster.machines) + 1) for _ in range(2)]
    for machine in machines:
        nemesis.look_after(machine)
        machine.learner = source.random() < 0.3
        machine.start()
    await cluster.until(lambda: all(machine.serves for machine in machines))
    nemesis.changing_members = False


async def take_snapshot(nemesis: Nemesis, machine: Machine) -> None:
    async def call(process: Process) -> None:
        await process.consensus.trigger_snapshot()

    try:
        await nemesis.cluster.ask(machine.node_id, call, 0.2)
    except RequestError as error:
        nemesis.cluster.note(f"snapshot of node {machine.node_id}: {type(error).__name__}")


async def snapshots_in_a_loop(nemesis: Nemesis, source: random.Random) -> None:
    for _ in range(source.randint(3, 15)):
        await take_snapshot(nemesis, nemesis.any(source))
        await asyncio.sleep(0.1 * source.random())


async def lagging_follower(nemesis: Nemesis, source: random.Random) -> None:
    """A follower misses so many entries that the logs of the others begin after its own ends."""
    machine = nemesis.follower(source)
    others = [i for i in nemesis.cluster.machines if i != machine.node_id]
    network = nemesis.cluster.network
    paths = [path for i in others for path in ((i, machine.node_id), (machine.node_id, i))]
    for path in paths:
        network.cut(*path)
    try:
        for _ in range(source.randint(2, 5)):
            await asyncio.sleep(0.3)
            leader = nemesis.leader(source)
            if leader is not machine:
                await take_snapshot(nemesis, leader)
    finally:
        for path in paths:
            network.mend(*path)


async def transfer(nemesis: Nemesis, node_id: int, to_id: int | None) -> None:
    async def call(process: Process) -> object:
        return await process.consensus.transfer_leadership(to_id)

    try:
        await nemesis.cluster.ask(node_id, call, 1.0)
    except RequestError as error:
        nemesis.cluster.note(f"transfer from node {node_id} to {to_id}: {type(error).__name__}")


async def transfers_in_a_loop(nemesis: Nemesis, source: random.Random) -> None:
    """To the next, to a lagging or dead node, to itself, to nobody."""
    for _ in range(source.randint(2, 8)):
        leader = nemesis.leader(source)
        targets = [None, leader.node_id, 99, *nemesis.cluster.machines, *nemesis.cluster.machines]
        await transfer(nemesis, leader.node_id, source.choice(targets))
        await asyncio.sleep(0.3 * source.random())


MEMBERSHIP_FAULTS: dict[str, Inflict] = {
    "remove follower": remove_follower,
    "remove leader": remove_leader,
    "remove partitioned": remove_partitioned,
    "replace with empty disk": replace_with_empty_disk,
    "wipe the first node, alone": wipe_first_node_alone,
    "add node": add_node,
    "add two nodes at once": add_two_nodes,
    "snapshots in a loop": snapshots_in_a_loop,
    "lagging follower": lagging_follower,
    "transfers in a loop": transfers_in_a_loop,
}

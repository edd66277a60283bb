"""An operator at work: the cluster is made read-only, or its data bounded, and some time later not any more.

No harm, but what clients are told changes at one position of the log, on every node. `limit_checks.py` says what must
come of it.
"""

from __future__ import annotations

import asyncio
import random

from metasrv.model import commands as c
from metasrv.model.errors import NotDoneError, UnknownOutcomeError
from metasrv.model.types import NO_LIMITS
from verification.simulation.cluster import SimulatedCluster
from verification.simulation.machine import Process
from verification.simulation.nemesis import Inflict, Nemesis

_TIMEOUT_MS = 800
_TURNS_MAX = 3


async def read_only(nemesis: Nemesis, source: random.Random) -> None:
    """Writes are turned off and on again, up to a few times, each time through some node."""
    for turn in range(source.randint(1, _TURNS_MAX)):
        await _set(nemesis, source, c.SetReadOnly(source.choice(("", f"turn {turn}"))))
        await asyncio.sleep(source.uniform(0.01, 0.2))
        await _set(nemesis, source, c.SetReadOnly(None))
        await asyncio.sleep(source.uniform(0.01, 0.1))


async def quota(nemesis: Nemesis, source: random.Random) -> None:
    """The data may take as much as it does, or a little more or less; then any amount."""
    leader = nemesis.cluster.leader()
    if leader is None:
        return
    bytes_now = leader.state.data_size_bytes
    await _set(nemesis, source, c.SetQuota(max(1, bytes_now + source.choice((-100, 0, 5, 300)))))
    await asyncio.sleep(source.uniform(0.05, 0.4))
    await _set(nemesis, source, c.SetQuota(0))


async def take_off(cluster: SimulatedCluster, leader: Process) -> str:
    """Have the healed cluster take all writes; what is still in the way, empty when nothing is."""
    limits = leader.state.limits
    if limits == NO_LIMITS:
        return ""
    try:
        for command in (c.SetReadOnly(None), c.SetQuota(0)):
            await _ask(cluster, leader.machine.node_id, command)
    except (NotDoneError, UnknownOutcomeError) as error:
        return f"the limits are still on: {error}"
    return ""


async def _set(nemesis: Nemesis, source: random.Random, command: c.Command) -> None:
    nodes = sorted(nemesis.cluster.machines)
    node_id = nodes[source.randrange(len(nodes))]
    # A call that the end of the faults would cut off could take effect later, when nobody expects it any more.
    asked = asyncio.ensure_future(_ask(nemesis.cluster, node_id, command))
    nemesis.asked.append(asked)
    try:
        await asyncio.shield(asked)
    except (NotDoneError, UnknownOutcomeError):
        nemesis.cluster.note(f"{command} through node {node_id} was refused, or nobody knows")


async def _ask(cluster: SimulatedCluster, node_id: int, command: c.Command) -> None:
    async def call(process: Process) -> c.Reply:
        return await process.consensus.propose(command, _TIMEOUT_MS)

    reply = await cluster.ask(node_id, call, _TIMEOUT_MS / 1000 + 0.5)
    cluster.witness.count("limits set")
    if not isinstance(reply, c.LimitsReply):
        cluster.witness.violation(f"{command} was answered with {reply}")


LIMIT_FAULTS: dict[str, Inflict] = {"read-only": read_only, "quota": quota}

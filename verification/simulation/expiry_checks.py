"""Expiry at the end of a history: a lease lives for its time and not much longer, whatever the nodes' clocks say by then.

The clocks that faults have set wrong stay wrong. Nobody writes and nobody reads while the lease runs out, so that it is
the leader's tick that ends it. Runs in the world's loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from metasrv.model import commands as c
from metasrv.model.errors import NotDoneError, UnknownOutcomeError
from metasrv.model.types import SeqV
from verification.simulation.cluster import SimulatedCluster
from verification.simulation.machine import Process

KEY = "last lease"
TTL_MS = 300
ALIVE_SECONDS = 0.25
"""Within this time of its write a lease must be seen; a clock may run 5 % too fast."""
GONE_SECONDS = 2 * TTL_MS / 1000 / 0.95 + 0.5
"""After this time it must be gone: log time runs at half speed or more, clocks 5 % too slow, ticks with a pause."""
_LOOK_SECONDS = 0.02
_LEADERS_MAX = 4
_TIMEOUT_MS = 1_500
_CLIENT_SECONDS = 2.0


async def check_expiry(cluster: SimulatedCluster, members: Sequence[int]) -> None:
    """Write a lease, read it through every member, wait until it must be over, and look at what each has applied."""
    leader = cluster.leader()
    if leader is None or not members:
        return
    term, written_at = leader.consensus.replica.engine.term(), cluster.scheduler.now

    async def write(process: Process) -> c.Reply:
        command = c.Upsert(KEY, c.MatchSeq(c.MatchKind.ANY), c.Operation.UPDATE, b"1", ttl_ms=TTL_MS)
        return await process.consensus.propose(command, _TIMEOUT_MS)

    async def read(process: Process) -> SeqV | None:
        await process.consensus.read_barrier(_TIMEOUT_MS)
        return process.data.machine.get(KEY, 0)

    try:
        await cluster.ask(members[0], write, _CLIENT_SECONDS)
        for node_id in members:
            found = await cluster.ask(node_id, read, _CLIENT_SECONDS)
            in_time = cluster.scheduler.now - written_at < ALIVE_SECONDS
            now = cluster.leader()
            if found is None and in_time and now is leader and now.consensus.replica.engine.term() == term:
                cluster.witness.violation(f"node {node_id} does not show a lease that has most of its time left")
    except (NotDoneError, UnknownOutcomeError):
        return  # a member was removed by a fault that took effect only now
    for _ in range(_LEADERS_MAX):
        await asyncio.sleep(GONE_SECONDS)
        now = cluster.leader()
        if now is None:
            return
        if now is leader and now.consensus.replica.engine.term() == term:
            break
        # A leader with a wrong clock hands over; then it is for the next one to end the lease, and to tell the others.
        leader, term = now, now.consensus.replica.engine.term()
    await _wait_for_snapshot_receivers(cluster, leader, members)
    for node_id in members:
        process = cluster.machines[node_id].process
        reached = node_id == leader.consensus.node_id or leader.consensus.replica.peers.transport.is_connected(node_id)
        if not reached:
            continue  # its name has not been resolved yet, so that it could not be told
        if process is not None and process.joined and process.data.machine.get(KEY, 0) is not None:
            cluster.witness.violation(f"node {node_id} keeps a lease of {TTL_MS} ms after {GONE_SECONDS:.2f} s")
    cluster.witness.count("leases that ended in time")


async def _wait_for_snapshot_receivers(cluster: SimulatedCluster, leader: Process, members: Sequence[int]) -> None:
    """Wait for members that lack entries of the leader, as long as one may wait for the rest of a snapshot and catch up.

    The network may have doubled the first piece of a snapshot that was sent long ago. Its receiver takes no entries until
    it has waited long enough for the other pieces.
    """
    index = leader.consensus.replica.engine.commit_index()
    until = cluster.scheduler.now + cluster.tuning.install_snapshot_timeout_ms / 1000 / 0.95

    def lags(node_id: int) -> bool:
        process = cluster.machines[node_id].process
        return process is not None and process.joined and process.consensus.replica.engine.applied_index() < index

    while any(map(lags, members)) and cluster.scheduler.now < until:  # noqa: ASYNC110 - nothing tells what others apply
        await asyncio.sleep(_LOOK_SECONDS)

"""A node that needs a snapshot while the others write: what comes behind the snapshot must still be there for it."""

from __future__ import annotations

import asyncio

from metasrv.client import Transaction
from metasrv.testing.processes import ProcessCluster
from tests.conftest import StartCluster

KEYS = 60_000
KEYS_PER_TRANSACTION = 1_000
CATCH_UP_SECONDS_MAX = 45.0


async def fill(cluster: ProcessCluster, leader: int) -> None:
    async with cluster.client(leader) as client:
        for start in range(0, KEYS, KEYS_PER_TRANSACTION):
            transaction = Transaction()
            for number in range(start, start + KEYS_PER_TRANSACTION):
                transaction.put(f"table/{number:08}", b"v" * 400)
            await client.transaction(transaction)


async def write_until(cluster: ProcessCluster, leader: int, done: asyncio.Event) -> int:
    """One write after the other, each an entry of its own; how many."""
    count = 0
    async with cluster.node_client(leader, timeout_s=30) as client:
        while not done.is_set():
            await client.put("busy", str(count).encode())
            count += 1
    return count


async def test_a_node_that_gets_a_snapshot_catches_up_while_a_client_writes(start_cluster: StartCluster) -> None:
    """Checking the snapshot takes longer than this configuration keeps entries for: they were gone by then (R7)."""
    cluster = start_cluster(3, settings={"snapshot_logs_since_last": 10, "max_applied_log_to_keep": 5})
    leader = await cluster.boot()
    await fill(cluster, leader)
    wiped = next(node_id for node_id in cluster.nodes if node_id != leader)
    await cluster.kill(wiped)
    cluster.rejoin_from_scratch(wiped)
    done = asyncio.Event()
    writing = asyncio.create_task(write_until(cluster, leader, done))
    try:
        cluster.start(wiped)
        await cluster.wait_for_leader(members=3, timeout_s=CATCH_UP_SECONDS_MAX)
        await cluster.wait_for_ready(wiped, timeout_s=CATCH_UP_SECONDS_MAX)
    finally:
        done.set()
        written = await writing
    assert written > 0
    assert cluster.nodes[wiped].output().count("receiving a snapshot") == 1
    await cluster.wait_until_equal()

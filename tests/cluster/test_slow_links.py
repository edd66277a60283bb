"""Links that need longer than an election timeout for one large value: nobody is unseated by it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from metasrv.model.limits import MIB
from metasrv.protocol.proto import meta_pb2 as pb
from metasrv.testing.link import LinkFault
from metasrv.testing.network import Network, why_unavailable
from metasrv.testing.processes import ProcessCluster

pytestmark = pytest.mark.skipif(why_unavailable() is not None, reason=why_unavailable() or "available")

VALUE = bytes(15 * MIB)
HEARTBEAT_MS = 800
SLOW = LinkFault(bytes_per_second=4_000_000)
"""Nearly four seconds for the value; elections start 1.6 to 2.4 seconds after the last heartbeat."""


@pytest.fixture
async def slow() -> AsyncIterator[ProcessCluster]:
    network = Network()
    async with ProcessCluster(3, settings={"heartbeat_interval": HEARTBEAT_MS}, network=network) as cluster:
        await cluster.boot()
        yield cluster
    await network.close()


async def term(cluster: ProcessCluster, node_id: int) -> int:
    status = await cluster.status(node_id)
    assert status is not None
    return int(status["current_term"])


async def write(cluster: ProcessCluster, node_id: int) -> None:
    async with cluster.node_client(node_id, timeout_s=60) as client:
        await client.handshake()
        put = pb.TxnOp(put=pb.TxnPutRequest(key=f"large/{node_id}", value=VALUE))
        await client.transaction(pb.TxnRequest(if_then=[put]))


@pytest.mark.parametrize("towards_the_leader", [False, True])
async def test_a_value_that_takes_longer_than_an_election_timeout_changes_no_leader(
    slow: ProcessCluster, towards_the_leader: bool
) -> None:
    """From the leader to its followers, and from clients of both followers to the leader."""
    assert slow.network is not None
    leader = await slow.wait_for_leader()
    followers = [node_id for node_id in slow.nodes if node_id != leader]
    before = await term(slow, leader)
    links = [(node_id, leader) if towards_the_leader else (leader, node_id) for node_id in followers]
    slow.network.harm(SLOW, links)
    writers = followers if towards_the_leader else [leader]
    await asyncio.gather(*(write(slow, node_id) for node_id in writers))
    slow.network.heal()
    assert slow.network.strikes["throttled"] > 0
    assert await slow.wait_for_leader() == leader
    assert await term(slow, leader) == before

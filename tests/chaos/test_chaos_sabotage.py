"""Clusters that are made to break their promises: the checks must notice, or their silence proves nothing."""

from __future__ import annotations

import random
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from metasrv.client import Transaction
from metasrv.model.commands import TransactionReply
from metasrv.testing.network import Network, why_unavailable
from metasrv.testing.processes import ProcessCluster
from metasrv.testing.store import PinnedStore, Store
from tests.conftest import StartCluster
from verification.chaos import CLIENT_TIMEOUT_SECONDS, SETTINGS, OpenStores, Round, open_stores, run_round
from verification.nemesis import Fault
from verification.nemesis.fault import Harm
from verification.nemesis.network_faults import isolate_follower
from verification.nemesis.process_faults import pause_follower
from verification.timeline import timeline_html

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(240),
    pytest.mark.skipif(why_unavailable() is not None, reason=str(why_unavailable())),
]


class StaleStore(PinnedStore):
    """Reads what its node happens to have, without asking a quorum."""

    read_metadata = PinnedStore.STALE


class RepeatingStore(PinnedStore):
    """Sends every seventh write twice, as a client would that repeats what may have been done."""

    _count = 0

    async def _send(self, transaction: Transaction) -> TransactionReply:
        self._count += 1
        if self._count % 7 == 0:
            await super()._send(transaction)
        return await super()._send(transaction)


def opened(kind: type[PinnedStore]) -> OpenStores:
    @asynccontextmanager
    async def open_some(cluster: ProcessCluster, count: int) -> AsyncIterator[Sequence[Store]]:
        nodes = sorted(cluster.nodes)
        async with AsyncExitStack() as stack:
            endpoints = [cluster.nodes[nodes[number % len(nodes)]].grpc for number in range(count)]
            yield [await stack.enter_async_context(kind(one, CLIENT_TIMEOUT_SECONDS)) for one in endpoints]

    return open_some


async def roll_back_disks(cluster: ProcessCluster, source: random.Random) -> None:
    """All nodes lose power, and their disks the latest syncs: each is replaced by an older copy."""
    copies = {node_id: node.directory / "older" for node_id, node in cluster.nodes.items()}
    await cluster.kill(*cluster.nodes)
    for node_id, copy in copies.items():
        shutil.copytree(cluster.nodes[node_id].raft_dir, copy)
        cluster.start(node_id)
    leader = await cluster.wait_for_leader(members=3)
    async with cluster.node_client(leader) as client:
        before = await client.put("between", b"1")
        while await client.put("between", b"1") < before + 500:
            continue
    await cluster.kill(*cluster.nodes)
    for node_id, copy in copies.items():
        shutil.rmtree(cluster.nodes[node_id].raft_dir)
        copy.rename(cluster.nodes[node_id].raft_dir)
        cluster.start(node_id)


async def run(start_cluster: StartCluster, fault: Fault, open_stores: OpenStores = open_stores) -> Round:
    network = Network(1)
    cluster = start_cluster(3, settings=SETTINGS, network=network)
    try:
        await cluster.boot()
        return await run_round(cluster, fault, 1, open_stores=open_stores)
    finally:
        cluster.close()
        await network.close()


@pytest.mark.parametrize("harm", [isolate_follower, pause_follower])
async def test_stale_reads_are_noticed(start_cluster: StartCluster, harm: Harm, tmp_path: Path) -> None:
    one = await run(start_cluster, Fault("stale reads", harm), open_stores=opened(StaleStore))
    assert one.failure is None
    assert one.violations
    stale = one.violations[0]
    assert stale.culprit.name in ("read", "read_all")
    assert len(stale.core.operations) < 30
    (tmp_path / "violation.html").write_text(timeline_html(stale))
    assert "cannot be explained" in str(stale)


async def test_lost_writes_are_noticed(start_cluster: StartCluster) -> None:
    one = await run(start_cluster, Fault("disks rolled back", roll_back_disks))
    assert one.failure is None
    assert any("is missing" in problem for problem in one.problems)
    assert one.violations
    assert any("sequence number" in problem or "was sent after write" in problem for problem in one.problems)


async def test_repeated_writes_are_noticed(start_cluster: StartCluster) -> None:
    one = await run(start_cluster, Fault("repeating clients", pause_follower), open_stores=opened(RepeatingStore))
    assert one.failure is None
    assert any("is stored 2 times" in problem for problem in one.problems)
    assert any(violation.key.startswith("counter/") for violation in one.violations)

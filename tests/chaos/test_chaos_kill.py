"""kill -9 under sixteen writers: every acknowledged write is there once, and service is back quickly."""

from __future__ import annotations

import statistics
import time

import pytest

from metasrv.testing.processes import ProcessCluster
from metasrv.testing.workload import Workload
from tests.conftest import RecordProperty
from verification.chaos import find_problems, open_stores

WRITERS = 16
LEADER_KILLS = 10
CLUSTER_KILLS = 5
WRITES_BETWEEN = 100


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.long
async def test_kill_the_leader_ten_times_and_all_nodes_five_times_under_writers(
    cluster: ProcessCluster, record_property: RecordProperty
) -> None:
    gaps = []
    async with open_stores(cluster, WRITERS) as stores, Workload(stores) as workload:
        for _ in range(LEADER_KILLS):
            await workload.wait_for_writes(WRITES_BETWEEN)
            leader = await cluster.wait_for_leader(members=3)
            killed_at = time.monotonic()
            await cluster.kill(leader)
            await cluster.wait_for_leader(other_than=leader)
            await workload.wait_for_writes(WRITES_BETWEEN)
            gaps.append(workload.record.gap_around(killed_at))
            cluster.start(leader)
        after_leaders = len(workload.record.appended)
        for number in range(CLUSTER_KILLS):
            await cluster.wait_for_leader(members=3)
            await workload.wait_for_writes(WRITES_BETWEEN)
            await cluster.kill(1, 2, 3)
            for node_id in ((1, 2, 3), (3, 2, 1), (2, 3, 1))[number % 3]:
                cluster.start(node_id)
        await cluster.wait_for_leader(members=3)
        await workload.wait_for_writes(WRITES_BETWEEN)
    record = workload.record
    record_property(
        "measured",
        f"failover: median {statistics.median(gaps):.2f} s, worst {max(gaps):.2f} s of {LEADER_KILLS} "
        f"({', '.join(f'{gap:.2f}' for gap in gaps)}); {after_leaders} records appended by then, "
        f"{len(record.appended)} in all, {record.unknown} unknown outcomes",
    )
    assert await find_problems(cluster, record) == []
    assert len(record.appended) > (LEADER_KILLS + CLUSTER_KILLS) * WRITES_BETWEEN // 4

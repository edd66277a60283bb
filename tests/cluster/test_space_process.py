"""Space comes back on a node that serves: the files of state and log get short after large values were deleted."""

from __future__ import annotations

import pytest

from metasrv.model.limits import MIB
from metasrv.testing.processes import ProcessCluster
from tests.conftest import StartCluster

VALUES = 48


def size_of(cluster: ProcessCluster, name: str) -> int:
    (path,) = cluster.nodes[1].raft_dir.rglob(name)
    return path.stat().st_size


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_files_get_short_after_large_values_were_deleted(start_cluster: StartCluster) -> None:
    cluster = start_cluster(1, settings={"snapshot_logs_since_last": 20, "max_applied_log_to_keep": 5})
    await cluster.boot()
    async with cluster.client() as client:
        for at in range(VALUES):
            await client.upsert(f"large/{at:02}", bytes([at]) * MIB)
        await cluster.wait_until(lambda: size_of(cluster, "state.db") > VALUES * MIB // 2, "the state to be moved")
        most_bytes = size_of(cluster, "raft.db")
        assert most_bytes > 16 * MIB
        for at in range(VALUES):
            await client.delete(f"large/{at:02}")
        for at in range(30):
            await client.upsert(f"small/{at:02}", b"v")
        # The last write is over: what follows happens on an idle node.
        await cluster.wait_until(lambda: size_of(cluster, "raft.db") < 6 * MIB, "the log to get short", 60)
        await cluster.wait_until(lambda: size_of(cluster, "state.db") < 3 * MIB, "the state to get short", 60)
        assert len(await client.list_prefix("")) == 30
    await cluster.restart(1)
    async with cluster.client() as client:
        assert len(await client.list_prefix("")) == 30

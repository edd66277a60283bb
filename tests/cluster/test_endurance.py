"""Under steady load nothing of a node grows without bound: files, descriptors, threads, memory."""

from __future__ import annotations

import asyncio
import time

import pytest

from metasrv.model.limits import MIB
from metasrv.protocol.proto import meta_pb2 as pb
from metasrv.testing.processes import ProcessCluster
from tests.conftest import RecordProperty, StartCluster
from verification.endurance import Endurance, report

WRITERS = 16
KEYS = 800
WRITE_SECONDS = 60.0
SOAK_SECONDS = 75.0
PAUSES = "metasrv_raft_applying_paused_seconds_count"
FILE_SIZE = 'metasrv_node_file_size_bytes{file="state_write_ahead_log"}'
STATE_LOG_SIZE_BYTES_MAX = 64 * MIB
"""Four times what is written between two restarts of it; without them this load leaves 150 to 500 MB."""


async def write(cluster: ProcessCluster, leader: int, number: int, until: float) -> int:
    """One client: its share of the keys, one after the other, as fast as it is answered; how many."""
    count = 0
    async with cluster.node_client(leader, timeout_s=30) as client:
        while time.monotonic() < until:
            put = pb.TxnPutRequest(key=f"key/{(number + count * WRITERS) % KEYS:06}", value=b"v" * 256)
            await client.transaction(pb.TxnRequest(if_then=[pb.TxnOp(put=put)]))
            count += 1
    return count


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_steady_writes_leave_a_small_log(cluster: ProcessCluster, record_property: RecordProperty) -> None:
    leader = await cluster.wait_for_leader()
    until = time.monotonic() + WRITE_SECONDS
    writing = asyncio.gather(*(write(cluster, leader, number, until) for number in range(WRITERS)))
    logs = {node_id: node.raft_dir / "df_meta/V004/state/state.db-wal" for node_id, node in sorted(cluster.nodes.items())}
    largest = dict.fromkeys(logs, 0)
    while not writing.done():
        await asyncio.sleep(0.2)
        for node_id, path in logs.items():
            largest[node_id] = max(largest[node_id], path.stat().st_size)
    written = sum(await writing)
    record_property("measured", f"{written} writes; largest write-ahead logs {largest}")
    code, page = await cluster.admin(leader, "/v1/metrics")
    assert code == 200
    samples = dict(line.rsplit(" ", 1) for line in page.splitlines() if line and not line.startswith("#"))
    assert float(samples[PAUSES]) >= 1, "the log has never begun anew: nothing was tried"
    assert max(largest.values()) < STATE_LOG_SIZE_BYTES_MAX
    assert float(samples[FILE_SIZE]) == logs[leader].stat().st_size


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_nothing_grows_under_a_mixed_load(start_cluster: StartCluster, record_property: RecordProperty) -> None:
    """A short pass of `make soak`."""
    cluster = start_cluster(3)
    await cluster.boot()
    endurance = Endurance(cluster)
    await endurance.run(SOAK_SECONDS)
    lines, problems = report(endurance)
    print("\n".join(lines))
    record_property("measured", lines[0])
    assert problems == []
    for kind in ("put", "transaction", "lease", "large", "delete", "get", "list", "export", "watch", "snapshot"):
        assert endurance.done[kind] > 0, f"no {kind} succeeded: nothing was tried"

"""Memory that large reads needed goes back to the system once they are over."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from metasrv.model.limits import MIB
from metasrv.testing.processes import ProcessCluster
from tests.conftest import StartCluster

VALUES = 16
VALUE_SIZE_BYTES = 8 * MIB
CLIENTS = 24
IN_USE_SIZE_BYTES = (64 + 64 + 40) * MIB
"""What a node with large values may go on using: SQLite's page cache, the raft log in memory, and something beside."""


def memory_of(cluster: ProcessCluster, name: str) -> int:
    """A line of the node's status in /proc, in bytes."""
    process = cluster.nodes[1].process
    assert process is not None
    lines = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(180)
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the size")
async def test_large_reads_leave_no_unused_memory(start_cluster: StartCluster) -> None:
    """Before memory was given back, 300 to 460 MiB stayed of up to 775."""
    cluster = start_cluster(1)
    await cluster.boot()
    base_bytes = memory_of(cluster, "VmRSS")
    async with cluster.client(timeout_ms=60_000) as client:
        for at in range(VALUES):
            await client.upsert(f"large/{at:02}", bytes([at]) * VALUE_SIZE_BYTES)

    async def read(first: int) -> None:
        async with cluster.client(timeout_ms=60_000) as client:
            for at in range(first, first + VALUES):
                record = await client.get(f"large/{at % VALUES:02}")
                assert record is not None
                assert record.data[-1] == at % VALUES

    await asyncio.gather(*map(read, range(CLIENTS)))
    most_bytes = memory_of(cluster, "VmHWM")
    assert most_bytes > base_bytes + IN_USE_SIZE_BYTES, "the reads needed much"
    await cluster.wait_until(
        lambda: memory_of(cluster, "VmRSS") < base_bytes + IN_USE_SIZE_BYTES, "unused memory to be given back"
    )
    assert "unused memory are given back" in cluster.nodes[1].output()

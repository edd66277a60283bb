"""What runs in a node: not gRPC's core, whose threads and handling of forks crashed children (tests/BUGS.md N4)."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from metasrv.testing.processes import ProcessCluster

CORE_NAMES = ("event_engine", "grpc", "default-exec", "timer_manager", "poller")
"""How the names of that library's threads begin."""


def threads_of(pid: int) -> list[str]:
    return sorted(task.read_text().strip() for task in Path(f"/proc/{pid}/task").glob("*/comm"))


async def test_no_thread_of_the_grpc_core_runs_in_a_node(cluster: ProcessCluster) -> None:
    """So a fork, which each CPU profile by py-spy begins with, meets no thread that holds a lock of that library."""
    async with cluster.client() as client:
        await client.upsert("key", b"value")
        assert any("key" in line for line in [line async for line in client.export()])
        profiling = asyncio.create_task(cluster.admin(1, "/debug/pprof/profile?seconds=1&format=folded", 60))
        while not profiling.done():  # an idle node may be asleep in every sample
            await client.upsert("key", b"value")
        code, body = await profiling
        assert (code, bool(body)) == (200, True)
        ours = set(threads_of(os.getpid()))
    processes = {node_id: node.process.pid for node_id, node in cluster.nodes.items() if node.process is not None}
    assert len(processes) == 3
    core = {name for name in ours if name.startswith(CORE_NAMES)}
    assert core, f"this process calls through that library, but its threads are {sorted(ours)}"
    for pid in processes.values():
        assert [name for name in threads_of(pid) if name in core or name.startswith(CORE_NAMES)] == []

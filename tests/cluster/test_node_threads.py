"""What runs in a node: the threads that ARCHITECTURE.md section 1 lists, and no other.

Above all not those of gRPC's core, whose handling of forks crashed children (tests/BUGS.md N4).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import time
from pathlib import Path

import grpc
import pytest

from metasrv.testing.processes import ProcessCluster
from tests.support.paths import ROOT

CORE_NAMES = ("event_engine", "grpc_", "default-exec", "timer_manager", "poller")
"""How the names of that library's threads begin."""
OWN_NAMES = re.compile(
    r"log-writer|raft-log|state|snapshot|grpc-reader_0|gateway-views_0|backup|inflate_0|helper_\d+|dispose|libuv-worker|profiler"
)
"""The threads of a node besides the main one."""


def threads_of(pid: int) -> list[str]:
    """The names of a process's threads, without the main one."""
    names = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        if task.name == str(pid):
            continue
        with contextlib.suppress(OSError):  # it ended meanwhile
            name = (task / "comm").read_text().strip()
            for _ in range(50):  # a thread has the name of its process until it has given itself its own
                if name != (Path(f"/proc/{pid}/comm").read_text().strip()):
                    break
                time.sleep(0.01)
                name = (task / "comm").read_text().strip()
            names.append(name)
    return sorted(names)


def unexpected(names: list[str]) -> list[str]:
    return [name for name in names if not OWN_NAMES.fullmatch(name)]


async def send_compressed(cluster: ProcessCluster, node_id: int) -> None:
    """One compressed request; it lacks a token, but is decompressed before that is noticed."""
    async with grpc.aio.insecure_channel(str(cluster.nodes[node_id].grpc), compression=grpc.Compression.Gzip) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/meta.MetaService/Transaction")(bytes(10_000))
    assert caught.value.code() in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.INVALID_ARGUMENT)


async def test_only_the_threads_that_the_architecture_lists_run_in_a_node(cluster: ProcessCluster) -> None:
    """So a fork, which each CPU profile by py-spy begins with, meets no thread that holds a lock of a foreign library."""
    async with cluster.client() as client:
        await client.upsert("key", b"value")
        assert any("key" in line for line in [line async for line in client.export()])
        leader = await cluster.wait_for_leader()
        await send_compressed(cluster, leader)
        assert (await cluster.admin(leader, "/readyz"))[0] == 200
        assert (await cluster.admin(leader, "/v1/ctrl/trigger_snapshot"))[0] == 200
        profiling = asyncio.create_task(cluster.admin(leader, "/debug/pprof/profile?seconds=1&format=folded", 60))
        seen: set[str] = set()
        processes = {node_id: node.process.pid for node_id, node in cluster.nodes.items() if node.process is not None}
        while not profiling.done():  # an idle node may be asleep in every sample
            await client.upsert("key", b"value")
            for pid in processes.values():
                seen.update(threads_of(pid))
        code, body = await profiling
        assert (code, bool(body)) == (200, True)
        callers = threads_of(os.getpid())
    assert len(processes) == 3
    assert unexpected(sorted(seen)) == []
    assert {"log-writer", "raft-log", "snapshot", "grpc-reader_0", "inflate_0", "helper_0", "profiler"} <= seen
    assert any(name.startswith(CORE_NAMES) for name in callers), "this process calls through gRPC's core"
    assert any(name.startswith(CORE_NAMES) for name in unexpected(callers)), "its threads would be noticed in a node"


def test_the_architecture_lists_these_threads() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    names = (
        "log-writer",
        "raft-log",
        "snapshot",
        "grpc-reader",
        "inflate",
        "helper",
        "dispose",
        "libuv-worker",
        "profiler",
    )
    for name in names:
        assert f"| `{name}" in text
    assert unexpected(["raft-log", "rogue", "helper_12", "python"]) == ["rogue", "python"]

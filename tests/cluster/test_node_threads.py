"""Which threads run in a node: those of ARCHITECTURE.md section 1, and none of gRPC's core (tests/BUGS.md N4)."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from pathlib import Path

from metasrv.testing.processes import ProcessCluster
from tests.conftest import StartCluster
from tests.support.paths import ROOT

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


RECORDER = """
import atexit, json, runpy, sys, threading

started, start = [], threading.Thread.start

def recorded(thread):
    started.append(thread)
    start(thread)

threading.Thread.start = recorded
output, module, sys.argv = sys.argv[1], sys.argv[4], sys.argv[4:]
atexit.register(lambda: open(output, "w").write(json.dumps([thread.name for thread in started])))
runpy.run_module(module, run_name="__main__")
"""
"""Runs `python -m MODULE ...`, which follows the output file in its arguments, and writes the names of all threads.

The thread that `asyncio.run` starts at the end, to shut the executor down, is not the node's.
"""


async def test_every_thread_of_a_node_is_in_the_architecture(start_cluster: StartCluster, tmp_path: Path) -> None:
    cluster, names_file = start_cluster(1), tmp_path / "names.json"
    cluster.start(1, wrapper=[sys.executable, "-c", RECORDER, str(names_file)])
    await cluster.wait_for_leader(members=1)
    async with cluster.client() as client:
        await client.upsert("key", b"value")
        assert any("key" in line for line in [line async for line in client.export()])
    for path in ("/readyz", "/v1/ctrl/trigger_snapshot", "/debug/pprof/profile?seconds=1&format=svg"):
        code, _ = await cluster.admin(1, path, 60)
        assert code == 200, path
    await cluster.stop(1)
    names = {name.split("_")[0] for name in json.loads(names_file.read_text()) if "_do_shutdown" not in name}
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    table = text[text.index("| thread | does |") :].partition("\n\n")[0]
    described = set(re.findall(r"^\| `([a-z-]+)`", table, re.MULTILINE))
    assert described - {"metasrv-dispose"} == names, "a node without a snapshot from its leader disposes of nothing"

"""A leader whose wall clock is set wrong while it runs: it warns, and hands leadership to a node with a right clock.

The clock is set by a module that Python loads at the start of a node: it adds what a file says to the system's time.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from metasrv.testing.processes import ProcessCluster
from tests.conftest import StartCluster
from tests.support.grpc_wire import Wire

pytestmark = pytest.mark.xdist_group("wrong-clock")

HOUR_MS = 3_600_000
TTL_MS = 1_000
HOOK = """
import os, time
real = time.time_ns

def time_ns():
    try:
        with open(os.environ["CLOCK_OFFSET_MS_FILE"]) as file:
            return real() + int(file.read() or 0) * 1_000_000
    except FileNotFoundError:
        return real()

time.time_ns = time_ns
"""


def set_clock(directory: Path, node_id: int, offset_ms: int) -> None:
    new = directory / f"clock-{node_id}.new"
    new.write_text(str(offset_ms))
    new.rename(directory / f"clock-{node_id}")


@pytest.mark.parametrize("offset_ms", [HOUR_MS, -HOUR_MS], ids=["ahead", "behind"])
async def test_a_leader_with_a_wrong_clock_hands_over(
    start_cluster: StartCluster, tmp_path: Path, offset_ms: int
) -> None:
    (tmp_path / "sitecustomize.py").write_text(HOOK)
    cluster: ProcessCluster = start_cluster(3, settings={"heartbeat_interval": 200})
    await cluster.open_network()
    for node_id in cluster.nodes:
        hook = {"PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}"}
        cluster.start(node_id, **hook, CLOCK_OFFSET_MS_FILE=str(tmp_path / f"clock-{node_id}"))
    wrong = await cluster.wait_for_leader(members=3)
    set_clock(tmp_path, wrong, offset_ms)
    leader = await cluster.wait_for_leader(other_than=wrong)
    status = await cluster.status(wrong)
    assert status is not None
    assert abs(status["clock_offset_ms"] - offset_ms) < 1_000
    code, ready = await cluster.admin(wrong, "/readyz?verbose")
    way = "ahead of" if offset_ms > 0 else "behind"
    assert (code, way in next(line for line in ready.splitlines() if line.startswith("[!]clock warning"))) == (200, True)
    _, ready = await cluster.admin(leader, "/readyz?verbose")
    assert f"differ from this node's by more than 1000 ms: node {wrong} by " in ready
    _, console = await cluster.admin(leader, "/v1/console")
    assert f"The clock of node {wrong} is off" in console
    wire = Wire(str(cluster.nodes[wrong].grpc))
    written_at = time.monotonic()
    wire.put("lease", ttl_ms=TTL_MS)
    assert wire.get("lease") is not None, "the node with the wrong clock shows it"
    while await asyncio.to_thread(wire.get, "lease") is not None:
        assert time.monotonic() - written_at < 2 * TTL_MS / 1000 + 2.0
        await asyncio.sleep(0.05)
    assert time.monotonic() - written_at >= TTL_MS / 1000 - 0.1
    wire.close()
    status = await cluster.status(leader)
    assert status is not None
    assert status["is_leader"]

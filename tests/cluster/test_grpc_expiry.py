"""Expiry on real nodes: an event within a second though nobody asks, and the same for readers of every node."""

from __future__ import annotations

import asyncio
import time

import pytest

from metasrv.testing.processes import ProcessCluster
from tests.support.grpc_wire import Wire

pytestmark = pytest.mark.xdist_group("grpc-expiry")

TTL_MS = 400


async def test_an_expiry_in_an_idle_cluster_is_an_event_within_a_second(cluster: ProcessCluster) -> None:
    wires = {node_id: Wire(str(node.grpc)) for node_id, node in cluster.nodes.items()}
    wires[1].handshake()
    calls = {node_id: wire.watch("lease") for node_id, wire in wires.items()}
    events = {node_id: call.__enter__() for node_id, call in calls.items()}
    wires[2].put("lease", ttl_ms=TTL_MS)
    put_at = time.monotonic()
    for node_id, heard in events.items():
        assert (await asyncio.to_thread(next, heard)).event.HasField("current")
        deleted = await asyncio.wait_for(asyncio.to_thread(next, heard), 10)
        seconds = time.monotonic() - put_at
        assert not deleted.event.HasField("current")
        assert TTL_MS / 1000 - 0.1 <= seconds <= TTL_MS / 1000 + 1.0, f"node {node_id} told it after {seconds:.2f} s"
    before = {i: status["last_applied"] for i, status in (await cluster.statuses()).items() if status}
    await asyncio.sleep(1.5)
    after = {i: status["last_applied"] for i, status in (await cluster.statuses()).items() if status}
    assert after == before, "no ticks while nothing is due"
    for call in calls.values():
        call.__exit__(None, None, None)
    for wire in wires.values():
        wire.close()


async def test_readers_of_all_nodes_see_a_key_expire_once(cluster: ProcessCluster) -> None:
    """A reader goes from node to node; once one has said absent, none says present again."""
    wires = [Wire(str(node.grpc)) for node in cluster.nodes.values()]
    for turn in range(5):
        key = f"lease/{turn}"
        wires[0].put(key, ttl_ms=60)
        seen: list[bool] = []
        began_at = time.monotonic()
        while time.monotonic() - began_at < 0.25:
            for wire in wires:
                seen.append(await asyncio.to_thread(wire.get, key) is not None)
        assert seen == sorted(seen, reverse=True), "absent, then present"
        assert not seen[-1]
    for wire in wires:
        wire.close()

"""A real Prometheus reads real nodes: every documented metric is there, and a scrape is cut into steps.

Also: every metric that the contract lists moves once somebody does what it counts.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

from metasrv.cli.node_process import fetch
from metasrv.model.errors import MetasrvError
from metasrv.testing.processes import ProcessCluster
from tests.conftest import RecordProperty, StartCluster
from tests.support.grpc_wire import Wire
from tests.support.paths import ROOT
from tests.support.prometheus_server import WHY_NOT, PrometheusServer

pytestmark = [pytest.mark.long, pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))]

READ_WITHIN_SECONDS = 20.0
SCRAPES = 20
SETTINGS = {"snapshot_logs_since_last": 40, "max_applied_log_to_keep": 10}

NEVER_HERE = {
    "backup_": "no backups are configured",
    "certificate_": "there is no TLS",
    "reload": "nothing is loaded anew",
    "listener_tls_handshakes": "there is no TLS",
    "listener_descriptors_short": "there are enough descriptors",
    "learner_waiting_seconds": "there is no learner",
    "sent_failures": "no message is refused",
    "snapshot_recv_failures": "no transfer fails",
    "snapshot_send_failure": "no transfer fails",
    "raft_store_read_failed": "the disk works",
    "raft_store_write_failed": "the disk works",
    "fail_connect_to_peer": "the peers may all be there in time",
}
"""Families without a sample here, by a part of their names, and why; unit tests move each of them."""

ALWAYS_ZERO = {
    "metasrv_server_snapshot_index_size": "a snapshot file has no separate index",
    "metasrv_server_snapshot_read_block": "nothing is read from snapshot files",
    "metasrv_server_snapshot_read_block_from_cache": "nothing is read from snapshot files",
    "metasrv_server_snapshot_read_block_from_disk": "nothing is read from snapshot files",
}
ZERO_IN_HEALTH = re.compile(
    r"(fail|refused|stall|slow_step|damaged|differs|removed|drained|read_only|quota|other_cluster|lag_entries|pending"
    r"|inflight|building|applying_snapshot|short|watchers|offset_seconds|ahead_seconds|learners|paused|connections"
    r"|contact_age|scrubs|expire_index_count|healthcheck|checkpoint)"
)
"""What counts faults, or what is under way, and may be zero on a healthy node."""


def documented() -> set[str]:
    """Every family of docs/reference/metrics.md."""
    return set(re.findall(r"^\| `([a-z_]+)`", (ROOT / "docs/reference/metrics.md").read_text(), re.MULTILINE))


async def use_everything(cluster: ProcessCluster) -> None:
    """Requests of every kind on every node, a snapshot that a new node gets, elections, a watch, a list."""
    leader = await cluster.wait_for_leader()
    for node_id in cluster.nodes:
        async with cluster.client(node_id) as client:
            for number in range(30):
                await client.upsert(f"key/{node_id}/{number}", b"v" * 100, ttl_ms=600_000)
            await client.get("key/1/0")
            await client.get_many(["key/1/0", "key/2/0"])
            await client.list_prefix("key/")
            watch = client.watch("key/", "key0", initial_flush=True)
            await anext(watch)
            await watch.aclose()
            with pytest.raises(MetasrvError):
                await client.get_many(["k" * 100_000])
    await cluster.admin(leader, "/v1/ctrl/trigger_snapshot")
    cluster.start(cluster.add_node())
    await cluster.wait_for_leader(members=4)
    await cluster.admin(leader, "/v1/ctrl/trigger_transfer_leader")
    await cluster.wait_for_leader(other_than=leader)
    async with cluster.client() as client:
        await client.upsert("last", b"v")
    wire = Wire(str(cluster.nodes[leader].grpc))
    assert await asyncio.to_thread(wire.get, "last") is not None
    wire.close()


async def pages(cluster: ProcessCluster) -> dict[str, float]:
    """The largest value of each sample's name over all nodes."""
    largest: dict[str, float] = {}
    for node_id in cluster.nodes:
        _, page = await cluster.admin(node_id, "/v1/metrics")
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                largest[sample.name] = max(largest.get(sample.name, sample.value), sample.value)
    return largest


def not_moved(shown: dict[str, float]) -> list[str]:
    """Families of the documents that are missing, or zero without a reason."""
    found = []
    for family in sorted(documented()):
        if any(part in family for part in NEVER_HERE) or family in ALWAYS_ZERO:
            continue
        value = max(shown.get(name, -1.0) for name in (family, f"{family}_count", f"{family}_total"))
        if value < 0 or (value == 0 and not ZERO_IN_HEALTH.search(family)):
            found.append(family)
    return found


async def test_every_documented_metric_moves_and_prometheus_reads_it(
    start_cluster: StartCluster, record_property: RecordProperty
) -> None:
    cluster = start_cluster(3, settings=SETTINGS)
    await cluster.boot()
    await use_everything(cluster)
    deadline = time.monotonic() + READ_WITHIN_SECONDS
    while still := not_moved(await pages(cluster)):
        assert time.monotonic() < deadline, still
        await asyncio.sleep(0.2)
    targets = [str(node.admin) for node in cluster.nodes.values()]
    async with PrometheusServer(cluster.directory, targets) as prometheus:
        expected = {name for name in documented() if not any(part in name for part in NEVER_HERE)}
        deadline = time.monotonic() + READ_WITHIN_SECONDS
        while True:
            names = await prometheus.names()
            missing = {name for name in expected if not {name, f"{name}_count"} & names}
            if not missing and await prometheus.targets_up() == len(targets):
                break
            assert time.monotonic() < deadline, missing
            await asyncio.sleep(0.2)
        assert await prometheus.value("count(count by (cluster_id, cluster_name) (metasrv_cluster_info))") == 1
    slow, took = await scrape_steps(cluster, next(iter(cluster.nodes)))
    record_property("measured", f"{SCRAPES} scrapes: {took:.0f} steps of the loop, {slow:.0f} of them slow")
    assert took >= 3 * SCRAPES, "a scrape is cut into steps; how long they take is tested in tests/unit/metrics/"
    lints(cluster)


async def scrape_steps(cluster: ProcessCluster, node_id: int) -> tuple[float, float]:
    """How many slow steps, and how many steps at all, the scrapes took."""

    async def count() -> tuple[float, float]:
        _, page = await cluster.admin(node_id, "/v1/metrics")
        lines = dict(line.rsplit(" ", 1) for line in page.splitlines() if line and not line.startswith("#"))
        label = '{work="admin_request"}'
        return (
            float(lines[f"metasrv_loop_slow_steps_total{label}"]),
            float(lines[f"metasrv_loop_step_seconds_count{label}"]),
        )

    await cluster.admin(node_id, "/v1/metrics")
    slow_before, before = await count()
    for _ in range(SCRAPES):
        await cluster.admin(node_id, "/v1/metrics")
    slow, now = await count()
    return slow - slow_before, now - before


COMPATIBLE_NAMES = ("metasrv_server_", "metasrv_meta_network_", "metasrv_raft_network_", "metasrv_raft_storage_")


def lints(cluster: ProcessCluster) -> None:
    """promtool has nothing to say of our own names; the compatible ones are as upstream made them."""
    node = next(iter(cluster.nodes.values()))
    _, page = fetch(f"http://{node.admin}/v1/metrics", 5.0)
    told = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, check=False)
    complaints = (told.stdout + told.stderr).decode().splitlines()
    assert [line for line in complaints if line and not line.startswith(COMPATIBLE_NAMES)] == []

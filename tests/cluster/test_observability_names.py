"""Every metric that an alert or a dashboard names is on the page of a running node."""

from __future__ import annotations

import asyncio
import time

from prometheus_client.parser import text_string_to_metric_families

from metasrv.testing.processes import ProcessCluster
from tests.support.observability_files import metric_names

SHOWN_FOR_A_REASON = {
    "metasrv_raft_learner_waiting_seconds",
    "metasrv_certificate_expiry_timestamp_seconds",
    "metasrv_reload_failed",
    "metasrv_backup_failing",
    "metasrv_backup_interval_seconds",
    "metasrv_backup_last_success_timestamp_seconds",
    "metasrv_listener_descriptors_short_total",
    "metasrv_raft_network_snapshot_recv_success_total",
    "metasrv_raft_network_snapshot_send_failure_total",
    "metasrv_raft_network_snapshot_send_success_total",
}
"""Metrics of what this cluster does not have: a learner that never caught up, certificates, backups, transfers of
snapshots; others see them."""


async def test_alerts_and_dashboards_name_metrics_that_exist(cluster: ProcessCluster) -> None:
    async with cluster.client() as client:
        await client.upsert("key", b"value")
        await client.get("key")
    leader = await cluster.wait_for_leader()
    await cluster.admin(leader, "/readyz")
    deadline = time.monotonic() + 10
    while True:  # clocks are measured within the first second
        code, page = await cluster.admin(leader, "/v1/metrics")
        assert code == 200
        if "metasrv_node_clock_offset_seconds " in page or time.monotonic() > deadline:
            break
        await asyncio.sleep(0.1)
    samples = {sample.name for family in text_string_to_metric_families(page) for sample in family.samples}
    samples |= SHOWN_FOR_A_REASON
    used = metric_names()
    assert len(used) > 20
    assert used - samples == set()

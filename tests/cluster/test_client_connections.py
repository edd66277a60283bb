"""Clients that leak connections take the descriptors that are theirs, and nothing of what the node itself needs."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from metasrv.grpc_api.http2.frames import PREFACE, settings
from metasrv.testing.processes import ProcessCluster
from tests.conftest import StartCluster

OPEN_FILES = 256
CONNECTIONS = OPEN_FILES // 2
"""That a node leaves to clients, when it may open so few files."""
OF_ONE_ADDRESS = CONNECTIONS // 2
LEAKED_CONNECTIONS = 300
GREETING = PREFACE + settings({})


@pytest.fixture
def leak() -> Iterator[list[socket.socket]]:
    """Connections that stay open until the end of the test."""
    leaked: list[socket.socket] = []
    yield leaked
    for connection in leaked:
        connection.close()


async def test_leaked_connections_take_neither_peers_nor_probes_nor_files_from_a_node(
    start_cluster: StartCluster, leak: list[socket.socket]
) -> None:
    cluster: ProcessCluster = start_cluster(3)
    limited = ["prlimit", f"--nofile={OPEN_FILES}:{OPEN_FILES}"]
    for node_id in cluster.nodes:
        cluster.start(node_id, wrapper=limited)
    leader = await cluster.wait_for_leader(members=3)
    await cluster.wait_for_ready()
    for node in cluster.nodes.values():
        for _ in range(LEAKED_CONNECTIONS):
            leak.append(socket.create_connection((node.grpc.addr, node.grpc.port)))
            with contextlib.suppress(ConnectionError):  # refused, as some have to be
                leak[-1].sendall(GREETING)

    for node_id in cluster.nodes:
        assert (await cluster.admin(node_id, "/readyz"))[0] == 200
        _, page = await cluster.admin(node_id, "/v1/metrics")
        values = {
            sample.name: sample.value
            for family in text_string_to_metric_families(page)
            for sample in family.samples
            if sample.name.startswith("metasrv_grpc_connections")
        }
        assert values == {
            "metasrv_grpc_connections": OF_ONE_ADDRESS,
            "metasrv_grpc_connections_refused_total": LEAKED_CONNECTIONS - OF_ONE_ADDRESS,
        }
    assert (await cluster.admin(leader, "/v1/ctrl/trigger_snapshot"))[0] == 200
    await cluster.wait_for_statuses(lambda statuses: statuses[leader]["snapshot_last_log_id"] is not None, "a snapshot")
    # A peer that comes back has to be dialled, by nodes with not one connection left for clients.
    follower = next(node_id for node_id in cluster.nodes if node_id != leader)
    await cluster.kill(follower)
    cluster.start(follower, wrapper=limited)
    await cluster.wait_for_leader(members=3)
    await cluster.wait_for_ready(follower)
    async with cluster.client(follower) as client:
        await client.upsert("key", b"value")

    output = cluster.nodes[leader].output
    await cluster.wait_until(lambda: f"the limit is {CONNECTIONS}" in output(), "a line about the refusals")
    async with cluster.client(leader) as client:
        assert await client.get("key"), "an idle connection gives way to a client"
    assert f"may have {OPEN_FILES} files and connections open, so clients get {CONNECTIONS} connections" in output()
    for connection in leak:
        connection.close()
    async with cluster.client(leader) as client:
        record = await client.get("key")
    assert record is not None
    assert record.data == b"value"

"""Nodes with gateways: what a kill or a stop of a gateway costs, what its node shows, and what ends with what.

`METASRV_GRPC_GATEWAYS=2 pytest tests/cluster/test_grpc_cluster.py` and its neighbours run the tests of the client port
against such nodes; the last test here does so.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from metasrv.client import AsyncClient
from metasrv.model.errors import InvalidRequestError
from metasrv.model.passwords import hash_password
from metasrv.testing.processes import ProcessCluster
from tests.support.collector import Collector
from tests.support.paths import ROOT

GATEWAYS = 2
WRITES = 'metasrv_grpc_requests_total{kind="write"}'
TOGETHER = (
    "tests/cluster/test_grpc_cluster.py",
    "tests/cluster/test_grpc_handshake.py",
    "tests/cluster/test_grpc_watch_cluster.py",
    "tests/cluster/test_grpc_export.py",
    "tests/cluster/test_grpc_expiry.py",
    "tests/cluster/test_grpc_leaders.py",
    "tests/cluster/test_users_cluster.py",
)
ONE_PROCESS = "not ten_thousand_idle_watchers"
"""A share of one address is a share of one gateway: ten thousand watchers of one connection are too many for it."""


def gateways_of(node: int) -> list[int]:
    """Process ids of a node's gateways: what the process that its node has forked has forked in turn."""
    return [gateway for spawner in children(node) for gateway in children(spawner)]


def children(process_id: int) -> list[int]:
    try:
        return [int(text) for text in Path(f"/proc/{process_id}/task/{process_id}/children").read_text().split()]
    except FileNotFoundError:
        return []


def runs(process_id: int) -> bool:
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def figure(page: str, name: str) -> float | None:
    """A figure of a metrics page."""
    return next((float(line.split(" ")[1]) for line in page.splitlines() if line.startswith(f"{name} ")), None)


async def until(cluster: ProcessCluster, name: str, value: float) -> None:
    """Until a figure of the node's metrics page has this value."""
    deadline = time.monotonic() + 20
    while True:
        _, page = await cluster.admin(1, "/v1/metrics")
        found = figure(page, name)
        if found == value:
            return
        assert time.monotonic() < deadline, f"{name} is {found}, not {value}\n{cluster.logs(1)}"
        await asyncio.sleep(0.05)


@pytest.mark.long
async def test_a_gateway_that_is_killed_or_hangs_is_started_again_and_takes_nothing_with_it() -> None:
    async with ProcessCluster(1) as cluster:
        cluster.start(1, METASRV_GRPC_GATEWAYS=str(GATEWAYS))
        await cluster.wait_for_leader()
        await cluster.wait_for_ready()
        process = cluster.nodes[1].process
        assert process is not None
        gateways = gateways_of(process.pid)
        assert len(gateways) == GATEWAYS
        await until(cluster, "metasrv_gateways", GATEWAYS)
        async with cluster.client() as client:
            await client.upsert("k", b"1")
            os.kill(gateways[0], signal.SIGKILL)
            await until(cluster, "metasrv_gateway_restarts_total", 1)
            await until(cluster, "metasrv_gateways", GATEWAYS)
            record = await client.get("k")
            assert record is not None
            assert record.data == b"1"
            os.kill(gateways[1], signal.SIGSTOP)  # it holds its clients, but not the node
            await until(cluster, "metasrv_gateway_restarts_total", 2)
            await until(cluster, "metasrv_gateways", GATEWAYS)
            assert not runs(gateways[1])
            await client.upsert("k", b"2")
            os.kill(children(process.pid)[0], signal.SIGKILL)  # the process that forks them, and so all of them
            await until(cluster, "metasrv_gateway_restarts_total", 4)
            await until(cluster, "metasrv_gateways", GATEWAYS)
            record = await client.get("k")
            assert record is not None
            assert record.data == b"2"
            _, page = await cluster.admin(1, "/v1/metrics")
            before = figure(page, WRITES) or 0
            for _ in range(3):
                await client.upsert("k", b"3")
            await until(cluster, WRITES, before + 3)
            _, slow_writes = await cluster.admin(1, "/v1/slow-writes")
            assert '"method":"Transaction"' in slow_writes.replace(" ", "") or "KvApi" in slow_writes
        _, events = await cluster.admin(1, "/v1/events")
        assert events.count("is started again") == 4
        last = gateways_of(process.pid)
        process.send_signal(signal.SIGTERM)
        assert await cluster.wait_exit(1) == 0
        assert not any(map(runs, last))


async def test_gateways_end_with_a_node_that_is_killed() -> None:
    async with ProcessCluster(1) as cluster:
        cluster.start(1, METASRV_GRPC_GATEWAYS="1")
        await cluster.wait_for_leader()
        await cluster.wait_for_ready()
        process = cluster.nodes[1].process
        assert process is not None
        forked = [*children(process.pid), *gateways_of(process.pid)]
        assert len(forked) == 2
        await cluster.kill(1)
        await cluster.wait_until(lambda: not any(map(runs, forked)), "the gateways to end")


async def test_a_traced_write_is_followed_through_the_gateway() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with Collector() as collector:
        async with ProcessCluster(1) as cluster:
            traced = ("--tracing-otlp-endpoint", collector.url, "--tracing-sample-ratio", "0")
            cluster.start(1, *traced, METASRV_GRPC_GATEWAYS="1")
            await cluster.wait_for_leader()
            await cluster.wait_for_ready()
            async with AsyncClient([str(cluster.nodes[1].grpc)], tracer=provider.get_tracer("test")) as client:
                await client.upsert("k", b"1")
            await cluster.stop(1)
    (sent,) = exporter.get_finished_spans()
    assert sent.context is not None
    spans = [span for span in collector.spans if span.trace_id == f"{sent.context.trace_id:032x}"]
    assert len(spans) == len(collector.spans), "the ratio is 0: nothing else is traced"
    asked = next(span for span in spans if span.name == "Transaction")
    assert asked.parent_id == f"{sent.context.span_id:016x}"
    forward = next(span for span in spans if span.parent_id == asked.span_id and span.name == "forward")
    in_node = next(span for span in spans if span.parent_id == forward.span_id)
    assert {"batch", "sync", "quorum", "apply"} <= {span.name for span in spans if span.parent_id == in_node.span_id}


async def test_a_right_that_was_taken_away_is_gone_at_every_gateway_once_that_is_answered() -> None:
    async with ProcessCluster(1) as cluster, AsyncExitStack() as opened:
        secrets = {"METASRV_GRPC_PASSWORD": "sesame", "METASRV_ADMIN_TOKEN": "token"}
        cluster.start(1, METASRV_GRPC_GATEWAYS=str(GATEWAYS), **secrets)
        await cluster.wait_for_leader()
        await cluster.wait_for_ready()
        headers = {"Authorization": "Bearer token", "X-Metasrv-Action": "test"}
        address = f"http://{cluster.nodes[1].admin}"
        admin = await opened.enter_async_context(httpx.AsyncClient(base_url=address, headers=headers, timeout=20))

        async def change(change: str, **fields: str) -> None:
            answer = await admin.post("/v1/users/set", json={"change": change, "name": "app", **fields})
            assert answer.status_code == 200, answer.text

        feature = {"feature": "users", "enable": "true"}
        assert (await admin.post("/v1/features/set", params=feature)).status_code == 200
        await change("add", password_hash=await asyncio.to_thread(hash_password, "open"))
        endpoint = str(cluster.nodes[1].grpc)
        clients = [
            await opened.enter_async_context(AsyncClient([endpoint], username="app", password="open")) for _ in range(8)
        ]  # the kernel spreads them over the gateways
        for turn in range(10):
            await change("grant", right="write", prefix="app/")
            await asyncio.gather(*(client.upsert("app/k", b"%d" % turn) for client in clients))
            await change("revoke", prefix="app/")
            answers = await asyncio.gather(
                *(client.upsert("app/k", b"late") for client in clients), return_exceptions=True
            )
            assert all(isinstance(answer, InvalidRequestError) for answer in answers), answers


@pytest.mark.long
@pytest.mark.timeout(1_860)
def test_the_client_port_of_nodes_with_gateways_passes_the_same_tests() -> None:
    command = [sys.executable, "-m", "pytest", *TOGETHER, "-k", ONE_PROCESS, "-n", "2", "-q", "-p", "no:cacheprovider"]
    environment = {**os.environ, "METASRV_GRPC_GATEWAYS": str(GATEWAYS)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1_800, check=False)
    assert done.returncode == 0, done.stdout[-8_000:]

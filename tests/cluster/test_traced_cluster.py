"""One write through a cluster: its line in the logs of slow requests, and its spans from the client to the leader."""

from __future__ import annotations

import signal

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from metasrv.client import AsyncClient
from metasrv.testing.processes import ProcessCluster
from tests.support.collector import Collector


async def test_a_write_is_followed_from_the_client_through_the_follower_to_the_leader() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with Collector() as collector:
        async with ProcessCluster(2, settings={"heartbeat_interval": 1_000}) as cluster:
            for node_id in sorted(cluster.nodes):
                cluster.start(
                    node_id,
                    *("--tracing-otlp-endpoint", collector.url),
                    *("--tracing-sample-ratio", "0"),
                    *("--slow-request-ms", "1"),
                )
            leader = await cluster.wait_for_leader(members=2)
            await cluster.wait_for_ready()
            (follower,) = set(cluster.nodes) - {leader}
            endpoint = str(cluster.nodes[follower].grpc)
            async with AsyncClient([endpoint], tracer=provider.get_tracer("test")) as client:
                await client.upsert("traced/key", b"a value that no log may have" * 5_000)
            for node_id in cluster.nodes:
                await cluster.stop(node_id)
            lines = {
                node_id: [line for line in node.output().splitlines() if "slow_requests" in line and "traced/key" in line]
                for node_id, node in cluster.nodes.items()
            }
            output = "".join(node.output() for node in cluster.nodes.values())
    (sent,) = exporter.get_finished_spans()
    assert sent.context is not None
    trace_id = f"{sent.context.trace_id:032x}"
    spans = [span for span in collector.spans if span.trace_id == trace_id]
    assert len(spans) == len(collector.spans), "the ratio is 0: nothing else is traced"
    by_name = {(span.name, span.instance): span for span in spans}
    asked, forward = by_name[("Transaction", str(follower))], by_name[("forward", str(follower))]
    root = next(span for span in spans if span.instance == str(leader) and span.parent_id == forward.span_id)
    assert (asked.parent_id, forward.parent_id) == (f"{sent.context.span_id:016x}", asked.span_id)
    stages = {span.name for span in spans if span.parent_id == root.span_id}
    assert {"batch", "sync", "quorum", "apply"} <= stages
    assert asked.seconds >= forward.seconds >= root.seconds > 0.0

    (on_follower,), (on_leader,) = lines[follower], lines[leader]
    assert f"request_id={trace_id}" in on_follower
    assert f"request_id={trace_id}" in on_leader
    assert f"forwarded_to={leader}" in on_follower
    assert f"from_node={follower}" in on_leader
    assert "sync_ms=" in on_leader
    assert "a value that no log may have" not in output


async def test_the_bound_of_slow_requests_changes_while_the_node_runs() -> None:
    async with ProcessCluster(1) as cluster:
        await cluster.boot()
        await cluster.wait_for_ready()
        (node,) = cluster.nodes.values()
        text = node.config_file.read_text(encoding="utf-8")
        node.config_file.write_text("slow_request_ms = 1\n" + text, encoding="utf-8")
        cluster.send_signal(node.node_id, signal.SIGHUP)
        async with cluster.client() as client:
            for number in range(600):
                await client.upsert(f"reloaded/{number}", b"x" * 300_000)
                if "method=Transaction" in node.output():
                    break
        assert 'key="reloaded/' in node.output()

"""The console's data with real nodes: a killed and a stopped node, seen from those that are left; streams; metactl."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from metasrv.testing.processes import ProcessCluster
from tests.conftest import StartCluster
from tests.support.metactl import metactl

NAMED_WITHIN_SECONDS = 10.0


async def console(cluster: ProcessCluster, node_id: int) -> dict[str, Any]:
    code, body = await cluster.admin(node_id, "/v1/console")
    assert code == 200
    return dict(json.loads(body))


async def events(cluster: ProcessCluster, node_id: int) -> dict[str, Any]:
    code, body = await cluster.admin(node_id, "/v1/events?limit=1000")
    assert code == 200
    return dict(json.loads(body))


async def until(
    cluster: ProcessCluster, node_id: int, accept: Callable[[dict[str, Any]], bool], seconds: float = NAMED_WITHIN_SECONDS
) -> dict[str, Any]:
    """The first state of the node that is accepted."""
    deadline = time.monotonic() + seconds
    while True:
        state = await console(cluster, node_id)
        if accept(state):
            return state
        assert time.monotonic() < deadline, json.dumps(state["problems"], indent=1)
        await asyncio.sleep(0.2)


def roles(state: dict[str, Any]) -> dict[int, str]:
    return {node["id"]: node["role"] for node in state["nodes"]}


def titles(state: dict[str, Any]) -> set[str]:
    return {problem["title"] for problem in state["problems"]}


@asynccontextmanager
async def stream(cluster: ProcessCluster, node_id: int) -> AsyncIterator[asyncio.StreamReader]:
    """The body of a stream, its head read."""
    admin = cluster.nodes[node_id].admin
    reader, writer = await asyncio.open_connection(admin.addr, admin.port)
    writer.write(b"GET /v1/console/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    assert b"200 OK" in head
    assert b"application/x-ndjson" in head
    assert b"no-store" in head
    try:
        yield reader
    finally:
        writer.close()


async def lines(reader: asyncio.StreamReader) -> AsyncIterator[dict[str, Any]]:
    """Each line of a chunked body, until its end."""
    rest = b""
    while size := int(await reader.readline(), 16):
        rest += await reader.readexactly(size)
        await reader.readexactly(2)
        *whole, rest = rest.split(b"\n")
        for line in whole:
            yield json.loads(line)


async def test_a_killed_and_a_stopped_node_are_named_by_those_that_are_left(cluster: ProcessCluster) -> None:
    await cluster.wait_for_ready()
    first = await cluster.wait_for_leader()
    state = await until(cluster, first, lambda state: len({node["version"] for node in state["nodes"]}) == 1)
    assert roles(state) == {node_id: "leader" if node_id == first else "follower" for node_id in (1, 2, 3)}
    assert (state["answered_by"], state["cluster"]["leader_id"], state["problems"]) == (first, first, [])
    assert (state["cluster"]["failure_tolerance"], state["cluster"]["tolerance_text"]) == (
        1,
        "one more failure is tolerated",
    )
    for node in state["nodes"]:
        assert node["admin_address"] == str(cluster.nodes[node["id"]].admin)
        assert (node["reachable"], node["ready"], node["lag_entries"] is not None) == (True, True, True)

    await cluster.kill(first)
    second = await cluster.wait_for_leader(other_than=first)
    third = ({1, 2, 3} - {first, second}).pop()
    for witness in (second, third):
        state = await until(cluster, witness, lambda state: f"Node {first} is silent" in titles(state))
        assert state["cluster"]["tolerance_text"] == "one more failure stops the cluster"
        assert roles(state) == {first: "unreachable", second: "leader", third: "follower"}
    told = await events(cluster, third)
    assert told["missing_nodes"] == [first]
    texts = [event["text"] for event in told["events"]]
    assert any(f"the connection of leader {first} was lost" in text for text in texts), texts
    leaders = [
        event for event in told["events"] if event["kind"] == "leader" and event["term"] == state["cluster"]["term"]
    ]
    assert {event["node_id"] for event in leaders} == {second, third}, "of both nodes that are left"
    moments = [event["time_ms"] for event in told["events"]]
    assert moments == sorted(moments)

    cluster.pause(second)
    state = await until(cluster, third, lambda state: "No majority" in titles(state))
    assert state["cluster"]["tolerance_text"] == "1 of 3 voters heard, writes are refused"
    assert (state["cluster"]["failure_tolerance"], state["cluster"]["leader_id"]) == (None, None)
    assert (state["cluster"]["read_only"], state["answered_by"]) == (True, third)
    assert titles(state) >= {f"Node {first} is silent", f"Node {second} is silent"}
    assert roles(state) == {first: "unreachable", second: "unreachable", third: "candidate"}
    (stopped,) = (node for node in state["nodes"] if node["id"] == second)
    assert stopped["admin_address"] == str(cluster.nodes[second].admin), "what it said last is kept"
    deadline = time.monotonic() + NAMED_WITHIN_SECONDS
    while "1 of 3 voters heard, writes are refused" not in (
        texts := [event["text"] for event in (await events(cluster, third))["events"]]
    ):
        assert time.monotonic() < deadline, texts
        await asyncio.sleep(0.2)
    assert any(f"leader {second} not heard for" in text for text in texts)

    printed = await metactl("events", "--admin-api-address", cluster.nodes[third].admin)
    assert "1 of 3 voters heard, writes are refused" in printed.out
    assert printed.out.splitlines() == sorted(printed.out.splitlines(), key=lambda line: line[:24])
    assert f"without the events of nodes {', '.join(map(str, sorted((first, second))))}" in printed.err
    cluster.resume(second)
    assert await cluster.wait_for_leader() in (second, third)
    await until(cluster, third, lambda state: titles(state) == {f"Node {first} is silent"})


async def test_a_stream_begins_with_everything_goes_on_and_ends_with_the_node(start_cluster: StartCluster) -> None:
    cluster = start_cluster(1)
    await cluster.boot()
    await cluster.wait_for_ready()
    async with stream(cluster, 1) as reader, cluster.client() as client:
        received = lines(reader)
        kinds = [(await anext(received))["type"] for _ in range(3)]
        assert kinds == ["state", "history", "events"]
        for number in range(20):
            await client.upsert(f"key{number}", b"value")
        await cluster.admin(1, "/v1/ctrl/trigger_snapshot")
        seen: dict[str, dict[str, Any]] = {}
        async with asyncio.timeout(10):
            while not ({"state", "point", "event"} <= seen.keys() and seen["point"]["values"]["write_p99_ms"]):
                line = await anext(received)
                seen[line["type"]] = line
        assert seen["event"]["event"]["text"].startswith("a snapshot file with")
        assert seen["point"]["values"]["writes_per_second"] > 0
        assert seen["state"]["state"]["cluster"]["tolerance_text"].startswith("there is one voter")
        began = time.monotonic()
        cluster.send_signal(1, signal.SIGTERM)
        async with asyncio.timeout(5):
            rest = [line["type"] async for line in received]
        assert set(rest) <= {"state", "point", "event"}, "it ended as it should, with an empty chunk"
        assert await cluster.wait_exit(1) == 0
        assert time.monotonic() - began < 5

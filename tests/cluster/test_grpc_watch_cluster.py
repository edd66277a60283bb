"""Watch on real nodes: the flush is one instant, slow ones end alone, gone ones are forgotten."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest

from benchmarks.idle_watchers import Watchers, watcher_count
from benchmarks.process_usage import resident_mib
from metasrv.protocol.proto import meta_pb2 as pb
from metasrv.testing.processes import ProcessCluster
from tests.support.grpc_wire import OPTIONS, Wire, delete, put

pytestmark = pytest.mark.xdist_group("grpc-watch")


@pytest.fixture
async def single(start_cluster: Any) -> ProcessCluster:
    started: ProcessCluster = start_cluster(1)
    await started.boot()
    return started


@pytest.fixture
async def wire(single: ProcessCluster) -> AsyncIterator[Wire]:
    found = Wire(str(single.nodes[1].grpc))
    yield found
    found.close()


async def until_watchers(cluster: ProcessCluster, node_id: int, count: int, within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while (found := await watcher_count(cluster, node_id)) != count:
        assert time.monotonic() < deadline, f"{found} watchers after {within_s} s, {count} expected"
        await asyncio.sleep(0.05)


# ----------------------------------------------------------------------------- the flush


def write_at_random(wire: Wire, ended: threading.Event, seed: int) -> None:
    rng = random.Random(seed)
    while not ended.is_set():
        operations = []
        for _ in range(rng.randint(1, 3)):
            key = f"f/{rng.randrange(400):03}"
            operations.append(delete(key) if rng.random() < 0.3 else put(key, bytes([rng.randrange(256)])))
        wire.run(*operations)


def replay(events: Iterator[pb.WatchResponse], sentinel: str) -> dict[str, pb.SeqV]:
    """The state that a watcher arrives at; every change must fit the one before."""
    state: dict[str, pb.SeqV] = {}
    flushing = True
    for item in events:
        if not item.HasField("event"):
            assert flushing, "one marker"
            flushing = False
            continue
        assert item.is_initialization is flushing
        event = item.event
        if flushing:
            assert not state or event.key > max(state), "in key order, each once"
            state[event.key] = event.current
            continue
        if event.key == sentinel:
            return state
        before = state.get(event.key)
        assert event.HasField("prev") is (before is not None), (event.key, "a change was lost or shown twice")
        assert before is None or event.prev == before
        if event.HasField("current"):
            state[event.key] = event.current
        else:
            del state[event.key]
    raise AssertionError("the watch ended")


async def test_flush_and_changes_are_one_history_on_every_node_while_writes_go_on(cluster: ProcessCluster) -> None:
    wires = {node_id: Wire(str(node.grpc)) for node_id, node in cluster.nodes.items()}
    wires[1].run(*(put(f"f/{number:03}") for number in range(0, 400, 2)))
    ended = threading.Event()
    writers = [threading.Thread(target=write_at_random, args=(wire, ended, seed)) for seed, wire in wires.items()]
    for writer in writers:
        writer.start()
    try:
        calls = []
        for _ in range(4):
            for wire in wires.values():
                request = pb.WatchRequest(key="f/", key_end="f0", initial_flush=True)
                calls.append(wire.stub.Watch(request, timeout=30))
            await asyncio.sleep(0.2)
    finally:
        ended.set()
        for writer in writers:
            writer.join()
    wires[2].put("f/~end")
    states = [await asyncio.to_thread(replay, call, "f/~end") for call in calls]
    expected = {item.key: item.value for item in wires[3].list_prefix("f/") if item.key != "f/~end"}
    assert len(states) == 12
    assert all(state == expected for state in states)
    for wire in wires.values():
        wire.close()


# ----------------------------------------------------------------------------- the slow


async def test_a_slow_watcher_ends_alone_with_a_status_and_delays_nobody(single: ProcessCluster, wire: Wire) -> None:
    """Twelve thousand changes of 2 KB past a client that does not read."""
    watched = pb.WatchRequest(key="s/", key_end="s0")
    small_window = (("grpc.http2.lookahead_bytes", 16_384), ("grpc.http2.bdp_probe", 0))
    channel = grpc.insecure_channel(wire.address, options=[*OPTIONS, *small_window])
    slow = channel.unary_stream(
        "/meta.MetaService/Watch",
        request_serializer=pb.WatchRequest.SerializeToString,
        response_deserializer=pb.WatchResponse.FromString,
    )(watched, timeout=60)
    slow.initial_metadata()
    slowest = 0.0
    with wire.watch("s/", "s0") as fast:
        process = single.nodes[1].process
        assert process is not None
        for turn in range(24):
            operations = [put(f"s/{turn:02}/{number:03}", bytes(2048)) for number in range(500)]
            started = time.monotonic()
            await asyncio.to_thread(wire.run, *operations)
            seen = await asyncio.to_thread(lambda: list(itertools.islice(fast, 500)))
            slowest = max(slowest, time.monotonic() - started)
            assert [item.event.key for item in seen] == [operation.put.key for operation in operations]
        await until_watchers(single, 1, 1, within_s=5)
        assert resident_mib(process.pid) < 400, "what waits for a slow watcher is bounded"
        received: list[str] = []
        with pytest.raises(grpc.RpcError) as caught:
            received.extend(item.event.key for item in slow)
        written = [f"s/{turn:02}/{number:03}" for turn in range(24) for number in range(500)]
        assert received == written[: len(received)], "no gap before the end"
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "read the keys again and watch anew" in caught.value.details()
        assert len(received) < len(written)
    channel.close()
    assert slowest < 3, "a turn of 500 changes never waits for the slow one"


# ----------------------------------------------------------------------------- the gone


async def test_watchers_are_dropped_within_two_seconds_however_their_client_goes(
    single: ProcessCluster, wire: Wire
) -> None:
    address = str(single.nodes[1].grpc)
    call = wire.stub.Watch(pb.WatchRequest(key="k"))
    call.initial_metadata()
    await until_watchers(single, 1, 1, within_s=2)
    call.cancel()
    await until_watchers(single, 1, 0, within_s=2)

    other = Wire(address)
    call = other.stub.Watch(pb.WatchRequest(key="k"))
    call.initial_metadata()
    await until_watchers(single, 1, 1, within_s=2)
    other.close()
    await until_watchers(single, 1, 0, within_s=2)

    command = [sys.executable, "-m", "metasrv.cli.ctl", "watch", "--grpc-api-address", address, "--prefix", "k"]
    process = await asyncio.to_thread(subprocess.Popen, command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        await until_watchers(single, 1, 1, within_s=10)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    await until_watchers(single, 1, 0, within_s=2)
    assert wire.put("k").current.seq, "the node goes on"


# ----------------------------------------------------------------------------- the many


@pytest.mark.slow
async def test_ten_thousand_idle_watchers_on_one_node(single: ProcessCluster, wire: Wire) -> None:
    process = single.nodes[1].process
    assert process is not None
    wire.put("warm")
    before_mib = resident_mib(process.pid)
    watchers = Watchers(wire.address, connections=5)
    try:
        await watchers.open(10_000)
        assert await watcher_count(single, 1) == 10_000
        held_mib = resident_mib(process.pid) - before_mib
        assert held_mib < 600
        started = time.monotonic()
        for number in range(50):
            await asyncio.to_thread(wire.put, f"idle/{number:06}/k")
        assert time.monotonic() - started < 2.5, "writes do not wait for idle watchers"
        for number in (0, 49):
            event = (await asyncio.wait_for(watchers.calls[number].read(), 2)).event
            assert event.key == f"idle/{number:06}/k"
    finally:
        await watchers.close()
    await until_watchers(single, 1, 0, within_s=10)

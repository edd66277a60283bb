"""Watch, Export and SnapshotKeysLayout, called without sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from metasrv.grpc_api.export_lines import export_messages
from metasrv.grpc_api.http2.status import StatusCode
from metasrv.model.commands import TICK, AddNode
from metasrv.model.limits import EXPORT_CHUNK_LINES_MAX, WATCH_QUEUE_EVENTS_MAX
from metasrv.model.types import LogId
from metasrv.protocol import methods as m
from metasrv.protocol.proto import meta_pb2 as pb
from tests.support.grpc_bench import NODES, AbortedCall, FakeCall, MethodBench

Code = StatusCode


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[MethodBench]:
    made = MethodBench(tmp_path)
    await made.handshake()
    yield made
    await made.close()


class OpenWatch:
    """A watch that runs beside the test."""

    def __init__(self, bench: MethodBench, **request: Any) -> None:
        self.call = FakeCall()
        route = bench.service._dispatcher.route(m.WATCH, bench._bodies[m.WATCH])
        data = pb.WatchRequest(**request).SerializeToString()
        self.task: asyncio.Future[bytes | list[bytes] | None] = asyncio.ensure_future(route.function(data, self.call))

    async def responses(self, count: int) -> list[pb.WatchResponse]:
        """Wait until `count` were sent; all of them."""
        async with asyncio.timeout(5):
            while len(self.call.sent) < count and not self.task.done():  # noqa: ASYNC110 - a fake call tells nobody
                await asyncio.sleep(0)
        return [pb.WatchResponse.FromString(data) for data in self.call.sent]

    async def close(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


def shown(response: pb.WatchResponse) -> tuple[str, bytes | None, bytes | None, bool]:
    event = response.event
    prev = event.prev.data if event.HasField("prev") else None
    current = event.current.data if event.HasField("current") else None
    return event.key, prev, current, response.is_initialization


async def test_a_watch_starts_at_once_and_shows_changes_in_order(bench: MethodBench) -> None:
    bench.machine.set_cluster_id("c0ffee")
    watch = OpenWatch(bench, key="a", key_end="c")
    await asyncio.sleep(0)
    assert watch.call.initial == {m.CLUSTER_METADATA_KEY: "c0ffee"}
    await bench.put("a", b"1")
    await bench.put("c", b"out of range")
    await bench.transact(
        pb.TxnOp(put=pb.TxnPutRequest(key="b", value=b"2")),
        pb.TxnOp(delete=pb.TxnDeleteRequest(key="a")),
    )
    responses = await watch.responses(3)
    assert [shown(response) for response in responses] == [
        ("a", None, b"1", False),
        ("b", None, b"2", False),
        ("a", b"1", None, False),
    ]
    await watch.close()
    assert bench.machine.watches.count == 0


async def test_the_initial_flush_ends_with_an_empty_message(bench: MethodBench) -> None:
    await bench.put("a", b"1")
    await bench.put("b", b"2")
    watch = OpenWatch(bench, key="a", key_end="z", initial_flush=True, filter_type=pb.WatchRequest.DELETE)
    responses = await watch.responses(3)
    assert [shown(response) for response in responses[:2]] == [("a", None, b"1", True), ("b", None, b"2", True)]
    assert not responses[2].HasField("event")
    assert not responses[2].is_initialization
    await bench.put("c", b"filtered")
    await bench.transact(pb.TxnOp(delete=pb.TxnDeleteRequest(key="b")))
    assert shown((await watch.responses(4))[3]) == ("b", b"2", None, False)
    counters = bench.context.metrics.client
    await watch.close()
    assert counters.in_flight == 0


@pytest.mark.parametrize(("key", "key_end"), [("a", "a"), ("b", "a"), ("", "")])
async def test_an_empty_range_is_refused(bench: MethodBench, key: str, key_end: str) -> None:
    with pytest.raises(AbortedCall) as caught:
        await bench.call(m.WATCH, pb.WatchRequest(key=key, key_end=key_end))
    assert (caught.value.code, caught.value.details) == (Code.INVALID_ARGUMENT, "empty range")


async def test_a_slow_watcher_is_told_to_start_anew(bench: MethodBench) -> None:
    watch = OpenWatch(bench, key="", key_end="z")
    gate = asyncio.Event()

    async def stuck(message: bytes) -> None:
        await gate.wait()

    watch.call.write = stuck  # type: ignore[method-assign]
    await asyncio.sleep(0)
    for start in range(0, WATCH_QUEUE_EVENTS_MAX + 2000, 1000):
        puts = [pb.TxnOp(put=pb.TxnPutRequest(key=f"k{start + i}")) for i in range(1000)]
        await bench.transact(*puts)
        await asyncio.sleep(0)
    gate.set()
    with pytest.raises(AbortedCall) as caught:
        await watch.task
    assert caught.value.code is Code.RESOURCE_EXHAUSTED
    assert "watch anew" in caught.value.details


async def test_a_replaced_state_ends_watches(bench: MethodBench) -> None:
    watch = OpenWatch(bench, key="a")
    await asyncio.sleep(0)
    bench.machine.watches.reset("the state was replaced")
    with pytest.raises(AbortedCall) as caught:
        await watch.task
    assert caught.value.code is Code.ABORTED
    assert "the state was replaced" in caught.value.details


async def test_a_stop_ends_streams_with_a_reason(bench: MethodBench) -> None:
    watch = OpenWatch(bench, key="a")
    await asyncio.sleep(0)
    bench.service._dispatcher.end_streams()
    with pytest.raises(AbortedCall) as caught:
        await watch.task
    assert caught.value.code is Code.UNAVAILABLE
    assert caught.value.details.startswith("MetaNodeStopped")
    assert bench.machine.watches.count == 0


async def test_a_client_that_leaves_cancels_its_watch(bench: MethodBench) -> None:
    watch = OpenWatch(bench, key="a")
    await asyncio.sleep(0)
    assert bench.machine.watches.count == 1
    watch.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watch.task
    assert bench.machine.watches.count == 0


# ----------------------------------------------------------------------------- export


async def export(bench: MethodBench, request: pb.ExportRequest) -> list[list[str]]:
    call = await bench.call(m.EXPORT_V1, request)
    return [list(pb.ExportedChunk.FromString(data).data) for data in call.sent]


async def test_an_export_holds_every_kind_of_line_in_order(bench: MethodBench) -> None:
    for node in NODES.values():
        await bench.consensus.propose(AddNode(node, True), 1000)
    await bench.put("b", b"\x00\xff", expire_at=9_000_000_000)
    await bench.put('a"\\\n\u00e9', b"")
    lines = [json.loads(line) for chunk in await export(bench, pb.ExportRequest()) for line in chunk]
    last = {"leader_id": {"term": 1, "node_id": 1}, "index": bench.machine.last_applied.index}
    assert lines[:6] == [
        ["header", {"DataHeader": {"key": "header", "value": {"version": "V004"}}}],
        ["raft_log", {"NodeId": 1}],
        ["raft_log", {"Vote": {"leader_id": {"term": 1, "node_id": 1}, "committed": True}}],
        ["raft_log", {"Committed": last}],
        ["raft_log", {"Purged": None}],
        ["state_machine/0", {"Sequences": {"key": "generic-kv", "value": 2}}],
    ]
    bench.consensus.change(purged=LogId(1, 1, 3))
    purged = [json.loads(line) for chunk in await export(bench, pb.ExportRequest()) for line in chunk][4]
    assert purged == ["raft_log", {"Purged": {"leader_id": {"term": 1, "node_id": 3}, "index": 1}}]
    bodies = [body for tree, body in lines[6:] if tree == "state_machine/0"]
    assert len(bodies) == len(lines) - 6
    assert bodies[0] == {"StateMachineMeta": {"key": "LastApplied", "value": {"LogId": last}}}
    stored = bodies[1]["StateMachineMeta"]["value"]["Membership"]
    assert stored["membership"] == {"configs": [[1, 2, 3]], "nodes": {"1": {}, "2": {}, "3": {}}}
    assert stored["log_id"]["index"] == 1
    assert [body["Nodes"]["key"] for body in bodies[2:5]] == [1, 2, 3]
    assert bodies[2]["Nodes"]["value"] == {
        "name": "1",
        "endpoint": {"addr": "localhost", "port": 28103},
        "grpc_api_advertise_address": "127.0.0.1:9191",
    }
    assert bodies[5] == {"Expire": {"key": {"time_ms": 9_000_000_000_000, "seq": 1}, "value": {"seq": 1, "key": "b"}}}
    first, second = (body["GenericKV"] for body in bodies[6:])
    assert (first["key"], first["value"]["data"]) == ('a"\\\n\u00e9', [])
    assert (second["key"], second["value"]["data"]) == ("b", [0, 255])
    assert second["value"]["meta"]["expire_at"] == 9_000_000_000
    assert set(first["value"]["meta"]) == {"proposed_at_ms"}


@pytest.mark.parametrize(
    ("request_", "lines"),
    [
        (pb.ExportRequest(), 32),
        (pb.ExportRequest(chunk_size=7), 7),
        (pb.ExportRequest(chunk_size=0), 1),
        (pb.ExportRequest(chunk_size=EXPORT_CHUNK_LINES_MAX), EXPORT_CHUNK_LINES_MAX),
        (pb.ExportRequest(chunk_size=2**64 - 1), EXPORT_CHUNK_LINES_MAX),
    ],
)
async def test_chunks_hold_as_many_lines_as_asked_for(bench: MethodBench, request_: pb.ExportRequest, lines: int) -> None:
    for start in range(0, 5000, 1000):
        await bench.transact(*(pb.TxnOp(put=pb.TxnPutRequest(key=f"k{start + i:05}")) for i in range(1000)))
    chunks = await export(bench, request_)
    assert {len(chunk) for chunk in chunks[:-1]} <= {lines}
    assert 0 < len(chunks[-1]) <= lines
    flat = [line for chunk in chunks for line in chunk]
    assert sum("GenericKV" in line for line in flat) == 5000
    old = await bench.call(m.EXPORT, pb.Empty())
    assert [line for data in old.sent for line in pb.ExportedChunk.FromString(data).data] == flat


async def test_an_export_is_one_instant(bench: MethodBench) -> None:
    await bench.put("k", b"1")
    with bench.machine.open_reader() as view:
        await bench.put("k", b"2")
        await bench.put("l", b"2")
        text = str(list(export_messages(view, 1, None, 100)))
    assert "[49]" in text
    assert "[50]" not in text


async def test_an_export_shows_a_tick_as_an_index_and_by_what_it_swept(bench: MethodBench) -> None:
    """docs/contract/grpc.md section d.4: lines 4 and 7 move on, 10 and 11 of the lease are gone."""
    await bench.put("kept")
    await bench.put("lease", ttl_ms=500)
    before = [json.loads(line) for chunk in await export(bench, pb.ExportRequest()) for line in chunk]
    index = bench.machine.last_applied.index
    bench.clock.advance(0.501)
    await bench.consensus.propose(TICK, 1000)
    after = [json.loads(line) for chunk in await export(bench, pb.ExportRequest()) for line in chunk]
    moved = [number for number, (old, new) in enumerate(zip(before, after, strict=False), 1) if old != new][:3]
    assert moved[:2] == [4, 7], "not the purged entry in line 5, nor the sequence in line 6"
    assert after[3][1]["Committed"]["index"] == index + 1
    assert after[6][1]["StateMachineMeta"]["value"]["LogId"]["index"] == index + 1
    assert not any("LogEntry" in body for _, body in after)
    gone = [next(iter(body)) for tree, body in before[7:] if [tree, body] not in after]
    assert gone == ["Expire", "GenericKV"]
    assert all(line in before for line in after[7:]), "it adds no line"


async def test_a_client_that_stops_reading_is_cut_off(bench: MethodBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metasrv.grpc_api.readers.GRPC_PAGE_SECONDS_MAX", 0)
    route = bench.service._dispatcher.route(m.EXPORT, bench._bodies[m.EXPORT])
    call = FakeCall()

    async def stuck(message: bytes) -> None:
        await asyncio.Event().wait()

    call.write = stuck  # type: ignore[method-assign]
    with pytest.raises(AbortedCall) as caught:
        await route.function(b"", call)
    assert caught.value.code is Code.ABORTED
    assert bench.service._readers.open_count == 0


async def test_an_export_whose_view_is_lost_ends_with_a_sentence(bench: MethodBench) -> None:
    for start in range(0, 3000, 1000):
        await bench.transact(*(pb.TxnOp(put=pb.TxnPutRequest(key=f"k{start + i:05}")) for i in range(1000)))
    route = bench.service._dispatcher.route(m.EXPORT, bench._bodies[m.EXPORT])
    call = FakeCall()
    taken: list[bytes] = []

    async def take(message: bytes) -> None:
        taken.append(message)
        bench.machine.views.revoke("this read took so long; read again")

    call.write = take  # type: ignore[method-assign]
    with pytest.raises(AbortedCall, match="this read took so long; read again") as caught:
        await route.function(b"", call)
    assert caught.value.code is Code.ABORTED
    assert taken
    assert (bench.service._readers.open_count, len(bench.machine.views)) == (0, 0)


@pytest.mark.parametrize("hurry", [False, True])
async def test_an_export_does_not_rest_when_its_view_is_about_to_be_lost(
    bench: MethodBench, monkeypatch: pytest.MonkeyPatch, hurry: bool
) -> None:
    rests: list[float] = []
    sleep = asyncio.sleep

    async def rest(seconds: float) -> None:
        rests.append(seconds)
        await sleep(0)

    await bench.put("k")
    bench.machine.views.hurry = hurry
    reader = bench.service._readers.open(FakeCall())
    monkeypatch.setattr("metasrv.grpc_api.readers.asyncio.sleep", rest)
    async with reader:
        async for number in reader.iterate(iter((1, 2, 3)), patient=True):
            await bench.put("k", str(number).encode())
    assert bool(rests) is not hurry


async def layout_of(bench: MethodBench, **request: int) -> list[tuple[str, int]]:
    call = await bench.call(m.SNAPSHOT_KEYS_LAYOUT, pb.KeysLayoutRequest(**request))
    assert bench.service._readers.open_count == 0
    return [(item.prefix, item.count) for item in map(pb.KeysCount.FromString, call.sent)]


async def test_keys_layout(bench: MethodBench, tmp_path: Path) -> None:
    """It is that of the last snapshot, whatever was written since."""
    for key in ("databases/1/t", "databases/1/u", "databases/2/t", "system/x", "top"):
        await bench.put(key)
    bench.consensus.write_snapshot(tmp_path / "first.snap")
    await bench.put("databases/3/t")
    assert await layout_of(bench) == [
        ("databases/1", 2),
        ("databases/2", 1),
        ("databases", 3),
        ("system", 1),
        ("", 5),
    ]
    assert await layout_of(bench, depth=1) == [("databases", 3), ("system", 1), ("", 5)]
    assert await layout_of(bench, depth=0) == [("", 5)]
    bench.consensus.write_snapshot(tmp_path / "second.snap")
    assert await layout_of(bench, depth=1) == [("databases", 4), ("system", 1), ("", 6)]


async def test_keys_layout_without_a_snapshot_is_an_empty_stream(bench: MethodBench, tmp_path: Path) -> None:
    await bench.put("a/b")
    assert await layout_of(bench) == []
    bench.consensus.write_snapshot(tmp_path / "gone.snap")
    assert await layout_of(bench) == [("a", 1), ("", 1)]
    (tmp_path / "gone.snap").unlink()
    assert await layout_of(bench) == [], "a file that somebody removed is no snapshot"


async def test_keys_layout_of_an_empty_snapshot_is_the_total(bench: MethodBench, tmp_path: Path) -> None:
    for key in ("a", "b"):
        await bench.put(key)
    await bench.transact(pb.TxnOp(delete_by_prefix=pb.TxnDeleteByPrefixRequest(prefix="")))
    bench.consensus.write_snapshot(tmp_path / "empty.snap")
    assert await layout_of(bench) == [("", 0)]


async def test_keys_layout_of_many_keys_and_of_a_damaged_file(bench: MethodBench, tmp_path: Path) -> None:
    """Directories before, in and across the pages that the helper thread reads."""
    puts = [pb.TxnOp(put=pb.TxnPutRequest(key=f"d{at // 700}/{at:04}", value=b"")) for at in range(2000)]
    await bench.transact(*puts)
    bench.consensus.write_snapshot(tmp_path / "many.snap")
    assert await layout_of(bench) == [("d0", 700), ("d1", 700), ("d2", 600), ("", 2000)]
    (tmp_path / "many.snap").write_bytes(b"SQLite format 3\0" + bytes(4096))
    with pytest.raises(AbortedCall, match=r"many\.snap, the newest snapshot, cannot be read") as caught:
        await layout_of(bench)
    assert caught.value.code is Code.DATA_LOSS


async def test_a_layout_is_one_of_the_large_reads(
    bench: MethodBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.put("a")
    bench.consensus.write_snapshot(tmp_path / "one.snap")
    monkeypatch.setattr("metasrv.grpc_api.readers.GRPC_READERS_MAX", 0)
    with pytest.raises(AbortedCall) as caught:
        await layout_of(bench)
    assert caught.value.code is Code.RESOURCE_EXHAUSTED

"""What lists and watchers cost, counted where it does not depend on the machine: frames, writes, encodings.

A bound is a little above what was counted when it was written; a change that costs more has to say so here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from metasrv.grpc_api import changes
from metasrv.grpc_api.calls import Stream
from metasrv.grpc_api.http2 import frames as f
from metasrv.grpc_api.http2.messages import length_prefixed
from metasrv.grpc_api.http2.route import Route
from metasrv.protocol import methods as m
from metasrv.protocol.proto import meta_pb2 as pb
from tests.support.grpc_bench import FakeCall, MethodBench
from tests.support.http2_bench import Bench, Peer, settle

VALUE = b"v" * 256
LISTED = 2_000
WATCHERS = 60
GATHERED = 16 * 1024


class CountedCall(FakeCall):
    """Counts how often a handler sends."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.writes = 0

    async def write_prefixed(self, messages: bytes) -> None:
        self.writes += 1
        await super().write_prefixed(messages)

    def write_now(self, messages: bytes) -> bool:
        self.writes += 1
        return super().write_now(messages)


@pytest.fixture
async def bench(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[MethodBench]:
    made = MethodBench(tmp_path_factory.mktemp("node"))
    await made.handshake()
    yield made
    await made.close()


async def settled(condition: Callable[[], bool]) -> None:
    """Let the loop turn until the condition holds."""
    for _ in range(100):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it did not happen within a hundred turns")


async def stream_to(bench: MethodBench, method: m.Method, request: Any) -> CountedCall:
    call = CountedCall(((m.TOKEN_METADATA_KEY, bench.token),))
    body = bench.service._bodies()[method]
    await body(request, Stream(call, bench.context.metrics))
    return call


async def test_writes_of_a_long_list(bench: MethodBench) -> None:
    for start in range(0, LISTED, 100):
        puts = [pb.TxnPutRequest(key=f"l/{number:05}", value=VALUE) for number in range(start, start + 100)]
        await bench.transact(*(pb.TxnOp(put=put) for put in puts))
    call = await stream_to(bench, m.KV_LIST, pb.KvListRequest(prefix="l/"))
    assert len(call.sent) == LISTED
    size_bytes = sum(map(len, call.sent))
    assert call.writes <= size_bytes / GATHERED * 1.15 + 5, "one for each frame, and a smaller one for each page"


async def test_writes_of_a_short_list(bench: MethodBench) -> None:
    await bench.transact(*(pb.TxnOp(put=pb.TxnPutRequest(key=f"s/{number}", value=b"v")) for number in range(100)))
    call = await stream_to(bench, m.KV_LIST, pb.KvListRequest(prefix="s/"))
    assert (len(call.sent), call.writes) == (100, 1)


async def test_message_objects_of_a_list(bench: MethodBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """One for a page, none for a record."""
    made = 0
    plain = pb.StreamItem

    def counted(*arguments: Any, **fields: Any) -> pb.StreamItem:
        nonlocal made
        made += 1
        return plain(*arguments, **fields)

    monkeypatch.setattr(pb, "StreamItem", counted)
    await bench.transact(*(pb.TxnOp(put=pb.TxnPutRequest(key=f"s/{number}", value=b"v")) for number in range(100)))
    await stream_to(bench, m.KV_LIST, pb.KvListRequest(prefix="s/"))
    assert made == 1


async def test_encodings_and_writes_of_a_change_with_many_watchers(
    bench: MethodBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = 0
    plain = changes.watch_response

    def counted(item: Any) -> bytes:
        nonlocal encoded
        encoded += 1
        return plain(item)

    monkeypatch.setattr(changes, "watch_response", counted)
    calls = [CountedCall(((m.TOKEN_METADATA_KEY, bench.token),)) for _ in range(WATCHERS)]
    body = bench.service._bodies()[m.WATCH]
    streams = [asyncio.create_task(body(pb.WatchRequest(key="w"), Stream(call, bench.context.metrics))) for call in calls]
    await settled(lambda: bench.machine.watches.count == WATCHERS)
    for number in range(3):
        await bench.put("w", f"{number}".encode())
        await settled(lambda told=number + 1: min(call.writes for call in calls) == told)  # type: ignore[misc]
    assert encoded == 3, "once a change, whatever the number of watchers"
    assert [call.writes for call in calls] == [3] * WATCHERS
    for stream in streams:
        stream.cancel()
    await asyncio.gather(*streams, return_exceptions=True)


async def test_system_calls_of_messages_to_many_streams_of_a_connection() -> None:
    """What streams of one connection send in one turn leaves together."""
    told = asyncio.Event()

    async def watch(_request: bytes, call: Any) -> None:
        await call.send_initial_metadata(())
        await told.wait()
        await call.write(VALUE)
        await asyncio.get_running_loop().create_future()

    bench = Bench()
    bench.server.routes = {"/t.T/Watch": Route(watch, single_request=True, single_reply=False)}
    peer = Peer(bench.server)
    for number in range(8):
        peer.request(2 * number + 1, length_prefixed(b""), path="/t.T/Watch")
    await settle()
    peer.frames()
    before = peer.transport.writes
    told.set()
    await settle()
    assert [kind for kind, *_ in peer.frames()] == [f.DATA] * 8
    assert peer.transport.writes - before == 1


async def test_system_calls_and_tasks_of_a_change_with_many_watchers_on_a_connection(bench: MethodBench) -> None:
    """One call to the system for the connection, and no task of a watcher runs."""
    route = bench.service._dispatcher.route(m.WATCH, bench.service._bodies()[m.WATCH])
    server = Bench().server
    server.routes = {"/t.T/Watch": route}
    peer = Peer(server)
    for number in range(8):
        peer.request(2 * number + 1, length_prefixed(pb.WatchRequest(key="w").SerializeToString()), path="/t.T/Watch")
    await settled(lambda: bench.machine.watches.count == 8)
    await settle()
    peer.frames()
    wake_ups = {watcher._wakeup for watcher in bench.machine.watches._watchers}
    for _ in range(3):
        before = peer.transport.writes
        await bench.put("w", VALUE)
        await settle()
        assert [kind for kind, *_ in peer.frames()] == [f.DATA] * 8
        assert peer.transport.writes - before == 1
    assert {watcher._wakeup for watcher in bench.machine.watches._watchers} == wake_ups
    peer.connection.connection_lost(None)
    await settle()


async def test_system_calls_of_a_read_of_one_key() -> None:
    async def read(_request: bytes, _call: Any) -> bytes:
        return VALUE

    bench = Bench()
    bench.server.routes = {"/t.T/Read": Route(read, single_request=True, single_reply=False)}
    peer = Peer(bench.server)
    before = peer.transport.writes
    for number in range(8):
        peer.request(2 * number + 1, length_prefixed(b""), path="/t.T/Read")
        await settle()
    assert peer.transport.writes - before == 8, "headers, message and status of an answer leave together"

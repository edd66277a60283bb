"""Limits of streams, calls and what is held for clients, on a node in this process (limits.py)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from metasrv.grpc_api.http2.portions import undivided
from metasrv.model.limits import GRPC_CALLS_PER_CONNECTION_MAX, GRPC_HELD_SIZE_BYTES_MAX, GRPC_READERS_MAX
from metasrv.protocol.methods import EXPORT, KV_READ_V1, WATCH
from metasrv.protocol.proto import meta_pb2 as pb
from metasrv.protocol.proto import meta_pb2_grpc
from tests.support import http2_frames as http2
from tests.support.grpc_node import RunningNode, StartNode
from tests.support.grpc_wire import CLIENT_VERSION, TIMEOUT_SECONDS, Wire, put
from tests.support.waiting import until

EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.fixture
async def raw(start_node: StartNode) -> AsyncIterator[tuple[RunningNode, Any]]:
    node = await start_node()
    async with grpc.aio.insecure_channel(node.address, options=(("grpc.use_local_subchannel_pool", 1),)) as channel:
        make_stub: Any = meta_pb2_grpc.MetaServiceStub
        yield node, make_stub(channel)


async def token_from(stub: Any) -> bytes:
    hello = pb.HandshakeRequest(
        protocol_version=CLIENT_VERSION, payload=pb.BasicAuth(username="root").SerializeToString()
    )
    (reply,) = [reply async for reply in stub.Handshake(iter([hello]))]
    return bytes(reply.payload)


async def token_of(node: RunningNode) -> bytes:
    """A token from a connection of its own: a handshake makes its connection a client's."""
    async with grpc.aio.insecure_channel(node.address, options=(("grpc.use_local_subchannel_pool", 1),)) as channel:
        make_stub: Any = meta_pb2_grpc.MetaServiceStub
        return await token_from(make_stub(channel))


async def status_of(call: Any) -> tuple[grpc.StatusCode, str]:
    async with asyncio.timeout(TIMEOUT_SECONDS):
        return await call.code(), await call.details()


async def test_watchers(raw: tuple[RunningNode, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Strangers of an address get a quarter, clients of it with a token a half."""
    node, stub = raw
    monkeypatch.setattr("metasrv.grpc_api.watch.WATCHERS_MAX", 12)
    token = await token_of(node)
    watching: list[Any] = []

    async def watch(metadata: tuple[tuple[str, bytes], ...] = ()) -> Any:
        call = stub.Watch(pb.WatchRequest(key="k"), metadata=metadata)
        await call.initial_metadata()
        watching.append(call)
        return call

    for _ in range(3):
        await watch()
    code, text = await status_of(await watch())
    assert (code, text.split(";")[0]) == (EXHAUSTED, "the address 127.0.0.1 already has 3 watch streams, its share of 12")
    for _ in range(6):
        await watch((("auth-token-bin", token),))
    code, text = await status_of(await watch())
    assert (code, text) == (EXHAUSTED, "the address 127.0.0.1 already has 6 watch streams, its share of 12")
    assert node.context.machine.watches.count == 9
    watching[-2].cancel()
    await until(lambda: node.context.machine.watches.count == 8)
    await watch()
    assert node.context.machine.watches.count == 9


async def test_streams_of_one_connection(raw: tuple[RunningNode, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    node, stub = raw
    monkeypatch.setattr("metasrv.grpc_api.dispatch.GRPC_STREAMS_PER_CONNECTION_MAX", 3)
    calls = [stub.Watch(pb.WatchRequest(key="k")) for _ in range(3)]
    for call in calls:
        await call.initial_metadata()
    code, text = await status_of(stub.Watch(pb.WatchRequest(key="k")))
    assert (code, text) == (EXHAUSTED, "this connection already has 3 streams under way, the limit")
    assert (await stub.GetClientInfo(pb.Empty())).client_addr, "single calls go on"
    assert node.context.machine.watches.count == 3, "and so do the streams there are"
    other = Wire(node.address)
    listed = await asyncio.to_thread(lambda: list(other.stub.ExportV1(pb.ExportRequest(), timeout=5)))
    assert listed, "another connection is not concerned"
    other.close()
    calls.pop().cancel()
    await until(lambda: node.context.machine.watches.count == 2)
    again = stub.Watch(pb.WatchRequest(key="k"))
    await again.initial_metadata()
    assert node.service._dispatcher._streams != {}
    for call in (*calls, again):
        call.cancel()
    await until(lambda: node.service._dispatcher._streams == {})


async def test_calls_of_one_address(start_node: StartNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """Watch streams that strangers hold leave room for the health check of a probe and for clients with a token."""
    monkeypatch.setattr("metasrv.grpc_api.service.GRPC_CALLS_MAX", 8)
    node = await start_node()
    options = (("grpc.use_local_subchannel_pool", 1),)
    make_stub: Any = meta_pb2_grpc.MetaServiceStub
    async with (
        grpc.aio.insecure_channel(node.address, options=options) as hostile,
        grpc.aio.insecure_channel(node.address, options=options) as probing,
        grpc.aio.insecure_channel(node.address, options=options) as honest,
    ):
        stub = make_stub(hostile)
        calls = [stub.Watch(pb.WatchRequest(key="k")) for _ in range(2)]
        for call in calls:
            await call.initial_metadata()
        code, text = await status_of(stub.GetClientInfo(pb.Empty()))
        assert (code, text.partition(";")[0]) == (
            EXHAUSTED,
            "the address 127.0.0.1 already has 2 calls, its share of 8",
        )
        make_health: Any = health_pb2_grpc.HealthStub
        answer = await make_health(probing).Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_SECONDS)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        client = make_stub(honest)
        metadata = (("auth-token-bin", await token_from(client)),)
        held = [client.Watch(pb.WatchRequest(key="k"), metadata=metadata) for _ in range(2)]
        for call in held:
            await call.initial_metadata()
        code, text = await status_of(client.GetClientInfo(pb.Empty(), metadata=metadata))
        assert (code, text) == (EXHAUSTED, "the address 127.0.0.1 already has 4 calls, its share of 8")
        calls.pop().cancel()
        assert node.service._server is not None
        places = node.service._server.places
        await until(lambda: places.in_use == 3)
        assert (await client.GetClientInfo(pb.Empty(), metadata=metadata)).client_addr


async def test_large_reads_at_once(raw: tuple[RunningNode, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    node, stub = raw
    monkeypatch.setattr("metasrv.grpc_api.readers.GRPC_READERS_MAX", 0)
    code, text = await status_of(stub.ExportV1(pb.ExportRequest()))
    assert (code, text) == (EXHAUSTED, "this node already serves 0 large reads, the limit")
    monkeypatch.setattr("metasrv.grpc_api.readers.GRPC_READERS_MAX", 1)
    assert [chunk async for chunk in stub.ExportV1(pb.ExportRequest())]
    assert node.service._readers.open_count == 0


async def test_exports_that_a_stranger_does_not_take_leave_room_for_clients(raw: tuple[RunningNode, Any]) -> None:
    """40 exports behind a closed window and without a token."""
    node, stub = raw
    readers = node.service._readers
    token = await token_from(stub)
    reader, writer = await asyncio.open_connection(*node.address.split(":"))
    settings_of_no_window = b"\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\0\0"
    writer.write(http2.PREFACE + settings_of_no_window)
    for number in range(40):
        writer.write(http2.request(node.address, 2 * number + 1, EXPORT.path, b"", b""))
    async with asyncio.timeout(TIMEOUT_SECONDS):
        for _ in range(40 - GRPC_READERS_MAX // 4):
            await reader.readuntil(b"its share of 16")
    assert readers.open_count == GRPC_READERS_MAX // 4
    metadata = (("auth-token-bin", token),)
    assert [chunk async for chunk in stub.ExportV1(pb.ExportRequest(), metadata=metadata)]
    writer.close()
    await until(lambda: readers.open_count == 0)


async def test_calls_of_one_connection(raw: tuple[RunningNode, Any]) -> None:
    """Clients are told the number and let further calls wait; a client that does not care has them refused."""
    node, stub = raw
    server = node.service._server
    assert server is not None
    assert server.streams_max == GRPC_CALLS_PER_CONNECTION_MAX
    server.streams_max = 2
    reader, writer = await asyncio.open_connection(*node.address.split(":"))
    writer.write(http2.GREETING)
    watch = pb.WatchRequest(key="k").SerializeToString()
    token = await token_from(stub)
    for stream_id in (1, 3, 5):
        writer.write(http2.request(node.address, stream_id, WATCH.path, watch, token))
    refused_stream = b"\0\0\x04\x03\0\0\0\0\x05\0\0\0\x07"
    async with asyncio.timeout(TIMEOUT_SECONDS):
        await reader.readuntil(refused_stream)
    await until(lambda: node.context.machine.watches.count == 2)
    writer.close()


async def test_what_is_held_for_a_client_that_does_not_read(raw: tuple[RunningNode, Any]) -> None:
    node, stub = raw
    server = node.service._server
    assert server is not None
    token, value = await token_from(stub), os.urandom(1_000_000)
    metadata = (("auth-token-bin", token),)
    assert (await stub.Transaction(pb.TxnRequest(if_then=[put("large", value)]), metadata=metadata)).success
    assert server.budget.portions.limit == GRPC_HELD_SIZE_BYTES_MAX
    server.budget.portions = undivided(3_000_000)
    read = pb.RaftRequest(data='{"GetKV":{"key":"large"}}')

    reader, writer = await asyncio.open_connection(*node.address.split(":"), limit=200_000)
    writer.write(http2.GREETING)
    for stream_id in (1, 3, 5):
        writer.write(http2.request(node.address, stream_id, KV_READ_V1.path, read.SerializeToString(), token))
    await until(lambda: server.budget.used_bytes > 2_900_000)
    assert not server.budget.exceeded
    writer.write(http2.request(node.address, 7, KV_READ_V1.path, read.SerializeToString(), token))
    async with asyncio.timeout(TIMEOUT_SECONDS):
        seen = await reader.readuntil(b"grpc-message")
        text = await reader.readuntil(b"the limit")
    assert b"grpc-status\x018" in seen, "RESOURCE_EXHAUSTED"
    assert b"this node already holds 3000000 bytes of requests and answers" in text
    assert [item.value.data async for item in stub.KvReadV1(read, metadata=metadata)] == [value], "others go on"
    writer.close()
    await until(lambda: server.budget.used_bytes == 0)

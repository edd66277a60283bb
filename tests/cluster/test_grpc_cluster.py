"""MetaService on three nodes: forwarding, leader headers, tokens good everywhere, a leader that dies."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from metasrv.model.errors import NotDoneError, UnknownOutcomeError
from metasrv.protocol import methods as m
from metasrv.protocol.proto import meta_pb2 as pb
from metasrv.protocol.proto import meta_pb2_grpc
from metasrv.testing.processes import ProcessCluster

PUT = pb.TxnRequest(if_then=[pb.TxnOp(put=pb.TxnPutRequest(key="k", value=b"1"))])
READ = pb.RaftRequest(data='{"MGetKV":{"keys":["k"]}}')


async def raw(cluster: ProcessCluster, node_id: int) -> tuple[Any, Any]:
    """A channel to one node and the generated stub on it: no retry, no redirect."""
    channel = grpc.aio.insecure_channel(str(cluster.nodes[node_id].grpc))
    return channel, meta_pb2_grpc.MetaServiceStub(channel)  # type: ignore[no-untyped-call]


async def test_a_token_is_good_everywhere_and_headers_name_the_leader(cluster: ProcessCluster) -> None:
    leader = await cluster.wait_for_leader()
    follower, other = (node_id for node_id in cluster.nodes if node_id != leader)
    async with cluster.node_client(other) as client:
        token = (m.TOKEN_METADATA_KEY, await client.handshake())
    leader_address = str(cluster.nodes[leader].grpc)
    channel, stub = await raw(cluster, follower)
    call = stub.Transaction(PUT, metadata=(token,), timeout=5)
    assert dict(await call.initial_metadata())[m.LEADER_METADATA_KEY] == leader_address
    assert (await call).responses[0].put.current.seq == 1
    read = stub.KvReadV1(READ, metadata=(token,), timeout=5)
    assert (await read.read()).value.data == b"1"
    assert dict(await read.initial_metadata())[m.LEADER_METADATA_KEY] == leader_address
    for method, request in ((stub.KvTransaction, pb.KvTransactionRequest()), (stub.KvList, pb.KvListRequest())):
        refused = method(request, metadata=(token,), timeout=5)
        assert await refused.code() is grpc.StatusCode.UNAVAILABLE
        assert await refused.details() == "not leader"
        assert dict(await refused.trailing_metadata())[m.LEADER_METADATA_KEY] == leader_address
    await channel.close()
    channel, stub = await raw(cluster, leader)
    call = stub.Transaction(PUT, metadata=(token,), timeout=5)
    assert m.LEADER_METADATA_KEY not in dict(await call.initial_metadata())
    assert (await call).responses[0].put.prev_value.seq == 1
    await channel.close()


async def test_a_token_outlives_a_restart_of_every_node(cluster: ProcessCluster) -> None:
    await cluster.wait_for_leader()
    async with cluster.node_client(1) as client:
        token = (m.TOKEN_METADATA_KEY, await client.handshake())
    for node_id in cluster.nodes:
        await cluster.stop(node_id)
    for node_id in cluster.nodes:
        cluster.start(node_id)
    await cluster.wait_for_leader()
    channel, stub = await raw(cluster, 2)
    assert (await stub.Transaction(PUT, metadata=(token,), timeout=5)).success
    await channel.close()


async def test_without_a_quorum_calls_fail_quickly_and_certainly(cluster: ProcessCluster) -> None:
    leader = await cluster.wait_for_leader()
    survivor = next(node_id for node_id in cluster.nodes if node_id != leader)
    async with cluster.node_client(survivor) as client:
        await client.put("k", b"1")
        await cluster.wait_until_equal()  # a stale read shows what has arrived
        await cluster.kill(*(node_id for node_id in cluster.nodes if node_id != survivor))
        await cluster.wait_for_statuses(lambda statuses: statuses[survivor]["leader"] is None, "no leader is known")
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.put("k", b"2")
        assert loop.time() - began < 3.5
        assert caught.value.code() is grpc.StatusCode.INTERNAL
        expected = "can not forward any more: need to forward but no known leader"
        assert caught.value.details() == expected
        stale = (("x-metasrv-read", "stale"),)
        channel, stub = await raw(cluster, survivor)
        read = stub.KvReadV1(READ, metadata=(*client._metadata, *stale), timeout=5)
        assert (await read.read()).value.data == b"1"
        await channel.close()


async def test_the_client_goes_on_when_the_leader_dies(cluster: ProcessCluster) -> None:
    leader = await cluster.wait_for_leader()
    async with cluster.client() as client:
        acknowledged = unknown = 0
        killed = False
        for number in range(60):
            if number == 20:
                await cluster.kill(leader)
                killed = True
            try:
                await client.upsert(f"n/{number:03}", str(number).encode())
                acknowledged += 1
            except UnknownOutcomeError:
                unknown += 1
        assert killed
        assert acknowledged >= 58, "one write may have been on its way when the leader died"
        kept = await client.list_prefix("n/")
        assert acknowledged <= len(kept) <= acknowledged + unknown


async def test_a_paused_leader_does_not_use_up_a_read(cluster: ProcessCluster) -> None:
    leader = await cluster.wait_for_leader()
    async with cluster.client() as client:
        await client.upsert("k", b"1")
        cluster.pause(leader)
        try:
            record = await client.get("k")
            assert record is not None
            assert record.data == b"1"
        finally:
            cluster.resume(leader)


async def test_a_node_that_hangs_does_not_hold_up_the_start_of_a_stream(cluster: ProcessCluster) -> None:
    """It used to take until the connection was given up, a quarter of a minute."""
    leader = await cluster.wait_for_leader()
    others = [node_id for node_id in cluster.nodes if node_id != leader]
    async with cluster.client(leader, *others) as client, cluster.client(leader) as alone:
        await client.upsert("k", b"1")
        await alone.get("k")
        client._caller.endpoints.prefer(str(cluster.nodes[leader].grpc))
        cluster.pause(leader)
        loop = asyncio.get_running_loop()
        try:
            began = loop.time()
            lines = [line async for line in client.export()]
            assert any('"GenericKV"' in line for line in lines), "another node answers"
            assert loop.time() - began < 5
            began = loop.time()
            for stream in (alone.export(), alone.watch("k")):
                with pytest.raises(NotDoneError, match="in time"):
                    await anext(stream)
            assert loop.time() - began < 13, "each within the client's five seconds, and a little"
        finally:
            cluster.resume(leader)


async def test_a_watch_on_a_follower_sees_every_write(cluster: ProcessCluster) -> None:
    leader = await cluster.wait_for_leader()
    follower = next(node_id for node_id in cluster.nodes if node_id != leader)
    async with cluster.client(follower) as watching, cluster.client() as writing:
        watch = watching.watch("w/", "w0", initial_flush=True)
        assert (await anext(watch)).is_marker
        for number in range(30):
            await writing.upsert("w/k", str(number).encode())
        seen = [await asyncio.wait_for(anext(watch), 5) for _ in range(30)]
        assert [event.current and event.current.data for event in seen] == [str(n).encode() for n in range(30)]
        await cluster.kill(follower)
        with pytest.raises(NotDoneError):
            await asyncio.wait_for(anext(watch), 10)

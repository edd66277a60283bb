"""A node with a password, over the real wire: what needs the token, and that our own clients always give it."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from metasrv.cli import ctl
from metasrv.client import AsyncClient
from metasrv.config.model import SecretText
from metasrv.protocol import methods as m
from metasrv.protocol.proto import meta_pb2 as pb
from tests.support.grpc_node import StartNode


async def test_the_client_library_gives_the_token_with_every_call(start_node: StartNode) -> None:
    node = await start_node(grpc_password=SecretText("sesame"))
    async with AsyncClient([node.address], password="sesame") as client:
        await client.upsert("a", b"1")
        assert await client.get("a") is not None
        assert await client.cluster_status() is not None
        assert await client.client_info() is not None
        assert await client.member_list()
        assert [line async for line in client.export()]
        assert [pair async for pair in client.keys_layout()] == []
        async for event in client.watch("a", initial_flush=True):
            assert event is not None
            break


COMMANDS = (
    ["status"],
    ["member-list"],
    ["keys-layout"],
    ["export"],
    ["get", "--key", "a"],
    ["upsert", "--key", "a", "--value", "1"],
    ["bench-client-num-conn", "--num", "1"],
    ["--export"],
)


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
async def test_metactl_gives_the_token_with_every_command(
    start_node: StartNode, arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    node = await start_node(grpc_password=SecretText("sesame"))
    monkeypatch.setenv("METASRV_GRPC_PASSWORD", "sesame")
    code = await asyncio.to_thread(ctl.main, [*arguments, "--grpc-api-address", node.address])
    printed = capsys.readouterr()
    assert (code, "Err(" in printed.out) == (0, False), printed.err


async def test_without_a_token_nothing_is_told(start_node: StartNode) -> None:
    node = await start_node(grpc_password=SecretText("sesame"))
    async with grpc.aio.insecure_channel(node.address) as channel:
        for method in m.METHODS:
            if method.kind is not m.Kind.SERVER_STREAM:
                continue
            call = channel.unary_stream(
                method.path,
                request_serializer=method.request.SerializeToString,
                response_deserializer=method.reply.FromString,
            )(pb.WatchRequest(key="a") if method is m.WATCH else method.request(), timeout=10)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call.read()
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED, method.name


async def test_the_client_library_renews_a_token_that_is_expired(start_node: StartNode) -> None:
    node = await start_node(grpc_password=SecretText("sesame"), grpc_token_lifetime_seconds=60)
    async with AsyncClient([node.address], password="sesame") as client:
        await client.upsert("a", b"1")
        for ask in (client.get("a"), client.upsert("a", b"2"), anext(client.export()), client.cluster_status()):
            node.clock.advance(3600)
            assert await ask is not None
        assert sum(connection.handshakes for connection in client._caller._connections.values()) == 5

"""The gRPC listener and the client library over loopback: one node, the real wire."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from metasrv.cli.certificates import generate
from metasrv.client import AsyncClient, Client, Transaction
from metasrv.client.connection import Connection, Credentials
from metasrv.config.model import SecretText
from metasrv.grpc_api import long_lists
from metasrv.grpc_api.leader import HINT_SECONDS
from metasrv.grpc_api.service import GrpcService
from metasrv.model.commands import MatchKind, MatchSeq
from metasrv.model.errors import (
    BindError,
    ConfigError,
    InvalidRequestError,
    NoLeaderError,
    NotDoneError,
    RequestError,
    TooLargeError,
    UnknownOutcomeError,
)
from metasrv.model.limits import GRPC_MESSAGE_SIZE_BYTES_DEFAULT
from metasrv.model.types import Endpoint
from metasrv.protocol import methods as m
from metasrv.protocol.proto import meta_pb2 as pb
from metasrv.protocol.proto import meta_pb2_grpc
from metasrv.testing.node_client import NodeClient
from tests.support.grpc_node import RunningNode, StartNode
from tests.support.waiting import until

# ----------------------------------------------------------------------------- keys


async def test_the_client_reads_what_it_wrote(start_node: StartNode) -> None:
    node = await start_node()
    async with AsyncClient([node.address]) as client:
        first = await client.upsert("a", b"1")
        assert first.prev is None
        assert first.result is not None
        assert first.result.seq == 1
        refused = await client.upsert("a", b"2", match=MatchSeq(MatchKind.EXACT, 9))
        assert refused.prev == refused.result == await client.get("a")
        assert [record and record.data for record in await client.get_many(["b", "a"])] == [None, b"1"]
        done = await client.transaction(Transaction().when_present("a").put("b/1", b"x").put("b/2", b"y"))
        assert (done.success, done.execution_path) == (True, "then")
        assert [key for key, _ in await client.list_prefix("b/")] == ["b/1", "b/2"]
        assert [key for key, _ in await client.list_prefix("", limit=2)] == ["a", "b/1"]
        gone = await client.delete("a")
        assert (gone.prev, gone.result) == (first.result, None)
        branch = await client.branch_transaction(pb.KvTransactionRequest())
        assert branch.executed_branch is None


async def test_a_large_reply_in_json_arrives_as_a_small_one(start_node: StartNode) -> None:
    node = await start_node()
    values = [bytes(range(256)) * size for size in (1, 40, 8_000)]
    async with NodeClient(Endpoint.parse(node.address), 30) as client:
        prev: dict[str, Any] | None = None
        for value in (*values, b"", *reversed(values)):
            request = {"UpsertKV": {"key": "k", "seq": {"GE": 0}, "value": {"Update": list(value)}, "value_meta": None}}
            reply = json.loads(await client.kv_api(pb.RaftRequest(data=json.dumps(request))))
            assert reply["prev"] == prev
            prev = reply["result"]
            assert prev is not None
            assert bytes(prev["data"]) == value


async def test_what_is_too_large_is_refused_before_it_is_sent(start_node: StartNode) -> None:
    node = await start_node()
    async with AsyncClient([node.address]) as client:
        with pytest.raises(TooLargeError):
            await client.upsert("a", bytes(GRPC_MESSAGE_SIZE_BYTES_DEFAULT))
        with pytest.raises(InvalidRequestError, match="the key in bytes is 5000"):
            await client.upsert("k" * 5000, b"")


async def test_messages_past_the_configured_size_are_refused_by_grpc(start_node: StartNode) -> None:
    node = await start_node(grpc_api_max_message_size=4096)
    async with AsyncClient([node.address]) as client:
        assert (await client.upsert("a", bytes(4000))).result
        with pytest.raises(InvalidRequestError, match="larger than max"):  # no handler saw it: certainly not done
            await client.upsert("a", bytes(5000))


async def test_several_clients_of_one_process_have_their_own_connections(start_node: StartNode) -> None:
    node = await start_node()
    async with AsyncClient([node.address]) as one, AsyncClient([node.address]) as other:
        assert (await one.client_info()).client_addr != (await other.client_info()).client_addr


# ----------------------------------------------------------------------------- endpoints and failures


async def test_a_dead_endpoint_is_passed_over_by_reads_and_writes(start_node: StartNode) -> None:
    node = await start_node()
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        dead = f"127.0.0.1:{unused.getsockname()[1]}"
        async with AsyncClient([dead, node.address]) as client:
            await client.upsert("a", b"1")
        async with AsyncClient([dead, node.address]) as client:
            assert await client.get("a")
        async with AsyncClient([dead], timeout_ms=300) as client:
            with pytest.raises(NotDoneError, match="Connection refused"):
                await client.upsert("a", b"1")


async def test_the_client_goes_where_it_is_sent(start_node: StartNode) -> None:
    leader, follower = await start_node(), await start_node()
    async with AsyncClient([follower.address]) as client:
        await client.get("warm")
        follower.name_leader(leader.address)
        follower.clock.advance(HINT_SECONDS + 0.01)
        await client.upsert("a", b"1")
        assert len(follower.consensus.proposals) == 2, "the token key, and a write that it forwarded"
        await client.upsert("b", b"1")
        assert leader.consensus.proposals[-1].if_then[0].key == "b"  # type: ignore[union-attr]
    async with AsyncClient([follower.address]) as client:
        reply = await client.branch_transaction(pb.KvTransactionRequest(branches=[pb.ConditionalOperation()]))
        assert reply.executed_branch == 0
        assert client.endpoints == (follower.address, leader.address)


async def test_hints_lead_to_the_leader_also_where_its_name_can_not_be_dialled(start_node: StartNode) -> None:
    """As from outside a container network: the nodes are reached by other addresses than those they advertise."""
    follower = await start_node(grpc_api_advertise_host="127.0.0.1")
    leader = await start_node(grpc_api_advertise_host="localhost")
    advertised = leader.context.config.grpc_api_advertise_address
    assert advertised == "localhost:0", "where nobody can listen"
    async with AsyncClient([follower.address, leader.address]) as client:
        await client.get("warm")
        follower.name_leader(advertised)
        for _ in range(3):
            await client.branch_transaction(pb.KvTransactionRequest(branches=[pb.ConditionalOperation()]))
        asked = client._caller.endpoints
        assert asked.current == leader.address
        follower.clock.advance(HINT_SECONDS + 0.01)
        asked.prefer(follower.address)
        await client.upsert("a", b"1")
        assert follower.consensus.proposals[-1].if_then[0].key == "a"  # type: ignore[union-attr]
        await client.upsert("b", b"1")
        assert leader.consensus.proposals[-1].if_then[0].key == "b"  # type: ignore[union-attr]


async def test_without_a_way_to_the_leader_the_follower_that_forwards_stays(start_node: StartNode) -> None:
    follower = await start_node()
    async with AsyncClient([follower.address], timeout_ms=1_000) as client:
        await client.get("warm")
        follower.name_leader("localhost:0")
        follower.clock.advance(HINT_SECONDS + 0.01)
        for number in range(20):
            await client.upsert(str(number), b"1")
        failed = client._caller._connections["localhost:0"]
        assert failed.handshakes == 1, "an address that cannot be dialled costs one call a delay, not each"
        with pytest.raises(NotDoneError, match="not leader"):
            await client.branch_transaction(pb.KvTransactionRequest())


async def test_the_members_are_asked_for_now_and_then(start_node: StartNode, monkeypatch: pytest.MonkeyPatch) -> None:
    node = await start_node()
    monkeypatch.setattr("metasrv.client.caller.MEMBERS_SECONDS", 0.0)
    async with AsyncClient([node.address]) as client:
        assert client.endpoints[0] == node.address
        assert len(client.endpoints) == 1
        await client.get("a")
        refresh = client._caller._refresh
        assert refresh is not None
        await refresh
        known: tuple[str, ...] = client.endpoints
        assert known == ("127.0.0.1:9191", "127.0.0.1:9192", "127.0.0.1:9193", node.address)
        assert client._caller.endpoints.current == node.address


async def test_two_nodes_that_point_at_each_other_end_in_not_done(start_node: StartNode) -> None:
    one, two = await start_node(), await start_node()
    async with AsyncClient([one.address], timeout_ms=1_000) as client:
        await client.get("warm")
        one.name_leader(two.address)
        two.name_leader(one.address)
        with pytest.raises(NotDoneError, match="not leader"):
            await client.branch_transaction(pb.KvTransactionRequest())


async def test_a_write_whose_connection_broke_is_unknown_and_not_sent_again(start_node: StartNode) -> None:
    node, other = await start_node(), await start_node()
    async with AsyncClient([node.address, other.address]) as client:
        await client.upsert("a", b"1")
        node.consensus.hold = asyncio.Event()
        writing = asyncio.create_task(client.upsert("a", b"2"))
        await until(lambda: len(node.consensus.proposals) == 3)
        await node.stop()
        with pytest.raises(UnknownOutcomeError, match="the outcome is unknown"):
            await writing
        assert other.consensus.proposals == []
        assert await client.get("a") is None, "reads go on at the other node"


async def test_the_write_after_one_without_an_answer_goes_to_another_node(start_node: StartNode) -> None:
    hung, other = await start_node(), await start_node()
    async with AsyncClient([hung.address, other.address], timeout_ms=300) as client:
        await client.upsert("a", b"1")
        hung.consensus.hold = asyncio.Event()
        with pytest.raises(UnknownOutcomeError):
            await client.upsert("a", b"2")
        await client.upsert("a", b"3")
        assert other.consensus.proposals[-1].if_then[0].value == b"3"  # type: ignore[union-attr]


async def test_a_write_past_its_deadline_is_unknown(start_node: StartNode) -> None:
    node = await start_node()
    async with AsyncClient([node.address], timeout_ms=300) as client:
        await client.upsert("a", b"1")
        node.consensus.hold = asyncio.Event()
        with pytest.raises(UnknownOutcomeError, match="deadline"):
            await client.upsert("a", b"2")


async def test_refusals_that_changed_nothing_are_tried_until_the_deadline(start_node: StartNode) -> None:
    node = await start_node()
    async with AsyncClient([node.address], timeout_ms=400) as client:
        await client.upsert("a", b"1")
        node.consensus.failure = NoLeaderError()
        with pytest.raises(NoLeaderError, match="no known leader"):
            await client.upsert("a", b"2")
        assert len(node.consensus.proposals) > 3
        node.consensus.failure = UnknownOutcomeError("it may be done")
        before = len(node.consensus.proposals)
        with pytest.raises(UnknownOutcomeError, match="it may be done"):
            await client.upsert("a", b"2")
        assert len(node.consensus.proposals) == before + 1


async def test_a_token_that_is_no_longer_known_is_replaced(start_node: StartNode) -> None:
    node = await start_node()
    async with AsyncClient([node.address]) as client:
        await client.get("a")
        node.service._authenticator._signer = None
        for connection in client._caller._connections.values():
            connection._token = b"stale"
        assert (await client.upsert("a", b"1")).result


async def test_a_wrong_password_is_final(start_node: StartNode) -> None:
    node = await start_node(grpc_password=SecretText("sesame"))
    async with AsyncClient([node.address], password="wrong") as client:
        with pytest.raises(InvalidRequestError, match="Wrong password"):
            await client.get("a")
    async with AsyncClient([node.address], password="sesame") as client:
        assert await client.get("a") is None


async def test_an_older_server_is_refused(start_node: StartNode) -> None:
    node = await start_node(grpc_announced_version="1.2.770")
    async with AsyncClient([node.address]) as client:
        with pytest.raises(InvalidRequestError, match=r"server protocol_version\(\(1, 2, 770\)\) < client"):
            await client.get("a")


async def test_a_closed_client_leaves_nothing_behind(start_node: StartNode) -> None:
    node = await start_node()
    before = asyncio.all_tasks()
    client = AsyncClient([node.address])
    watch = client.watch("a")
    reading = asyncio.create_task(anext(watch))
    await until(lambda: node.context.machine.watches.count == 1)
    await client.close()
    with pytest.raises((NotDoneError, asyncio.CancelledError)):
        await reading
    await until(lambda: node.context.machine.watches.count == 0)
    left = {task.get_name() for task in asyncio.all_tasks() - before if not task.done()}
    assert not {name for name in left if name.startswith("client")}
    with pytest.raises(NotDoneError, match="closed"):
        await client.get("a")
    await client.close()


# ----------------------------------------------------------------------------- streams


async def test_a_watch_from_the_first_record_to_the_stop(start_node: StartNode) -> None:
    node = await start_node()
    async with AsyncClient([node.address]) as client:
        await client.upsert("w/a", b"1")
        watch = client.watch("w/", "w0", initial_flush=True)
        existing, marker = await anext(watch), await anext(watch)
        assert (existing.key, existing.is_initialization, marker.is_marker) == ("w/a", True, True)
        await client.delete("w/a")
        change = await anext(watch)
        assert (change.key, change.current, change.is_initialization) == ("w/a", None, False)
        stopping = asyncio.create_task(node.stop(grace_ms=5_000))
        async with asyncio.timeout(2):
            with pytest.raises(NotDoneError, match="MetaNodeStopped"):
                await anext(watch)
            await stopping


async def test_a_watcher_that_left_is_forgotten_within_two_seconds(start_node: StartNode) -> None:
    node = await start_node()
    async with AsyncClient([node.address]) as client:
        watch = client.watch("w")
        reading = asyncio.create_task(anext(watch))
        await until(lambda: node.context.machine.watches.count == 1)
        reading.cancel()
        await until(lambda: node.context.machine.watches.count == 0, seconds=2.0)
        assert node.context.metrics.client.in_flight == 0


async def test_a_long_list_that_goes_on_is_not_cut_off_before_the_deadline(
    start_node: StartNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A third of the time is for the beginning; it used to be for the whole of the list."""
    node = await start_node()
    pages = long_lists.encoded_pages

    def slowly(*arguments: Any) -> Any:
        for page in pages(*arguments):
            yield page
            time.sleep(0.3)  # in the helper thread

    monkeypatch.setattr(long_lists, "encoded_pages", slowly)
    async with AsyncClient([node.address]) as client:
        puts = [pb.TxnOp(put=pb.TxnPutRequest(key=f"l/{number:04}", value=b"")) for number in range(4_000)]
        await client.transaction(pb.TxnRequest(if_then=puts))
    # Eight pages take 2.4 s: more than a third of 6 s, and far less than all of it, also on a busy machine.
    async with AsyncClient([node.address], timeout_ms=6_000) as client:
        assert len(await client.list_prefix("l/")) == 4_000
        await client.upsert("l/0000", b"")  # the list is not sent from memory
    async with AsyncClient([node.address], timeout_ms=900) as client:
        with pytest.raises(NotDoneError):
            await client.list_prefix("l/")


async def test_get_many_answers_before_the_input_ends(start_node: StartNode) -> None:
    node = await start_node()
    async with AsyncClient([node.address]) as client, grpc.aio.insecure_channel(node.address) as channel:
        await client.upsert("a", b"1")
        token = next(iter(client._caller._connections.values()))._token
        stub: Any = meta_pb2_grpc.MetaServiceStub(channel)  # type: ignore[no-untyped-call]
        call = stub.KvGetMany(metadata=((m.TOKEN_METADATA_KEY, token),))
        for key, present in (("a", True), ("b", False)):
            await call.write(pb.KvGetManyRequest(key=key))
            item = await asyncio.wait_for(call.read(), 2)
            assert (item.key, item.HasField("value")) == (key, present)
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF


async def test_not_leader_is_a_status_without_initial_metadata(start_node: StartNode) -> None:
    node = await start_node()
    async with AsyncClient([node.address]) as client, grpc.aio.insecure_channel(node.address) as channel:
        await client.get("a")
        node.name_leader("leader:1")
        token = next(iter(client._caller._connections.values()))._token
        stub: Any = meta_pb2_grpc.MetaServiceStub(channel)  # type: ignore[no-untyped-call]
        call = stub.KvList(pb.KvListRequest(prefix=""), metadata=((m.TOKEN_METADATA_KEY, token),))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.UNAVAILABLE, "not leader")
        assert dict(caught.value.trailing_metadata())[m.LEADER_METADATA_KEY] == "leader:1"
        assert m.LEADER_METADATA_KEY not in dict(caught.value.initial_metadata() or ())


async def test_export_and_keys_layout(start_node: StartNode, tmp_path: Path) -> None:
    node = await start_node()
    async with AsyncClient([node.address]) as client:
        for i in range(5):
            await client.upsert(f"d/{i}", b"x")
        lines = [line async for line in client.export(chunk_size=2)]
        assert sum("GenericKV" in line for line in lines) == 5
        assert [item async for item in client.keys_layout()] == [], "no snapshot yet"
        node.consensus.write_snapshot(tmp_path / "one.snap")
        assert [item async for item in client.keys_layout()] == [("d", 5), ("", 5)]


async def test_random_bytes_as_any_message(start_node: StartNode) -> None:
    node = await start_node()
    async with AsyncClient([node.address]) as client, grpc.aio.insecure_channel(node.address) as channel:
        await client.get("a")
        token = next(iter(client._caller._connections.values()))._token
        for method in m.METHODS:
            if method.kind is not m.Kind.UNARY:
                continue
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary(method.path)(b"\xff\xff", metadata=((m.TOKEN_METADATA_KEY, token),))
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


# ----------------------------------------------------------------------------- the listener


async def test_a_port_in_use_is_a_clear_bind_error(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        node = RunningNode(tmp_path)
        node.context.config = node.context.config.model_copy(update={"grpc_api_address": f"127.0.0.1:{port}"})
        with pytest.raises(BindError, match=f"cannot listen at 127.0.0.1:{port}: the address is in use"):
            await node.service.start()
        await node.stop()
        node.context.machine.close()


async def test_an_address_of_another_machine_is_a_clear_bind_error(tmp_path: Path) -> None:
    node = RunningNode(tmp_path)
    node.context.config = node.context.config.model_copy(update={"grpc_api_address": "192.0.2.1:9191"})
    with pytest.raises(BindError, match=r"cannot listen at 192\.0\.2\.1:9191: Cannot assign requested address"):
        await node.service.start()
    await node.stop()
    node.context.machine.close()


async def test_health_follows_the_node(start_node: StartNode) -> None:
    node = await start_node()
    async with grpc.aio.insecure_channel(node.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)

        async def status(service: str) -> int:
            return (await stub.Check(health_pb2.HealthCheckRequest(service=service))).status  # type: ignore[no-any-return]

        for service in ("", "meta.MetaService"):
            assert await status(service) == health_pb2.HealthCheckResponse.SERVING
        node.consensus.follow(None)
        async with asyncio.timeout(3):
            while await status("") != health_pb2.HealthCheckResponse.NOT_SERVING:  # noqa: ASYNC110 - it is polled
                await asyncio.sleep(0.05)


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_under_both_names(start_node: StartNode, version: str) -> None:
    node = await start_node()
    async with grpc.aio.insecure_channel(node.address) as channel:
        ask = channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        requests = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol="meta.MetaService"),
        ]
        listed, described = [response async for response in ask(iter(requests))]
        names = {service.name for service in listed.list_services_response.service}
        assert {"meta.MetaService", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"} <= names
        assert described.file_descriptor_response.file_descriptor_proto


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl program")
async def test_tls(start_node: StartNode, tmp_path: Path) -> None:
    cert, key = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    subject = ["-subj", "/CN=metasrv", "-addext", "subjectAltName=DNS:metasrv,IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", *subject]
    await asyncio.to_thread(subprocess.run, [*command, "-keyout", key, "-out", cert], check=True, capture_output=True)
    node = await start_node(grpc_tls_server_cert=cert, grpc_tls_server_key=key)
    async with AsyncClient([node.address], tls_ca_file=cert) as client:
        assert (await client.upsert("a", b"1")).result
    async with AsyncClient([node.address], timeout_ms=500) as client:
        with pytest.raises(NotDoneError):
            await client.get("a")
    broken = RunningNode(tmp_path, grpc_tls_server_cert=key, grpc_tls_server_key=key)
    with pytest.raises(BindError, match=r"grpc_tls_server_cert .* or grpc_tls_server_key .* is not usable"):
        await broken.service.start()
    await broken.stop()
    missing = broken.context.config.model_copy(update={"grpc_tls_server_cert": "/nowhere"})
    broken.context.config = missing
    with pytest.raises(ConfigError, match="grpc_tls_server_cert: /nowhere cannot be read"):
        await GrpcService(broken.context).start()
    broken.context.machine.close()


async def test_a_new_certificate_and_a_new_password_take_effect(start_node: StartNode, tmp_path: Path) -> None:
    directory = tmp_path / "tls"
    generate(directory, {"node": ["127.0.0.1"]}, [], 1)
    certificate, key, authority = (str(directory / name) for name in ("node.pem", "node-key.pem", "ca.pem"))
    node = await start_node(grpc_tls_server_cert=certificate, grpc_tls_server_key=key)
    context = node.context
    async with AsyncClient([node.address], tls_ca_file=authority) as early:
        assert (await early.upsert("a", b"1")).result
        await asyncio.to_thread(generate, tmp_path / "other", {"node": ["127.0.0.1"]}, [], 1)
        for name in ("node.pem", "node-key.pem"):
            (directory / name).write_bytes((tmp_path / "other" / name).read_bytes())
        await context.reloader.look(everything=True)
        assert context.metrics.security.reload_failed == {"grpc": False}
        assert await early.get("a") is not None, "a connection that is open stays"
    async with AsyncClient([node.address], tls_ca_file=authority, timeout_ms=500) as late:
        with pytest.raises(NotDoneError):
            await late.get("a")
    trusted = str(tmp_path / "other" / "ca.pem")
    async with AsyncClient([node.address], tls_ca_file=trusted) as late:
        assert await late.get("a") is not None
        context.config = context.config.model_copy(update={"grpc_password": SecretText("new")})
        await context.reloader.look(everything=True)
        with pytest.raises(RequestError, match="Wrong password"):
            await late.get("a")
    async with AsyncClient([node.address], tls_ca_file=trusted, password="new") as late:
        assert await late.get("a") is not None


async def test_calls_in_flight_finish_within_the_grace(start_node: StartNode) -> None:
    node = await start_node()
    async with AsyncClient([node.address]) as client:
        await client.get("a")
        node.consensus.hold = asyncio.Event()
        writing = asyncio.create_task(client.upsert("a", b"1"))
        await until(lambda: len(node.consensus.proposals) == 2)
        stopping = asyncio.create_task(node.stop(grace_ms=5_000))
        await asyncio.sleep(0.05)
        node.consensus.hold.set()
        assert (await writing).result is not None
        await stopping


# ----------------------------------------------------------------------------- the blocking client


def test_the_blocking_client(tmp_path: Path) -> None:
    address, done = [""], threading.Event()
    ready = threading.Event()

    async def serve() -> None:
        node = await RunningNode(tmp_path).start()
        address[0] = node.address
        ready.set()
        await asyncio.to_thread(done.wait)
        await node.stop()
        node.context.machine.close()

    server = threading.Thread(target=asyncio.run, args=(serve(),))
    server.start()
    try:
        assert ready.wait(10)
        with Client([address[0]]) as client:
            assert client.upsert("b/a", b"1").result is not None
            record = client.get("b/a")
            assert record is not None
            assert record.data == b"1"
            assert [key for key, _ in client.list_prefix("b/")] == ["b/a"]
            for event in client.watch("b/", "b0", initial_flush=True):
                if event.is_marker:
                    break
                assert event.key == "b/a"
            assert client.transaction(Transaction().put("b/b", b"")).success
            assert client.member_list() == ["127.0.0.1:9191", "127.0.0.1:9192", "127.0.0.1:9193"]
            assert client.cluster_status().id == 1
            assert client.delete("b/a").result is None
            assert list(client.keys_layout()) == [], "no snapshot yet"
            assert any("GenericKV" in line for line in client.export())
    finally:
        done.set()
        server.join()


async def test_a_connection_is_made_anew_after_it_broke(start_node: StartNode) -> None:
    node = await start_node()
    connection = Connection(node.address, Credentials())
    answer = await connection.unary(m.GET_CLIENT_INFO, pb.Empty(), 2.0)
    assert answer.leader_address is None
    connection.forget_token()
    again = await connection.unary(m.GET_CLIENT_INFO, pb.Empty(), 2.0)
    assert again.message.client_addr == answer.message.client_addr
    await connection.close()

"""Handshake, tokens and the companions of MetaService over the wire (docs/contract/grpc.md sections a.1 and b)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from metasrv.protocol.proto import meta_pb2 as pb
from metasrv.testing.processes import ProcessCluster
from tests.support.grpc_wire import Wire

OLDEST = 1_002_676
METHODS = {  # docs/contract/grpc.md section a.1: request, reply, client streams, server streams
    "Handshake": ("HandshakeRequest", "HandshakeResponse", True, True),
    "KvApi": ("RaftRequest", "RaftReply", False, False),
    "KvReadV1": ("RaftRequest", "StreamItem", False, True),
    "KvList": ("KvListRequest", "StreamItem", False, True),
    "KvGetMany": ("KvGetManyRequest", "StreamItem", True, True),
    "Export": ("Empty", "ExportedChunk", False, True),
    "ExportV1": ("ExportRequest", "ExportedChunk", False, True),
    "SnapshotKeysLayout": ("KeysLayoutRequest", "KeysCount", False, True),
    "Watch": ("WatchRequest", "WatchResponse", False, True),
    "Transaction": ("TxnRequest", "TxnReply", False, False),
    "KvTransaction": ("KvTransactionRequest", "KvTransactionReply", False, False),
    "MemberList": ("MemberListRequest", "MemberListReply", False, False),
    "GetClusterStatus": ("Empty", "ClusterStatus", False, False),
    "GetClientInfo": ("Empty", "ClientInfo", False, False),
    "Migrate": ("MigrateRequest", "MigrateReply", False, False),
}
NEED_A_TOKEN = ("KvApi", "KvReadV1", "KvList", "KvGetMany", "Transaction", "KvTransaction", "MemberList", "Migrate")


@pytest.fixture
async def node(start_cluster: Any) -> ProcessCluster:
    """One node, not yet started."""
    cluster: ProcessCluster = start_cluster(1)
    return cluster


def wire_of(cluster: ProcessCluster) -> Wire:
    return Wire(str(cluster.nodes[1].grpc))


def refusal(ask: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        ask()
    error: Any = caught.value
    return error.code(), error.details()


def ask(wire: Wire, name: str, metadata: Any) -> None:
    request_type, _, streams, answers = METHODS[name]
    request = getattr(pb, request_type)()
    if request_type == "RaftRequest":
        request.data = (
            '{"GetKV":{"key":"k"}}' if name == "KvReadV1" else '{"UpsertKV":{"key":"k","seq":"Any","value":"Delete"}}'
        )
    call = getattr(wire.stub, name)(iter([request]) if streams else request, metadata=metadata, timeout=5)
    if name == "Watch":
        call.initial_metadata()
        call.cancel()
    elif answers:
        list(call)


async def test_versions_users_and_tokens(node: ProcessCluster) -> None:
    await node.boot()
    wire = wire_of(node)
    for version in (0, OLDEST, 260_205_013_002, 260_629_002_000, 2**64 - 1):
        reply = wire.handshake(version)
        assert reply.protocol_version == 260_629_002_000
        assert reply.payload
    code, text = refusal(lambda: wire.handshake(OLDEST - 1))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert text == "meta-client protocol_version(1.2.675) < metasrv min-compatible(1.2.676)"
    assert refusal(lambda: wire.handshake(username="eve")) == (grpc.StatusCode.UNAUTHENTICATED, "Unknown user: eve")
    for password in ("", "xxx", "anything"):
        assert wire.handshake(password=password).payload, "without a configured password none is asked for"
    empty = refusal(lambda: list(wire.stub.Handshake(iter([]), timeout=5)))
    assert empty == (grpc.StatusCode.INTERNAL, "Error request next is None")
    broken = pb.HandshakeRequest(protocol_version=OLDEST, payload=b"\xff\xff")
    assert refusal(lambda: list(wire.stub.Handshake(iter([broken]), timeout=5)))[0] is grpc.StatusCode.INTERNAL
    for name in METHODS:
        if name == "Handshake":
            continue
        if name == "Migrate":  # the token is good, and what is behind it is not turned on
            assert "the feature migration is off" in refusal(lambda: ask(wire, "Migrate", wire.token))[1]
        else:
            ask(wire, name, wire.token)
        if name in NEED_A_TOKEN:
            missing = refusal(lambda name=name: ask(wire, name, ()))
            assert missing == (grpc.StatusCode.UNAUTHENTICATED, "Error auth-token-bin is empty")
            code, text = refusal(lambda name=name: ask(wire, name, (("auth-token-bin", b"a.b.c"),)))
            assert code is grpc.StatusCode.UNAUTHENTICATED
            assert text.startswith("token verify failed: ")
        else:
            ask(wire, name, ())
    wire.close()


async def test_a_handshake_is_cheap_and_writes_nothing(node: ProcessCluster) -> None:
    """Clients of upstream's library make one for each connection, and drop connections after twenty seconds."""
    await node.boot()
    wire = wire_of(node)
    wire.handshake()
    before = await node.status(1)
    started = time.perf_counter()
    for _ in range(200):
        wire.handshake()
    assert (time.perf_counter() - started) / 200 < 0.02
    after = await node.status(1)
    assert before is not None
    assert after is not None
    assert after["last_log_index"] == before["last_log_index"]
    wire.close()


async def test_a_configured_password_is_really_checked_and_a_new_one_ends_old_tokens(node: ProcessCluster) -> None:
    node.start(1, METASRV_GRPC_PASSWORD="sesame", METASRV_GRPC_MIN_CLIENT_VERSION="260205.0.0")
    await node.wait_for_leader()
    wire = wire_of(node)
    token = (("auth-token-bin", wire.handshake(password="sesame").payload),)
    ask(wire, "MemberList", token)
    for password in ("", "xxx", "Sesame", "sesame "):
        wrong = refusal(lambda password=password: wire.handshake(password=password))
        assert wrong == (grpc.StatusCode.UNAUTHENTICATED, "Wrong password of user: root")
    assert refusal(lambda: wire.handshake(OLDEST, password="sesame"))[0] is grpc.StatusCode.INVALID_ARGUMENT
    wire.close()
    await node.stop(1)
    node.start(1, METASRV_GRPC_PASSWORD="another")
    await node.wait_for_leader()
    await node.wait_for_ready()  # with gateways it leads before they serve
    wire = wire_of(node)
    code, text = refusal(lambda: ask(wire, "MemberList", token))
    assert code is grpc.StatusCode.UNAUTHENTICATED
    assert text.startswith("token verify failed: ")
    ask(wire, "MemberList", (("auth-token-bin", wire.handshake(password="another").payload),))
    assert "sesame" not in node.nodes[1].output()
    assert "another" not in node.nodes[1].output()
    wire.close()


# ----------------------------------------------------------------------------- reflection and health


class Reflection:
    """What grpcurl does: list the services, fetch the files of a symbol, and build the messages from nothing else."""

    def __init__(self, wire: Wire, version: str) -> None:
        self._ask = wire.channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )

    def services(self) -> list[str]:
        request = reflection_pb2.ServerReflectionRequest(list_services="*")
        (answer,) = self._ask(iter([request]), timeout=5)
        return [service.name for service in answer.list_services_response.service]

    def files(self, symbol: str) -> Iterator[descriptor_pb2.FileDescriptorProto]:
        request = reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol)
        (answer,) = self._ask(iter([request]), timeout=5)
        for data in answer.file_descriptor_response.file_descriptor_proto:
            yield descriptor_pb2.FileDescriptorProto.FromString(data)


async def test_reflection_lists_and_describes_the_service_and_health_answers(node: ProcessCluster) -> None:
    await node.boot()
    wire = wire_of(node)
    for version in ("v1", "v1alpha"):
        reflection = Reflection(wire, version)
        assert set(reflection.services()) >= {
            "meta.MetaService",
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection",
        }
        pool = descriptor_pool.DescriptorPool()
        for file in reflection.files("meta.MetaService"):
            pool.Add(file)
        service = pool.FindServiceByName("meta.MetaService")
        assert {
            method.name: (
                method.input_type.name,
                method.output_type.name,
                method.client_streaming,
                method.server_streaming,
            )
            for method in service.methods
        } == METHODS
        for symbol in ("meta.TxnRequest", "meta.MetaService.Transaction", "grpc.health.v1.Health"):
            assert list(reflection.files(symbol)), symbol
    health = health_pb2_grpc.HealthStub(wire.channel)
    for name in ("", "meta.MetaService"):
        answer = health.Check(health_pb2.HealthCheckRequest(service=name), timeout=5)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    assert refusal(lambda: health.Check(health_pb2.HealthCheckRequest(service="other"), timeout=5))[0] is (
        grpc.StatusCode.NOT_FOUND
    )
    wire.close()

"""Every method against random bytes and random well-formed messages, on three nodes.

Never an INTERNAL by accident, never a node that ends, never nodes that differ. `--fuzz-examples` asks for more than
the few that fit into `make test`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metasrv.protocol import methods as m
from metasrv.protocol.proto import meta_pb2 as pb
from metasrv.testing.processes import ProcessCluster
from tests.support.grpc_wire import LEADER_HEADER, OWN_LINE, Wire

pytestmark = pytest.mark.xdist_group("grpc-fuzz")

MESSAGES_MAX = 3
CALL_SECONDS = 5.0
U64_MAX = 2**64 - 1
INTERNAL_ON_PURPOSE = {
    m.HANDSHAKE: ("Error request next is None", "the payload of the handshake is not a BasicAuth"),
    m.KV_API: ("the request is not JSON", "'", "KvApi knows UpsertKV only"),
}
"""docs/contract/grpc.md sections b.2 and c name these; the texts are this server's own sentences."""
SEEN: dict[str, set[str]] = {}
"""Codes that each method answered with, for the last test."""


class Target:
    """Three nodes; calls go to each in turn, those for the leader alone also there."""

    def __init__(self, cluster: ProcessCluster) -> None:
        self.cluster = cluster
        self.wires = [Wire(str(node.grpc)) for node in cluster.nodes.values()]
        self.turn = 0

    def next_wire(self) -> Wire:
        self.turn += 1
        return self.wires[self.turn % len(self.wires)]

    def call(self, method: m.Method, requests: list[bytes]) -> None:
        """One call with raw bytes; checks how it ends."""
        wire = self.next_wire()
        code, details, metadata = call(wire, method, requests)
        if details == "not leader":
            address = metadata.get(LEADER_HEADER)
            wire = next((wire for wire in self.wires if wire.address == address), wire)
            code, details, metadata = call(wire, method, requests)
        SEEN.setdefault(method.name, set()).add(code.name)
        assert code in EXPECTED, (method.name, code, details)
        if code is grpc.StatusCode.INTERNAL:
            assert details.startswith(INTERNAL_ON_PURPOSE.get(method, ())), (method.name, details)
            assert "internal error" not in details


EXPECTED = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.CANCELLED,  # this end's own doing
}


def call(wire: Wire, method: m.Method, requests: list[bytes]) -> tuple[grpc.StatusCode, str, dict[str, Any]]:
    metadata = wire.token if method.token else ()
    channel = wire.channel
    try:
        if method.kind is m.Kind.UNARY:
            channel.unary_unary(method.path)(requests[0], metadata=metadata, timeout=CALL_SECONDS)
            return grpc.StatusCode.OK, "", {}
        if method.kind is m.Kind.SERVER_STREAM:
            answers = channel.unary_stream(method.path)(requests[0], metadata=metadata, timeout=CALL_SECONDS)
        else:
            answers = channel.stream_stream(method.path)(iter(requests), metadata=metadata, timeout=CALL_SECONDS)
        if method is m.WATCH:
            answers.initial_metadata()
            answers.cancel()  # a good watch has no end
        for _ in answers:
            continue
    except grpc.RpcError as error:
        failure: Any = error
        return failure.code(), failure.details() or "", dict(failure.trailing_metadata() or ())
    return grpc.StatusCode.OK, "", {}


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    cluster = ProcessCluster(3)
    try:
        asyncio.run(cluster.boot())
        found = Target(cluster)
        yield found
        for wire in found.wires:
            wire.close()
    finally:
        cluster.close()


# ----------------------------------------------------------------------------- what is sent

keys = st.sampled_from(["", "a", "a/", "a/b", "b", "é", "\U0010ffff"]) | st.text(max_size=6)
unsigned = st.sampled_from([0, 1, 2, 10**11, 10**11 + 1, 4 * 10**12, 2**63, U64_MAX]) | st.integers(0, U64_MAX)
SCALARS: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.TYPE_STRING: keys,
    FieldDescriptor.TYPE_BYTES: st.binary(max_size=20) | st.sampled_from([b"7", b"\x12\x04root"]),
    FieldDescriptor.TYPE_UINT64: unsigned,
    FieldDescriptor.TYPE_UINT32: unsigned.map(lambda number: number % 2**32),
    FieldDescriptor.TYPE_INT64: st.integers(-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_ENUM: st.integers(0, 7) | st.just(2**31 - 1),
}


def messages(descriptor: Any, depth: int = 4) -> st.SearchStrategy[dict[str, Any]]:
    """Arguments for a message: any of its fields, at most one of a oneof."""
    fields: dict[str, st.SearchStrategy[Any]] = {}
    for field in descriptor.fields:
        if field.message_type is not None:
            if depth == 0:
                continue
            value: st.SearchStrategy[Any] = messages(field.message_type, depth - 1)
        else:
            value = SCALARS[field.type]
        fields[field.name] = st.lists(value, max_size=3) if field.is_repeated else value
    return st.fixed_dictionaries({}, optional=fields).map(lambda chosen: _one_of_each(descriptor, chosen))


def _one_of_each(descriptor: Any, chosen: dict[str, Any]) -> dict[str, Any]:
    for oneof in descriptor.oneofs:
        for name in [field.name for field in oneof.fields if field.name in chosen][1:]:
            del chosen[name]
    return chosen


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-1, U64_MAX + 1) | st.floats() | keys,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=6,
)
match_seqs = st.just("Any") | st.builds(lambda kind, n: {kind: n}, st.sampled_from(["Exact", "GE"]), unsigned)
json_operations = st.sampled_from(["Delete", "AsIs"]) | st.builds(
    lambda data: {"Update": list(data)}, st.binary(max_size=8)
)
meta_specs = st.none() | st.fixed_dictionaries(
    {"expire_at": st.none() | unsigned}, optional={"ttl": st.fixed_dictionaries({"millis": unsigned})}
)
upserts = st.fixed_dictionaries(
    {
        "key": keys | json_values,
        "seq": match_seqs | json_values,
        "value": json_operations | json_values,
        "value_meta": meta_specs | json_values,
    }
)
WRITES = st.fixed_dictionaries({"UpsertKV": upserts}) | json_values
READS = (
    st.fixed_dictionaries({"GetKV": st.fixed_dictionaries({"key": keys | json_values})})
    | st.fixed_dictionaries({"MGetKV": st.fixed_dictionaries({"keys": st.lists(keys | json_values, max_size=4)})})
    | st.fixed_dictionaries({"ListKV": st.fixed_dictionaries({"prefix": keys | json_values})})
    | json_values
)


def requests_of(method: m.Method) -> st.SearchStrategy[Message]:
    if method in (m.KV_API, m.KV_READ_V1):
        return (WRITES if method is m.KV_API else READS).map(lambda tree: pb.RaftRequest(data=json.dumps(tree)))
    if method is m.HANDSHAKE:  # chance alone hardly ever finds a user name
        good = pb.BasicAuth(username="root", password="xxx").SerializeToString()
        versions = st.just(0) | st.integers(0, 2**64 - 1)
        return st.builds(pb.HandshakeRequest, protocol_version=versions, payload=st.just(good) | st.binary(max_size=40))
    return messages(method.request.DESCRIPTOR).map(lambda chosen: method.request(**chosen))


def examples(request: pytest.FixtureRequest) -> settings:
    return settings(
        max_examples=request.config.getoption("--fuzz-examples"),
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )


# ----------------------------------------------------------------------------- the tests

every_method = pytest.mark.parametrize("method", m.METHODS, ids=[method.name for method in m.METHODS])


@every_method
def test_random_bytes(target: Target, method: m.Method, request: pytest.FixtureRequest) -> None:
    @examples(request)
    @given(data=st.lists(st.binary(max_size=40), min_size=1, max_size=MESSAGES_MAX))
    def run(data: list[bytes]) -> None:
        target.call(method, data)

    run()
    assert SEEN[method.name]


@every_method
def test_random_messages(target: Target, method: m.Method, request: pytest.FixtureRequest) -> None:
    @examples(request)
    @given(sent=st.lists(requests_of(method), min_size=1, max_size=MESSAGES_MAX))
    def run(sent: list[Message]) -> None:
        target.call(method, [message.SerializeToString() for message in sent])

    run()
    # A migration is refused while its feature is off; one that had begun would end the writes of all other tests.
    good = {"INVALID_ARGUMENT"} if method is m.MIGRATE else {"OK", "CANCELLED"}
    assert SEEN[method.name] & good, "some messages must have been good ones"


def test_damaged_messages(target: Target, request: pytest.FixtureRequest) -> None:
    """Good messages with a byte changed or an end cut off get further than noise does."""

    @examples(request)
    @given(method=st.sampled_from(m.METHODS), data=st.data())
    def run(method: m.Method, data: st.DataObject) -> None:
        message = bytearray(data.draw(requests_of(method)).SerializeToString())
        if message and data.draw(st.booleans()):
            message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
        cut = data.draw(st.integers(0, len(message)))
        target.call(method, [bytes(message[: len(message) - cut])])

    before = target.turn
    run()
    assert target.turn > before


def test_every_node_lives_and_all_hold_the_same(target: Target) -> None:
    cluster = target.cluster
    assert cluster.running() == [1, 2, 3]
    asyncio.run(cluster.wait_until_equal())
    exports = [wire.export_lines() for wire in target.wires]
    one, two, three = ([line for line in lines if not line.startswith(OWN_LINE)] for lines in exports)
    assert one == two == three
    for wire in target.wires:
        assert wire.put("alive").current.seq
    for node in cluster.nodes.values():
        assert "Traceback" not in node.output()

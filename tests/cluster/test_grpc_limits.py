"""Limits over the wire: what is at one works, what is one past it has its status, and nothing is lost (limits.py)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from metasrv.model import limits
from metasrv.protocol.proto import meta_pb2 as pb
from metasrv.testing.processes import ProcessCluster
from tests.support.grpc_wire import Wire, all_of, branch, get, put, when

pytestmark = pytest.mark.xdist_group("grpc-limits")

INVALID = grpc.StatusCode.INVALID_ARGUMENT
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
NOT_DONE = {"x-metasrv-outcome": "not-done"}


@pytest.fixture(scope="module")
def wires() -> Iterator[list[Wire]]:
    """A single node, and a node that follows in a cluster of three whose patience suits large entries."""
    clusters = [ProcessCluster(1), ProcessCluster(3, settings={"heartbeat_interval": 600})]
    found: list[Wire] = []
    try:
        asyncio.run(clusters[0].boot())
        leader = asyncio.run(clusters[1].boot())
        follower = next(node_id for node_id in clusters[1].nodes if node_id != leader)
        found = [Wire(str(clusters[0].nodes[1].grpc)), Wire(str(clusters[1].nodes[follower].grpc))]
        yield found
    finally:
        for wire in found:
            wire.close()
        for cluster in clusters:
            cluster.close()


@pytest.fixture(params=["one node", "a follower of three"])
def wire(wires: list[Wire], request: pytest.FixtureRequest) -> Wire:
    return wires[int(request.param != "one node")]


def refused(ask: Callable[[], Any], code: grpc.StatusCode, text: str, wire: Wire) -> None:
    """`ask` ends with this status, and takes no sequence number."""
    before = wire.seq()
    with pytest.raises(grpc.RpcError) as caught:
        ask()
    error: Any = caught.value
    assert error.code() is code, error.details()
    assert text in error.details()
    assert dict(error.trailing_metadata()) == NOT_DONE
    assert wire.seq() == before + 1, "nothing was done, and the node goes on"


def every_refusal(wire: Wire, key: str) -> list[Callable[[], Any]]:
    """Each request that names a key."""
    return [
        lambda: wire.put(key),
        lambda: wire.delete(key),
        lambda: wire.upsert(key, b""),
        lambda: wire.get(key),
        lambda: wire.mget("k", key),
        lambda: wire.list_prefix(key),
        lambda: wire.kv_list(key),
        lambda: wire.kv_get_many(key),
        lambda: wire.transaction(pb.TxnRequest(condition=[when(key, seq=0)])),
        lambda: wire.kv_transaction(branch(None, get(key))),
        lambda: next(wire.stub.Watch(pb.WatchRequest(key=key), timeout=5)),
        lambda: next(wire.stub.Watch(pb.WatchRequest(key="a", key_end=key), timeout=5)),
    ]


def test_keys(wire: Wire) -> None:
    for longest in ("k" * limits.KEY_SIZE_BYTES_MAX, "é" * (limits.KEY_SIZE_BYTES_MAX // 2)):
        too_long = longest + "k"
        record = wire.put(longest).current
        assert wire.get(longest) == record
        assert [item.value for item in (*wire.mget(longest), *wire.kv_get_many(longest))] == [record, record]
        assert wire.list_prefix(longest)[0].value == wire.kv_list(longest)[0].value == record
        wire.upsert(longest, b"2")
        assert wire.transaction(pb.TxnRequest(condition=[when(longest, 1, seq=0)], if_then=[get(longest)])).success
        with wire.watch(longest, "\U0010ffff", initial_flush=True) as events:
            assert next(events).event.key == longest
        text = f"is {limits.KEY_SIZE_BYTES_MAX + 1}, the limit is {limits.KEY_SIZE_BYTES_MAX}"
        for ask in every_refusal(wire, too_long):
            refused(ask, INVALID, text, wire)


def test_the_key_that_put_sequential_makes(wire: Wire) -> None:
    def sequential(size: int) -> Any:
        operation = pb.TxnOp(put_sequential=pb.PutSequential(prefix="p" * size, sequence_key="n", value=b"v"))
        return wire.run(operation)

    longest = limits.KEY_SIZE_BYTES_MAX - 27
    (done,) = sequential(longest)
    assert len(done.key) == limits.KEY_SIZE_BYTES_MAX
    refused(lambda: sequential(longest + 1), INVALID, "the key made from the prefix", wire)


def test_values(wire: Wire) -> None:
    largest = bytes(limits.VALUE_SIZE_BYTES_MAX)
    try:
        assert wire.put("large", largest).current.data == largest
        record = wire.get("large")
        assert record is not None
        assert record.data == largest
        text = f"the value in bytes is {len(largest) + 1}, the limit is {len(largest)}"
        refused(lambda: wire.put("large", largest + b"x"), INVALID, text, wire)
        too_large = when("large", value=largest + b"x")
        refused(lambda: wire.transaction(pb.TxnRequest(condition=[too_large])), INVALID, text, wire)
        assert wire.get("large") == record
    finally:
        wire.delete("large")


def test_messages(wires: list[Wire]) -> None:
    """On one node: 32 MiB in one log entry is more than a test's cluster on a busy machine should have to replicate."""
    wire = wires[0]

    def of_size(size: int) -> pb.TxnRequest:
        request = pb.TxnRequest(if_then=[put("m/1", bytes(size // 2)), put("m/2", bytes(size // 2 - 100))])
        spare = size - request.ByteSize()
        request.if_then[1].put.value += bytes(spare)
        assert request.ByteSize() == size
        return request

    size = limits.GRPC_MESSAGE_SIZE_BYTES_DEFAULT
    assert len(wire.transaction(of_size(size)).responses) == 2
    before = wire.seq()
    with pytest.raises(grpc.RpcError) as caught:
        wire.transaction(of_size(size + 1))
    assert caught.value.code() is EXHAUSTED
    assert f"larger than max ({size + 1} vs. {size})" in caught.value.details()
    assert wire.seq() == before + 1
    wire.run(pb.TxnOp(delete_by_prefix=pb.TxnDeleteByPrefixRequest(prefix="m/")))


def test_operations_and_conditions(wire: Wire) -> None:
    most = limits.TRANSACTION_OPERATIONS_MAX
    text = f"is {most + 1}, the limit is {most}"
    assert len(wire.run(*(get("k") for _ in range(most)))) == most
    refused(lambda: wire.run(*(get("k") for _ in range(most + 1))), INVALID, text, wire)
    conditions = [when("k", 1, seq=0)] * (most - 1)
    wire.put("k")
    assert wire.transaction(pb.TxnRequest(condition=conditions, if_then=[get("k")])).success
    refused(lambda: wire.transaction(pb.TxnRequest(condition=conditions, if_then=[get("k")] * 2)), INVALID, text, wire)
    branches = [branch(all_of(when("k", 1, seq=0)), get("k"))] * (most // 2)
    assert wire.kv_transaction(*branches).executed_branch == 0
    refused(lambda: wire.kv_transaction(*branches, branch(None, get("k"))), INVALID, text, wire)


def test_nesting(wire: Wire) -> None:
    def nested(depth: int) -> pb.ConditionalOperation:
        tree = all_of()
        for _ in range(depth - 1):
            tree = all_of(trees=[tree])
        return branch(tree, get("k"))

    most = limits.TRANSACTION_DEPTH_MAX
    assert wire.kv_transaction(nested(most)).executed_branch == 0
    assert wire.transaction(pb.TxnRequest(operations=[nested(most)])).execution_path == "operation:0"
    text = f"is {most + 1}, the limit is {most}"
    refused(lambda: wire.kv_transaction(nested(most + 1)), INVALID, text, wire)
    # Past what protobuf itself parses: still an answer.
    refused(lambda: wire.transaction(pb.TxnRequest(operations=[nested(98)])), INVALID, "", wire)

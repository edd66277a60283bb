"""docs/contract/grpc.md section e over the wire: forwarding, headers, a leader that is lost, hangs, or is missing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest

from metasrv.protocol.proto import meta_pb2 as pb
from metasrv.testing.processes import ProcessCluster
from tests.support import http2_frames as http2
from tests.support.grpc_wire import LEADER_HEADER, Wire, put

shares_a_cluster = pytest.mark.xdist_group("grpc-leaders")
ANSWER_SECONDS_MAX = 2.0
"""No leader: an answer within this time."""
LOSS_SECONDS_MAX = 1.5
"""Until a node of these tests has noticed that its leader or its majority is gone."""


class Cluster:
    """A running cluster with wires to its nodes."""

    def __init__(self, processes: ProcessCluster, leader: int) -> None:
        self.processes = processes
        self.leader = leader
        self.followers = [node_id for node_id in processes.nodes if node_id != leader]
        self.wires = {node_id: Wire(str(node.grpc)) for node_id, node in processes.nodes.items()}
        for wire in self.wires.values():
            assert wire.token

    @property
    def leader_address(self) -> str:
        return str(self.processes.nodes[self.leader].grpc)


@pytest.fixture(scope="module")
def calm() -> Iterator[Cluster]:
    """Three nodes to which nothing happens."""
    processes = ProcessCluster(3)
    try:
        found = Cluster(processes, asyncio.run(processes.boot()))
        yield found
        for wire in found.wires.values():
            wire.close()
    finally:
        processes.close()


@pytest.fixture
async def three(cluster: ProcessCluster) -> AsyncIterator[Cluster]:
    found = Cluster(cluster, await cluster.wait_for_leader())
    yield found
    for wire in found.wires.values():
        wire.close()


def metadata_of(error: Any) -> dict[str, Any]:
    return dict(error.trailing_metadata() or ())


def seconds_since(started: float) -> float:
    return time.monotonic() - started


def refused(ask: Any) -> Any:
    """The error that `ask` ends with."""
    with pytest.raises(grpc.RpcError) as caught:
        ask()
    return caught.value


LEADER_ONLY = {
    "KvList": pb.KvListRequest(prefix=""),
    "KvGetMany": pb.KvGetManyRequest(key="k"),
    "KvTransaction": pb.KvTransactionRequest(),
}


def ask_leader_only(wire: Wire, name: str, metadata: Any = ()) -> list[Any]:
    method = getattr(wire.stub, name)
    request: Any = LEADER_ONLY[name]
    if name == "KvGetMany":
        request = iter([request])
    answer = method(request, metadata=(*wire.token, *metadata), timeout=8)
    return [answer] if name == "KvTransaction" else list(answer)


@shares_a_cluster
def test_forwarded_calls_name_the_leader_and_others_send_clients_there(calm: Cluster) -> None:
    for node_id, wire in calm.wires.items():
        follows = node_id != calm.leader
        expected = calm.leader_address if follows else None
        _, call = wire.stub.Transaction.with_call(pb.TxnRequest(if_then=[put("k")]), metadata=wire.token, timeout=5)
        assert dict(call.initial_metadata()).get(LEADER_HEADER) == expected
        read = wire.stub.KvReadV1(pb.RaftRequest(data='{"MGetKV":{"keys":["k"]}}'), metadata=wire.token, timeout=5)
        assert dict(read.initial_metadata()).get(LEADER_HEADER) == expected
        assert next(read).value.data == b"v"
        request = '{"UpsertKV":{"key":"k","seq":"Any","value":{"Update":[118]},"value_meta":null}}'
        _, call = wire.stub.KvApi.with_call(pb.RaftRequest(data=request), metadata=wire.token, timeout=5)
        assert LEADER_HEADER not in {**dict(call.initial_metadata()), **dict(call.trailing_metadata())}
        for name in LEADER_ONLY:
            if not follows:
                ask_leader_only(wire, name)
                continue
            error = refused(lambda name=name, wire=wire: ask_leader_only(wire, name))
            assert (error.code(), error.details()) == (grpc.StatusCode.UNAVAILABLE, "not leader")
            assert metadata_of(error)[LEADER_HEADER] == calm.leader_address


@shares_a_cluster
def test_refusals_are_trailers_only_on_the_wire(calm: Cluster) -> None:
    """One HEADERS frame that ends the stream: the call itself fails, not a stream that it gave out before."""
    wire = calm.wires[calm.followers[0]]
    token = wire.token[0][1]
    for name, request in LEADER_ONLY.items():
        frames = http2.call(wire.address, f"/meta.MetaService/{name}", request.SerializeToString(), token)
        assert [(frame.kind, bool(frame.flags & http2.END_STREAM)) for frame in frames] == [(http2.HEADERS, True)], name
    # For comparison, a call that is answered: headers first, the end later.
    request = pb.RaftRequest(data='{"GetKV":{"key":"k"}}')
    frames = http2.call(wire.address, "/meta.MetaService/KvReadV1", request.SerializeToString(), token)
    assert [frame.kind for frame in frames] == [http2.HEADERS, http2.DATA, http2.HEADERS]


async def test_a_stale_read_is_local_on_every_node(three: Cluster) -> None:
    three.wires[three.leader].put("k")
    for wire in three.wires.values():
        wire.get("k")  # everybody has applied it
    await three.processes.kill(*three.followers[1:], three.leader)
    survivor = three.wires[three.followers[0]]
    stale = (("x-metasrv-read", "stale"),)
    started = time.monotonic()
    assert survivor.read({"GetKV": {"key": "k"}}, stale)[0].value.data == b"v"
    assert survivor.read({"ListKV": {"prefix": "k"}}, stale)[0].value.data == b"v"
    assert ask_leader_only(survivor, "KvList", stale)[0].value.data == b"v"
    assert ask_leader_only(survivor, "KvGetMany", stale)[0].value.data == b"v"
    assert seconds_since(started) < 1


async def test_without_a_leader_every_method_answers_within_two_seconds(three: Cluster) -> None:
    survivor = three.wires[three.followers[0]]
    await three.processes.kill(three.leader, three.followers[1])
    await three.processes.wait_for_statuses(
        lambda found: all(status["leader"] is None for status in found.values()), "no leader is known"
    )
    for ask in (lambda: survivor.put("k"), lambda: survivor.get("k"), lambda: survivor.upsert("k", b"v")):
        started = time.monotonic()
        error = refused(ask)
        assert seconds_since(started) < ANSWER_SECONDS_MAX
        assert error.code() is grpc.StatusCode.INTERNAL
        assert error.details() == "can not forward any more: need to forward but no known leader"
        assert metadata_of(error)["x-metasrv-outcome"] == "not-done"
    for name in LEADER_ONLY:
        started = time.monotonic()
        error = refused(lambda name=name: ask_leader_only(survivor, name))
        assert seconds_since(started) < ANSWER_SECONDS_MAX
        assert (error.code(), error.details()) == (grpc.StatusCode.UNAVAILABLE, "not leader")
        assert LEADER_HEADER not in metadata_of(error), "nobody is known"
    # What looks at the node itself goes on, and so do handshakes: the key for tokens is there.
    assert survivor.handshake().payload
    status = survivor.stub.GetClusterStatus(pb.Empty(), timeout=2)
    assert not status.HasField("leader")
    assert len(survivor.stub.MemberList(pb.MemberListRequest(), metadata=survivor.token, timeout=2).data) == 3


async def test_a_write_on_a_leader_that_loses_its_majority_ends_as_unknown_and_soon(three: Cluster) -> None:
    """It used to wait for the caller's own deadline, ten seconds at most."""
    leader = three.wires[three.leader]
    await three.processes.kill(*three.followers)
    started = time.monotonic()
    error = refused(lambda: leader.put("k"))
    assert seconds_since(started) < LOSS_SECONDS_MAX + ANSWER_SECONDS_MAX
    assert error.code() is grpc.StatusCode.ABORTED
    assert "may still take effect" in error.details()
    assert "x-metasrv-outcome" not in metadata_of(error)
    started = time.monotonic()
    error = refused(lambda: leader.put("k"))
    assert seconds_since(started) < ANSWER_SECONDS_MAX
    assert error.code() is grpc.StatusCode.INTERNAL
    for node_id in three.followers:
        three.processes.start(node_id)
    await three.processes.wait_for_leader(members=3)
    # Once only, or not at all: never sent again behind the caller's back.
    found = leader.get("k")
    assert found is None or found.seq == 1


async def test_a_leader_that_hangs_holds_up_neither_reads_nor_writes_on_a_follower(three: Cluster) -> None:
    """Both used to wait for the caller's own deadline although another leader was there."""
    follower = three.wires[three.followers[0]]
    follower.put("k", b"1")
    three.processes.pause(three.leader)
    try:
        started = time.monotonic()
        writing = asyncio.create_task(asyncio.to_thread(follower_outcome, follower))
        record = await asyncio.to_thread(follower.get, "k")
        assert record is not None
        assert seconds_since(started) < 4
        code, details = await writing
        assert seconds_since(started) < 5
        if code is not grpc.StatusCode.OK:
            assert code is grpc.StatusCode.ABORTED
            assert "no longer the leader" in details
        assert follower.put("k", b"3").current.data == b"3"
    finally:
        three.processes.resume(three.leader)


def follower_outcome(wire: Wire) -> tuple[grpc.StatusCode, str]:
    try:
        wire.put("k", b"2")
    except grpc.RpcError as error:
        return error.code(), error.details()
    return grpc.StatusCode.OK, ""

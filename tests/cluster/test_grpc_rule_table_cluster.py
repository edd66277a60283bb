"""The rules of docs/contract/grpc.md section d over the wire: on one node, and on three through each of them.

Behind the table stands what only the wire has: numbers that no client should send, open streams, headers.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from metasrv.protocol.proto import meta_pb2 as pb
from metasrv.testing.processes import ProcessCluster
from tests.support.grpc_wire import Wire, any_of, branch, get, put, when
from tests.support.rule_players import Player, WireTarget, own_prefix
from tests.support.rule_table import RULES
from tests.support.rules import Rule

pytestmark = pytest.mark.xdist_group("grpc-rules")

EQ, GT = 0, 1
RULES_IN_REAL_TIME = [rule for rule in RULES if not rule.exact]
TARGETS = ("one node", "three nodes, by 1", "three nodes, by 2", "three nodes, by 3")


@pytest.fixture(scope="module")
def wires() -> Iterator[dict[str, Wire]]:
    """One node and three, and a wire to each."""
    clusters = [ProcessCluster(1), ProcessCluster(3)]
    found: dict[str, Wire] = {}
    try:
        for cluster in clusters:
            asyncio.run(cluster.boot())
        nodes = [*clusters[0].nodes.values(), *clusters[1].nodes.values()]
        found = {name: Wire(str(node.grpc)) for name, node in zip(TARGETS, nodes, strict=True)}
        for name in TARGETS[:2]:  # the counter starts at 0, and reads before the first write see nothing
            assert list(found[name].list_prefix("")) == []
            assert found[name].put("first").current.seq == 1
        yield found
    finally:
        for wire in found.values():
            wire.close()
        for cluster in clusters:
            cluster.close()


@pytest.fixture(params=TARGETS)
def wire(wires: dict[str, Wire], request: pytest.FixtureRequest) -> Wire:
    return wires[request.param]


@pytest.fixture
def key() -> str:
    """A key of this test's own, and a prefix for more."""
    return own_prefix()


@pytest.mark.parametrize("rule", RULES_IN_REAL_TIME, ids=[rule.name for rule in RULES_IN_REAL_TIME])
def test_a_cluster_keeps_the_rule(wire: Wire, rule: Rule) -> None:
    target = WireTarget(wire)
    try:
        assert Player(target, own_prefix()).play(rule) == len(rule.steps) > 0
    finally:
        target.close()


# ----------------------------------------------------------------------------- commands


def test_log_time_never_goes_back_whichever_node_is_asked(wires: dict[str, Wire], key: str) -> None:
    through = [wires[name] for name in TARGETS[1:]]
    times = [through[turn % 3].put(key).current.meta.proposed_at_ms for turn in range(6)]
    assert times == sorted(times)


def test_an_unknown_comparison_reads_as_equal(wire: Wire, key: str) -> None:
    seq = wire.run(put(key + "k", b"m"), put(key + "k2"), put(key + "k3"))[0].current.seq
    stored, unknown, equal = key + "k", 9, (False, True, False)

    def holds(condition: pb.TxnCondition) -> bool:
        return wire.transaction(pb.TxnRequest(condition=[condition])).success

    assert tuple(holds(when(stored, unknown, seq=given)) for given in (seq - 1, seq, seq + 1)) == equal
    assert tuple(holds(when(stored, unknown, value=given)) for given in (b"l\xff", b"m", b"m\0")) == equal
    assert tuple(holds(when(stored, unknown, keys_with_prefix=given)) for given in (2, 3, 4)) == equal
    assert holds(when(key + "absent", unknown, seq=0))
    assert holds(when(key + "absent", unknown, keys_with_prefix=0))
    assert not holds(when(key + "absent", unknown, value=b""))
    assert not holds(when(stored, unknown, keys_with_prefix=2**64 - 1))
    assert not holds(when(stored, unknown)), "no target is false"


def test_an_unknown_operator_of_a_tree_reads_as_all(wire: Wire, key: str) -> None:
    conditions = [when(key, EQ, seq=0), when(key, GT, seq=0)]
    tree = pb.BooleanExpression(operator=7, conditions=conditions)  # type: ignore[arg-type]
    assert not wire.kv_transaction(branch(tree, get(key))).HasField("executed_branch")
    assert wire.transaction(pb.TxnRequest(operations=[branch(tree)])).execution_path == "then"
    assert wire.kv_transaction(branch(any_of(*conditions), get(key))).HasField("executed_branch")


@pytest.mark.parametrize("flag", [False, True])
def test_the_flag_prev_value_means_nothing(wire: Wire, key: str, flag: bool) -> None:
    first = wire.put(key, b"1", prev_value=flag)
    assert not first.HasField("prev_value")
    second = wire.put(key, b"2", prev_value=flag)
    assert (second.prev_value, second.current.data) == (first.current, b"2")


def test_no_operation_behaves_as_a_get_of_the_empty_key(wire: Wire) -> None:
    reply = wire.transaction(pb.TxnRequest(if_then=[pb.TxnOp()]))
    assert reply.responses[0].WhichOneof("response") == "get"
    assert not reply.responses[0].get.HasField("value")
    record = wire.put("", b"of the empty key").current
    try:
        assert wire.transaction(pb.TxnRequest(if_then=[pb.TxnOp()])).responses[0].get.value == record
        assert wire.get("") == record
    finally:
        wire.delete("")


# ----------------------------------------------------------------------------- reads


def test_a_list_of_everything_is_in_order(wire: Wire, key: str) -> None:
    names = [key + name for name in ("b", "\U00010000", "a", "\uffff", "é")]
    wire.run(*map(put, names))
    everything = [item.key for item in wire.list_prefix("")]
    assert everything == sorted(everything)
    assert set(everything) >= set(names)


def test_get_many_answers_while_its_input_is_open(wire: Wire, key: str) -> None:
    wire.put(key)

    def ask(leader: Wire) -> list[bytes]:
        answered: list[bytes] = []

        def requests() -> Iterator[pb.KvGetManyRequest]:
            for number in range(3):
                yield pb.KvGetManyRequest(key=key)
                deadline = time.monotonic() + 5
                while len(answered) == number and time.monotonic() < deadline:
                    time.sleep(0.002)
                assert len(answered) == number + 1, "no answer before the next request"

        for item in leader.stub.KvGetMany(requests(), metadata=leader.token, timeout=10):
            answered.append(item.value.data)
        return answered

    assert wire.at_leader(ask) == [b"v"] * 3


def test_an_input_that_breaks_ends_the_output(wire: Wire, key: str) -> None:
    def ask(leader: Wire) -> grpc.RpcError:
        raw = leader.channel.stream_stream("/meta.MetaService/KvGetMany")
        sent = iter([pb.KvGetManyRequest(key=key).SerializeToString(), b"\xff\xff"])
        call = raw(sent, metadata=leader.token, timeout=5)
        assert pb.StreamItem.FromString(next(call)).key == key
        with pytest.raises(grpc.RpcError) as caught:
            next(call)
        return caught.value

    assert wire.at_leader(ask).code() is grpc.StatusCode.INVALID_ARGUMENT


# ----------------------------------------------------------------------------- watches


@pytest.mark.parametrize(("start", "end"), [("a", "a"), ("b", "a"), ("a", ""), ("", "")])
def test_an_empty_range_is_refused(wire: Wire, start: str, end: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        next(wire.stub.Watch(pb.WatchRequest(key=start, key_end=end), timeout=5))
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.INVALID_ARGUMENT, "empty range")


def test_an_unknown_filter_reads_as_all(wire: Wire, key: str) -> None:
    unknown: Any = 9
    with wire.watch(key, key + "~", filter_type=unknown) as events:
        wire.put(key + "a", b"1")
        wire.put(key + "a", b"2")
        wire.delete(key + "a")
        wire.put(key + "end")
        wire.delete(key + "end")
        found = [next(events).event for _ in range(5)]
    seen = [("+" if event.HasField("current") else "-") + event.key.removeprefix(key) for event in found]
    assert seen == ["+a", "+a", "-a", "+end", "-end"]


def test_the_marker_behind_a_flush_is_an_empty_message(wire: Wire, key: str) -> None:
    with wire.watch(key + "nothing", initial_flush=True) as events:
        assert next(events) == pb.WatchResponse(), "the marker alone"
    record = wire.put(key + "a").current
    with wire.watch(key + "a", initial_flush=True) as events:
        first = next(events)
        assert (first.event.current, first.is_initialization, first.event.HasField("prev")) == (record, True, False)
        assert next(events) == pb.WatchResponse()


def test_headers_come_at_once_on_a_silent_stream(wire: Wire, key: str) -> None:
    started = time.monotonic()
    call = wire.stub.Watch(pb.WatchRequest(key=key), timeout=5)
    call.initial_metadata()
    assert time.monotonic() - started < 1
    call.cancel()

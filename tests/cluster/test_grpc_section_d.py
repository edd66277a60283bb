"""docs/contract/grpc.md section d row by row, over the wire: on one node, and on three through each of them."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from metasrv.protocol.proto import meta_pb2 as pb
from metasrv.testing.processes import ProcessCluster
from tests.support.grpc_wire import (
    Wire,
    all_of,
    any_of,
    branch,
    delete,
    delete_by_prefix,
    fetch_increase,
    get,
    put,
    put_sequential,
    when,
)

pytestmark = pytest.mark.xdist_group("grpc-section-d")

EQ, GT, GE, LT, LE, NE = range(6)
U64_MAX = 2**64 - 1
FAR_MS = 4_000_000_000_000
FAR_S = 4_000_000_000
PAST_MS = 1_000_000_000_000
PAST_S = 1_000_000_000
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
            assert list(found[name].list("")) == []
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


_numbers = itertools.count()


@pytest.fixture
def key() -> str:
    """A key of this test's own, and a prefix for more."""
    return f"{next(_numbers):06}/"


def stored(wire: Wire, prefix: str) -> list[str]:
    """Keys that the node holds, expired or not: an export hides nothing."""
    lines = [json.loads(line) for chunk in wire.export() for line in chunk]
    found = [body["GenericKV"]["key"] for tree, body in lines if "GenericKV" in body]
    return [key for key in found if key.startswith(prefix)]


def trees(seq: int, data: bytes, proposed_at_ms: int, **meta: int) -> dict[str, Any]:
    return {"seq": seq, "meta": {**meta, "proposed_at_ms": proposed_at_ms}, "data": list(data)}


# ----------------------------------------------------------------------------- sequence numbers


def test_d1_every_write_takes_the_next_number(wire: Wire, key: str) -> None:
    first = wire.put(key, b"v").current.seq
    assert wire.put(key, b"v").current.seq == first + 1, "the same value too"
    assert wire.upsert(key, b"v")[1]["seq"] == first + 2
    assert [response.current.seq for response in wire.run(put(key), put(key))] == [first + 3, first + 4]


def test_d1_deletes_take_none_and_a_new_insert_a_larger_one(wire: Wire, key: str) -> None:
    first = wire.put(key).current.seq
    assert wire.delete(key).success
    assert not wire.delete(key).success
    assert wire.upsert(key, "Delete") == (None, None)
    wire.run(delete_by_prefix(key))
    assert wire.put(key).current.seq == first + 1


def test_d1_failed_conditions_take_none(wire: Wire, key: str) -> None:
    first = wire.put(key).current.seq
    assert wire.upsert(key, b"x", {"Exact": first + 9})[1]["seq"] == first
    refused = wire.transaction(pb.TxnRequest(condition=[when(key, EQ, seq=0)], if_then=[put(key)]))
    assert not refused.success
    assert wire.put(key, match_seq=first + 9).current.seq == first
    wire.run(fetch_increase(key, 1, match_seq=first + 9))
    assert wire.seq() == first + 1


def test_d1_as_is_takes_one_only_over_a_record(wire: Wire, key: str) -> None:
    first = wire.seq()
    assert wire.upsert(key, "AsIs") == (None, None)
    assert wire.put(key, b"kept").current.seq == first + 1
    prev, result = wire.upsert(key, "AsIs", expire_at=FAR_MS)
    assert (prev["seq"], result["seq"], bytes(result["data"])) == (first + 1, first + 2, b"kept")
    assert result["meta"]["expire_at"] == FAR_MS


def test_d1_an_expired_value_takes_one_and_is_gone(wire: Wire, key: str) -> None:
    first = wire.seq()
    assert wire.upsert(key, b"v", expire_at=PAST_MS) == (None, None)
    assert wire.get(key) is None
    assert wire.seq() == first + 2


def test_d1_put_sequential_takes_two_the_counter_first(wire: Wire, key: str) -> None:
    first = wire.seq()
    (response,) = wire.run(put_sequential(key, key + "counter"))
    counter = wire.get(key + "counter")
    assert counter is not None
    assert (counter.seq, response.current.seq) == (first + 1, first + 2)


def test_d1_fetch_increase_takes_one(wire: Wire, key: str) -> None:
    first = wire.seq()
    (response,) = wire.run(fetch_increase(key, 1))
    assert (response.before_seq, response.after_seq) == (0, first + 1)


def test_d1_an_absent_key_has_number_zero_everywhere(wire: Wire, key: str) -> None:
    reply = wire.transaction(pb.TxnRequest(condition=[when(key, EQ, seq=0)], if_then=[fetch_increase(key, 0)]))
    assert reply.success
    assert reply.responses[0].fetch_increase_u64.before_seq == 0
    assert wire.put(key + "a", match_seq=0).current.seq > 0
    assert wire.upsert(key + "b", b"v", {"Exact": 0})[1] is not None
    assert wire.upsert(key + "c", b"v", {"GE": 0})[1] is not None
    assert wire.upsert(key + "d", b"v", {"GE": 1}) == (None, None)


# ----------------------------------------------------------------------------- upsert


@pytest.mark.parametrize(
    ("match", "met"),
    [("Any", True), ("same", True), ("other", False), ("ge same", True), ("ge less", True), ("ge more", False)],
)
def test_d2_match_seq(wire: Wire, key: str, match: str, met: bool) -> None:
    record = wire.put(key, b"1").current
    seq = {
        "Any": "Any",
        "same": {"Exact": record.seq},
        "other": {"Exact": record.seq - 1},
        "ge same": {"GE": record.seq},
        "ge less": {"GE": record.seq - 1},
        "ge more": {"GE": record.seq + 1},
    }[match]
    prev, result = wire.upsert(key, b"2", seq)
    assert prev == trees(record.seq, b"1", record.meta.proposed_at_ms)
    if met:
        assert (result["seq"], result["data"]) == (record.seq + 1, [50])
    else:
        assert result == prev
        assert wire.get(key) == record
    gone = wire.upsert(key, "Delete", {"Exact": result["seq"]})
    assert gone == (result, None)


def test_d2_meta_always_has_the_log_time_and_a_put_clears_an_old_expiry(wire: Wire, key: str) -> None:
    before = int(time.time() * 1000)
    record = wire.put(key, b"1", ttl_ms=3_600_000).current
    assert before - 1000 <= record.meta.proposed_at_ms <= int(time.time() * 1000) + 1000
    assert record.meta.expire_at == record.meta.proposed_at_ms + 3_600_000
    cleared = wire.put(key, b"1").current
    assert cleared.meta.HasField("proposed_at_ms")
    assert not cleared.meta.HasField("expire_at")
    assert wire.upsert(key, b"1", expire_at=FAR_MS)[1]["meta"]["expire_at"] == FAR_MS
    assert "expire_at" not in wire.upsert(key, "AsIs")[1]["meta"]


# ----------------------------------------------------------------------------- time


def test_d3_time_is_one_for_a_command_and_never_goes_back(wires: dict[str, Wire], wire: Wire, key: str) -> None:
    one, other = (response.current.meta.proposed_at_ms for response in wire.run(put(key + "a"), put(key + "b")))
    assert one == other
    through = [wires[name] for name in TARGETS[1:]]
    times = [through[turn % 3].put(key).current.meta.proposed_at_ms for turn in range(6)]
    assert times == sorted(times)


# ----------------------------------------------------------------------------- expiry


@pytest.mark.parametrize(
    ("expire_at", "alive"),
    [
        (FAR_S, True),  # seconds
        (100_000_000_000, True),  # the last number that is seconds, the year 5138
        (100_000_000_001, False),  # the first that is milliseconds, 1973
        (PAST_S, False),
        (PAST_MS, False),
        (FAR_MS, True),
        (U64_MAX, True),
        (0, False),
    ],
)
def test_d4_the_unit_is_guessed_at_1e11_and_stored_as_given(wire: Wire, key: str, expire_at: int, alive: bool) -> None:
    response = wire.put(key, expire_at=expire_at)
    assert response.HasField("current") is alive
    record = wire.get(key)
    assert (record is not None) is alive
    if record is not None:
        assert record.meta.expire_at == expire_at
        assert wire.upsert(key, b"v", expire_at=expire_at)[1]["meta"]["expire_at"] == expire_at


def test_d4_a_ttl_wins_over_the_absolute_time(wire: Wire, key: str) -> None:
    record = wire.put(key, expire_at=PAST_MS, ttl_ms=10_000).current
    assert record.meta.expire_at == record.meta.proposed_at_ms + 10_000
    result = wire.upsert(key, b"v", expire_at=PAST_MS, ttl_ms=20_000)[1]
    assert result["meta"]["expire_at"] == result["meta"]["proposed_at_ms"] + 20_000
    (sequential,) = wire.run(put_sequential(key, key + "n", expires_at_ms=PAST_MS, ttl_ms=30_000))
    assert sequential.current.meta.expire_at == sequential.current.meta.proposed_at_ms + 30_000
    assert wire.put(key, ttl_ms=U64_MAX).current.meta.expire_at == U64_MAX


def test_d4_a_ttl_of_zero_expires_with_the_next_millisecond(wire: Wire, key: str) -> None:
    record = wire.put(key, ttl_ms=0).current
    assert record.meta.expire_at == record.meta.proposed_at_ms, "equal is alive"
    time.sleep(0.005)
    assert wire.get(key) is None


def test_d4_an_insert_in_the_past_removes_what_was_there(wire: Wire, key: str) -> None:
    with wire.watch(key, key + "~") as events:
        record = wire.put(key, b"1").current
        response = wire.put(key, b"2", expire_at=PAST_MS)
        assert response.prev_value == record
        assert not response.HasField("current")
        assert wire.get(key) is None
        absent = wire.put(key, b"3", expire_at=PAST_S)
        assert not absent.HasField("prev_value")
        wire.put(key + "end")
        seen = [next(events).event for _ in range(3)]
    assert [(event.key, event.HasField("prev"), event.HasField("current")) for event in seen] == [
        (key, False, True),
        (key, True, False),
        (key + "end", False, True),
    ]


def test_d4_reads_hide_what_is_not_swept_and_the_next_command_sweeps_in_order(wire: Wire, key: str) -> None:
    """The sweep goes by (expiry, number) and before everything else of the command; conditions see what it left."""
    with wire.watch(key, key + "~") as events:
        first = wire.run(put(key + "b", ttl_ms=120), put(key + "c", ttl_ms=90), put(key + "a", ttl_ms=120))
        assert len(wire.list(key)) == 3
        time.sleep(0.16)
        assert wire.list(key) == []
        assert wire.kv_list(key) == []
        assert [item.HasField("value") for item in wire.mget(key + "a", key + "b")] == [False, False]
        assert [item.HasField("value") for item in wire.kv_get_many(key + "a")] == [False]
        assert wire.get(key + "c") is None
        with wire.watch(key, key + "~", initial_flush=True) as late:
            flushed = [next(late) for _ in range(3)]
            assert [(item.event.key, item.is_initialization) for item in flushed] == [
                (key + "a", True),
                (key + "b", True),
                (key + "c", True),
            ], "an initial flush is not filtered by expiry"
        reply = wire.transaction(
            pb.TxnRequest(condition=[when(key, EQ, keys_with_prefix=0)], if_then=[put(key + "d"), get(key + "a")])
        )
        assert reply.success, "the sweep comes before the conditions"
        assert not reply.responses[1].get.HasField("value")
        seen = [next(events).event for _ in range(7)][3:]
    assert [(event.key, event.HasField("current")) for event in seen] == [
        (key + "c", False),
        (key + "b", False),
        (key + "a", False),
        (key + "d", True),
    ]
    assert [event.prev.seq for event in seen[:3]] == [first[1].current.seq, first[0].current.seq, first[2].current.seq]


def test_d4_an_idle_cluster_sweeps_nothing(wire: Wire, key: str) -> None:
    with wire.watch(key, key + "~") as events:
        wire.put(key, ttl_ms=50)
        next(events)
        time.sleep(0.3)
        assert stored(wire, key) == [key], "still stored"
        wire.seq()
        assert not next(events).event.HasField("current")
        assert stored(wire, key) == []


# ----------------------------------------------------------------------------- transactions


def test_d5_the_first_branch_that_holds_runs_and_is_named(wire: Wire, key: str) -> None:
    yes, no = all_of(when(key, EQ, seq=0)), all_of(when(key, GT, seq=0))
    marks = [put(f"{key}{name}") for name in "abcd"]

    def run(
        first: pb.BooleanExpression, second: pb.BooleanExpression, condition: pb.TxnCondition
    ) -> tuple[bool, str, str]:
        reply = wire.transaction(
            pb.TxnRequest(
                operations=[branch(first, marks[0]), branch(second, marks[1])],
                condition=[condition],
                if_then=[marks[2]],
                else_then=[marks[3]],
            )
        )
        return reply.success, reply.execution_path, reply.responses[0].put.key.removeprefix(key)

    holds, fails = when(key, EQ, seq=0), when(key, NE, seq=0)
    assert run(yes, yes, holds) == (True, "operation:0", "a")
    assert run(no, yes, holds) == (True, "operation:1", "b")
    assert run(no, no, holds) == (True, "then", "c")
    assert run(no, no, fails) == (False, "else", "d")
    nothing = wire.transaction(pb.TxnRequest(condition=[fails], if_then=[marks[0]]))
    assert (nothing.success, nothing.execution_path, list(nothing.responses)) == (False, "else", [])
    empty = wire.transaction(pb.TxnRequest())
    assert (empty.success, empty.execution_path, list(empty.responses)) == (True, "then", [])
    absent = wire.transaction(pb.TxnRequest(operations=[branch(None, marks[0])]))
    assert absent.execution_path == "operation:0"


def test_d5_kv_transaction(wire: Wire, key: str) -> None:
    no = all_of(when(key, GT, seq=0))
    reply = wire.kv_transaction(branch(no, put(key)), branch(None, put(key), get(key)), branch(None))
    assert reply.HasField("executed_branch")
    assert reply.executed_branch == 1
    assert len(reply.responses) == 2
    first = wire.kv_transaction(branch(None))
    assert first.HasField("executed_branch")
    assert (first.executed_branch, len(first.responses)) == (0, 0)
    for unset in (wire.kv_transaction(), wire.kv_transaction(branch(all_of(when(key, EQ, seq=0)), put(key)))):
        assert not unset.HasField("executed_branch")
        assert len(unset.responses) == 0


def test_d5_boolean_trees(wire: Wire, key: str) -> None:
    yes, no = when(key, EQ, seq=0), when(key, GT, seq=0)
    rows = [
        (all_of(), True),
        (any_of(), True),
        (all_of(yes, yes), True),
        (all_of(yes, no), False),
        (any_of(no, yes), True),
        (any_of(no, no), False),
        (all_of(yes, trees=[any_of(no, yes)]), True),
        (all_of(yes, trees=[any_of(no)]), False),
        (any_of(no, trees=[all_of(yes, no), all_of(yes)]), True),
        (any_of(no, trees=[all_of(no)]), False),
        (any_of(trees=[all_of(no, trees=[any_of()])]), False),
        (all_of(trees=[all_of(), any_of(), all_of(trees=[any_of(yes, no)])]), True),
        # An operator of the future reads as the default, AND.
        (pb.BooleanExpression(operator=7, conditions=[yes, no]), False),  # type: ignore[arg-type]
    ]
    for tree, holds in rows:
        reply = wire.kv_transaction(branch(tree, get(key)))
        assert reply.HasField("executed_branch") is holds, tree
        path = wire.transaction(pb.TxnRequest(operations=[branch(tree)])).execution_path
        assert path == ("operation:0" if holds else "then"), tree


def test_d5_operations_see_each_other_and_all_is_one_instant(wire: Wire, key: str) -> None:
    responses = wire.run(put(key, b"1"), get(key), put(key, b"2"), delete(key), get(key), delete(key), put(key, b"3"))
    assert responses[1].value == responses[0].current
    assert responses[2].prev_value == responses[0].current
    assert responses[3].prev_value == responses[2].current
    assert not responses[4].HasField("value")
    assert not responses[5].success
    assert wire.get(key) == responses[6].current


SEQ_ROWS = {EQ: (0, 1, 0), GT: (1, 0, 0), GE: (1, 1, 0), LT: (0, 0, 1), LE: (0, 1, 1), NE: (1, 0, 1), 9: (0, 1, 0)}
"""Comparison -> does it hold for a given number that is smaller, equal, larger; 9 is unknown and reads as EQ."""


@pytest.mark.parametrize("expected", SEQ_ROWS)
def test_d5_condition_targets(wire: Wire, key: str, expected: int) -> None:
    seq = wire.run(put(key + "k", b"m"), put(key + "k2"), put(key + "k3"))[0].current.seq
    stored, absent = key + "k", key + "absent"

    def holds(condition: pb.TxnCondition) -> int:
        return wire.transaction(pb.TxnRequest(condition=[condition])).success

    row = SEQ_ROWS[expected]
    assert tuple(holds(when(stored, expected, seq=given)) for given in (seq - 1, seq, seq + 1)) == row
    assert tuple(holds(when(stored, expected, value=given)) for given in (b"l\xff", b"m", b"m\0")) == row
    assert tuple(holds(when(stored, expected, keys_with_prefix=given)) for given in (2, 3, 4)) == row
    assert holds(when(absent, expected, seq=0)) == row[1]
    assert holds(when(absent, expected, keys_with_prefix=0)) == row[1]
    assert not holds(when(absent, expected, value=b"")), "an absent key has no value that compares"
    assert holds(when(stored, expected, keys_with_prefix=U64_MAX)) == row[2]
    assert not holds(when(stored, expected)), "no target is false"


def test_d5_put(wire: Wire, key: str) -> None:
    first = wire.put(key, b"1")
    assert (first.key, first.HasField("prev_value"), first.current.data) == (key, False, b"1")
    # The flag `prev_value` means nothing: the previous record is always there.
    second = wire.put(key, b"2", prev_value=False)
    assert (second.prev_value, second.current.data) == (first.current, b"2")
    refused = wire.put(key, b"3", match_seq=first.current.seq)
    assert refused.prev_value == refused.current == second.current
    assert wire.get(key) == second.current
    assert wire.put(key, b"4", match_seq=second.current.seq).current.data == b"4"
    assert wire.put(key, b"5", match_seq=0).current.data == b"4", "zero wants the key to be absent"
    fresh = wire.put(key + "new", b"6", match_seq=0)
    assert fresh.current.data == b"6"
    nothing = wire.put(key + "absent", b"7", match_seq=3)
    assert not nothing.HasField("prev_value")
    assert not nothing.HasField("current")


def test_d5_delete(wire: Wire, key: str) -> None:
    record = wire.put(key).current
    refused = wire.delete(key, match_seq=record.seq + 1)
    assert (refused.key, refused.success, refused.prev_value) == (key, False, record)
    assert not wire.delete(key, match_seq=0).success
    assert wire.get(key) == record
    done = wire.delete(key, match_seq=record.seq)
    assert (done.success, done.prev_value) == (True, record)
    absent = wire.delete(key)
    assert (absent.success, absent.HasField("prev_value")) == (False, False)
    assert not wire.delete(key, match_seq=0).success


def test_d5_delete_by_prefix_counts_and_goes_in_key_order(wire: Wire, key: str) -> None:
    names = [key + name for name in ("p/b", "p/a", "p", "q", "pp")]
    wire.run(*map(put, names))
    with wire.watch(key, key + "~") as events:
        (response,) = wire.run(delete_by_prefix(key + "p"))
        assert (response.prefix, response.count) == (key + "p", 4)
        (nothing,) = wire.run(delete_by_prefix(key + "p"))
        assert nothing.count == 0
        wire.put(key + "end")
        seen = [next(events).event.key.removeprefix(key) for _ in range(5)]
    assert seen == ["p", "p/a", "p/b", "pp", "end"], "each once, in key order"
    assert [item.key for item in wire.list(key)] == [key + "end", key + "q"]


@pytest.mark.parametrize(
    ("stored", "delta", "floor", "before", "after"),
    [
        (None, 5, 0, 0, 5),
        (b"7", 5, 0, 7, 12),
        (b" 7\n", 1, 0, 7, 8),
        (b"text", 5, 0, 0, 5),
        (b"-1", 5, 0, 0, 5),
        (b"1.5", 5, 0, 0, 5),
        (b'"9"', 5, 0, 0, 5),
        (b"", 5, 0, 0, 5),
        (b"1\0", 5, 0, 0, 5),
        (b"18446744073709551615", 5, 0, U64_MAX, U64_MAX),
        (b"18446744073709551616", 5, 0, 0, 5),
        (b"3", -5, 0, 3, 0),
        (b"3", 1, 100, 3, 101),
        (b"300", 1, 100, 300, 301),
        (b"3", -10, 100, 3, 90),
        (b"0", 2**63 - 1, U64_MAX, 0, U64_MAX),
        (b"5", -(2**63), U64_MAX, 5, 2**63 - 1),
    ],
)
def test_d5_fetch_increase(
    wire: Wire, key: str, stored: bytes | None, delta: int, floor: int, before: int, after: int
) -> None:
    seq = 0 if stored is None else wire.put(key, stored, ttl_ms=60_000).current.seq
    (response,) = wire.run(fetch_increase(key, delta, max_value=floor))
    assert (response.key, response.before_seq, response.before, response.after) == (key, seq, before, after)
    record = wire.get(key)
    assert record is not None
    assert (record.seq, record.data) == (response.after_seq, str(after).encode())
    assert not record.meta.HasField("expire_at"), "it clears the expiry"


def test_d5_fetch_increase_with_another_number_changes_nothing(wire: Wire, key: str) -> None:
    record = wire.put(key, b"7").current
    (response,) = wire.run(fetch_increase(key, 5, match_seq=record.seq + 1))
    assert (response.before_seq, response.before, response.after_seq, response.after) == (record.seq, 7, record.seq, 7)
    assert wire.get(key) == record
    (absent,) = wire.run(fetch_increase(key + "absent", 5, match_seq=1))
    assert (absent.before_seq, absent.before, absent.after_seq, absent.after) == (0, 0, 0, 0)
    (done,) = wire.run(fetch_increase(key, 5, match_seq=record.seq))
    assert done.after == 12
    (fresh,) = wire.run(fetch_increase(key + "absent", 5, match_seq=0))
    assert fresh.after == 5


def test_d5_put_sequential_names(wire: Wire, key: str) -> None:
    first, second = wire.run(put_sequential(key + "job/", key + "n", b"1"), put_sequential(key + "job/", key + "n", b"2"))
    assert first.key == key + "job/000_000_000_000_000_000_000"
    assert second.key == key + "job/000_000_000_000_000_000_001"
    assert (first.HasField("prev_value"), first.current.data) == (False, b"1")
    wire.put(key + "n", b"1200123")
    (third,) = wire.run(put_sequential(key + "job/", key + "n"))
    assert third.key == key + "job/000_000_000_000_001_200_123"
    counter = wire.get(key + "n")
    assert counter is not None
    assert counter.data == b"1200124"
    wire.put(key + "n", str(U64_MAX).encode())
    (last,) = wire.run(put_sequential(key, key + "n", expires_at_ms=FAR_MS))
    assert last.key == key + "018_446_744_073_709_551_615"
    assert last.current.meta.expire_at == FAR_MS


def test_d5_no_operation_behaves_as_a_get_of_the_empty_key(wire: Wire) -> None:
    reply = wire.transaction(pb.TxnRequest(if_then=[pb.TxnOp()]))
    assert reply.responses[0].WhichOneof("response") == "get"
    assert not reply.responses[0].get.HasField("value")
    record = wire.put("", b"of the empty key").current
    try:
        assert wire.transaction(pb.TxnRequest(if_then=[pb.TxnOp()])).responses[0].get.value == record
        assert wire.get("") == record
    finally:
        wire.delete("")


# ----------------------------------------------------------------------------- lists and gets


def test_d6_order_is_that_of_the_bytes_and_prefixes_are_plain(wire: Wire, key: str) -> None:
    names = ["test_key1", "test/key2", "testkey3", "test", "tes", "tesu", "é", "\uffff", "\U00010000", "z"]
    wire.run(*(put(key + name) for name in names))
    ordered = sorted(names, key=str.encode)
    assert [item.key.removeprefix(key) for item in wire.list(key)] == ordered
    assert [item.key.removeprefix(key) for item in wire.kv_list(key)] == ordered
    matching = ["test", "test/key2", "test_key1", "testkey3"]
    assert [item.key.removeprefix(key) for item in wire.list(key + "test")] == matching
    assert [item.key.removeprefix(key) for item in wire.kv_list(key + "test")] == matching
    assert wire.list(key + "nothing") == wire.kv_list(key + "nothing") == []
    everything = [item.key for item in wire.list("")]
    assert everything == sorted(everything)
    assert set(everything) >= {key + name for name in names}


def test_d6_limits(wire: Wire, key: str) -> None:
    wire.run(*(put(f"{key}{number}") for number in range(5)))
    for limit, count in ((None, 5), (0, 0), (1, 1), (5, 5), (6, 5), (U64_MAX, 5)):
        items = wire.kv_list(key, limit)
        assert [item.key for item in items] == [f"{key}{number}" for number in range(count)], limit
    assert all(item.value.data == b"v" for item in wire.list(key))


def test_d6_one_item_a_requested_key_in_order_duplicates_too(wire: Wire, key: str) -> None:
    record = wire.put(key + "a").current
    wanted = [key + "b", key + "a", key + "c", key + "a"]
    for items in (wire.mget(*wanted), wire.kv_get_many(*wanted)):
        assert [item.key for item in items] == wanted
        assert [item.value if item.HasField("value") else None for item in items] == [None, record, None, record]
    assert wire.mget() == wire.kv_get_many() == []
    many = [f"{key}{number}" for number in range(3000)]
    assert [item.key for item in wire.mget(*many)] == many


def test_d6_get_many_answers_while_its_input_is_open(wire: Wire, key: str) -> None:
    wire.put(key)
    wire.kv_get_many(key)  # finds the leader
    leader = next(iter(wire._leaders.values()), wire)
    answered = []

    def requests() -> Iterator[pb.KvGetManyRequest]:
        for _ in range(3):
            yield pb.KvGetManyRequest(key=key)
            deadline = time.monotonic() + 5
            while len(answered) == sent[0] and time.monotonic() < deadline:
                time.sleep(0.002)
            assert len(answered) == sent[0] + 1, "no answer before the next request"
            sent[0] += 1

    sent = [0]
    for item in leader.stub.KvGetMany(requests(), metadata=leader.token, timeout=10):
        answered.append(item.value.data)
    assert answered == [b"v"] * 3


def test_d6_an_input_that_breaks_ends_the_output(wire: Wire, key: str) -> None:
    wire.kv_get_many(key)
    leader = next(iter(wire._leaders.values()), wire)
    raw = leader.channel.stream_stream("/meta.MetaService/KvGetMany")
    call = raw(iter([pb.KvGetManyRequest(key=key).SerializeToString(), b"\xff\xff"]), metadata=leader.token, timeout=5)
    assert pb.StreamItem.FromString(next(call)).key == key
    with pytest.raises(grpc.RpcError) as caught:
        next(call)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


# ----------------------------------------------------------------------------- watch


def test_d7_one_key_or_a_range(wire: Wire, key: str) -> None:
    with wire.watch(key + "b") as exact, wire.watch(key + "b", key + "d") as ranged:
        for name in ("a", "b", "b0", "c", "d", "b"):
            wire.put(key + name)
        assert [next(exact).event.key.removeprefix(key) for _ in range(2)] == ["b", "b"]
        assert [next(ranged).event.key.removeprefix(key) for _ in range(4)] == ["b", "b0", "c", "b"]


@pytest.mark.parametrize(("start", "end"), [("a", "a"), ("b", "a"), ("a", ""), ("", "")])
def test_d7_an_empty_range_is_refused(wire: Wire, start: str, end: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        next(wire.stub.Watch(pb.WatchRequest(key=start, key_end=end), timeout=5))
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.INVALID_ARGUMENT, "empty range")


@pytest.mark.parametrize(
    ("filter_type", "seen"),
    [
        (pb.WatchRequest.ALL, ["+a", "+a", "-a", "+end", "-end"]),
        (pb.WatchRequest.UPDATE, ["+a", "+a", "+end"]),
        (pb.WatchRequest.DELETE, ["-a", "-end"]),
        (9, ["+a", "+a", "-a", "+end", "-end"]),
    ],
)
def test_d7_filters(wire: Wire, key: str, filter_type: Any, seen: list[str]) -> None:
    with wire.watch(key, key + "~", filter_type=filter_type) as events:
        wire.put(key + "a", b"1")
        wire.put(key + "a", b"2")
        wire.delete(key + "a")
        wire.put(key + "end")
        wire.delete(key + "end")
        found = [next(events).event for _ in seen]
    assert [("+" if event.HasField("current") else "-") + event.key.removeprefix(key) for event in found] == seen


def test_d7_a_transaction_is_consecutive_events_in_operation_order(wire: Wire, key: str) -> None:
    with wire.watch(key, key + "~") as events:
        responses = wire.run(put(key + "b"), put(key + "a"), delete(key + "b"), fetch_increase(key + "n", 1))
        found = [next(events) for _ in range(4)]
    assert [item.event.key.removeprefix(key) for item in found] == ["b", "a", "b", "n"]
    assert found[0].event.current == responses[0].current
    assert found[2].event.prev == responses[0].current
    assert not found[2].event.HasField("current")
    assert not any(item.is_initialization for item in found)


def test_d7_what_changes_nothing_is_silent(wire: Wire, key: str) -> None:
    with wire.watch(key, key + "~") as events:
        wire.delete(key + "absent")
        wire.upsert(key + "absent", "AsIs")
        wire.put(key + "absent", match_seq=5)
        wire.put(key + "absent", expire_at=PAST_MS)
        wire.put(key + "end")
        assert next(events).event.key == key + "end"


def test_d7_the_initial_flush(wire: Wire, key: str) -> None:
    records = {name: wire.put(key + name, name.encode()).current for name in ("c", "a", "b")}
    for filter_type in (pb.WatchRequest.ALL, pb.WatchRequest.DELETE):
        with wire.watch(key, key + "~", initial_flush=True, filter_type=filter_type) as events:
            flushed = [next(events) for _ in range(3)]
            assert [item.event.key.removeprefix(key) for item in flushed] == ["a", "b", "c"]
            assert all(item.is_initialization and not item.event.HasField("prev") for item in flushed)
            assert [item.event.current for item in flushed] == [records[name] for name in ("a", "b", "c")]
            marker = next(events)
            assert (marker.HasField("event"), marker.is_initialization) == (False, False)
            wire.put(key + "d")
            wire.delete(key + "d")
            change = next(events)
            assert (change.event.key, change.is_initialization) == (key + "d", False)
    with wire.watch(key + "nothing", initial_flush=True) as events:
        assert next(events) == pb.WatchResponse(), "the marker alone"
    with wire.watch(key + "a", initial_flush=True) as events:
        assert next(events).event.current == records["a"]
        assert next(events) == pb.WatchResponse()


def test_d7_headers_come_at_once_on_a_silent_stream(wire: Wire, key: str) -> None:
    started = time.monotonic()
    call = wire.stub.Watch(pb.WatchRequest(key=key), timeout=5)
    call.initial_metadata()
    assert time.monotonic() - started < 1
    call.cancel()

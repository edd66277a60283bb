"""The rows of docs/contract/grpc.md section d, one by one; names of the tests say which."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from metasrv.model import commands as c
from metasrv.model.types import KVMeta, SeqV
from metasrv.state.expiry import expire_ms_of
from metasrv.state.transaction import sequential_name
from tests.support.state_bench import NOW_MS, Bench

U64 = 2**64 - 1
ANY = c.MatchSeq(c.MatchKind.ANY)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.machine.close()


def seqv(seq: int, data: bytes = b"v", expire_at: int | None = None, at_ms: int = NOW_MS) -> SeqV:
    return SeqV(seq, data, KVMeta(expire_at, at_ms))


def upsert(key: str, match: c.MatchSeq = ANY, operation: c.Operation = c.Operation.UPDATE, **rest: object) -> c.Upsert:
    return c.Upsert(key, match, operation, **{"value": b"v", **rest})


# ----------------------------------------------------------------------------- sequence numbers


def test_d1_the_first_write_is_one_and_every_write_takes_one(bench: Bench) -> None:
    assert [bench.put("a").current.seq, bench.put("b").current.seq] == [1, 2]
    assert bench.put("a").current.seq == 3, "the same value again"
    assert bench.machine.last_seq == 3


def test_d1_deletes_and_failed_conditions_take_none(bench: Bench) -> None:
    bench.put("a")
    bench.run(c.Delete("a"), c.Delete("absent"), c.DeleteByPrefix(""), c.Put("a", b"x", match_seq=9))
    assert bench.machine.last_seq == 1
    assert bench.put("a").current.seq == 2, "a new record gets a fresh number"


def test_d1_as_is_takes_one_only_when_there_is_a_record(bench: Bench) -> None:
    assert bench.apply(upsert("a", operation=c.Operation.AS_IS)) == (c.UpsertReply(None, None),)
    assert bench.machine.last_seq == 0
    bench.put("a", b"data", expire_at=NOW_MS + 50)
    (reply,) = bench.apply(upsert("a", operation=c.Operation.AS_IS, value=b""), at_ms=NOW_MS + 1)
    assert reply == c.UpsertReply(seqv(1, b"data", NOW_MS + 50), seqv(2, b"data", None, NOW_MS + 1))


def test_d1_an_expired_value_takes_one_and_leaves_nothing(bench: Bench) -> None:
    assert bench.put("a", expire_at=NOW_MS - 1) == c.PutResponse("a", None, None)
    assert (bench.machine.last_seq, bench.machine.key_count) == (1, 0)


def test_d1_put_sequential_takes_two_and_fetch_increase_one_unless_mismatched(bench: Bench) -> None:
    (response,) = bench.run(c.PutSequential("q/", "counter", b"v"))
    assert response.current.seq == 2
    assert bench.machine.get("counter", NOW_MS).seq == 1
    bench.run(c.FetchIncrease("counter", 1, match_seq=9))
    assert bench.machine.last_seq == 2
    bench.run(c.FetchIncrease("counter", 1, match_seq=1))
    assert bench.machine.last_seq == 3


# ----------------------------------------------------------------------------- upsert


@pytest.mark.parametrize(
    ("match", "met"),
    [
        (ANY, True),
        (c.MatchSeq(c.MatchKind.EXACT, 1), True),
        (c.MatchSeq(c.MatchKind.EXACT, 0), False),
        (c.MatchSeq(c.MatchKind.EXACT, 2), False),
        (c.MatchSeq(c.MatchKind.GREATER_EQUAL, 0), True),
        (c.MatchSeq(c.MatchKind.GREATER_EQUAL, 1), True),
        (c.MatchSeq(c.MatchKind.GREATER_EQUAL, 2), False),
        (c.MatchSeq(c.MatchKind.GREATER_EQUAL, U64), False),
    ],
)
def test_d2_match_seq_against_a_record(bench: Bench, match: c.MatchSeq, met: bool) -> None:
    bench.put("a", b"old")
    old = seqv(1, b"old")
    (reply,) = bench.apply(upsert("a", match, value=b"new"))
    assert reply == c.UpsertReply(old, seqv(2, b"new") if met else old)
    present = seqv(2, b"new") if met else old
    (reply,) = bench.apply(upsert("a", c.MatchSeq(c.MatchKind.EXACT, present.seq), c.Operation.DELETE))
    assert reply == c.UpsertReply(present, None)


def test_d2_an_absent_key_has_number_zero(bench: Bench) -> None:
    assert bench.apply(upsert("a", c.MatchSeq(c.MatchKind.GREATER_EQUAL, 1)))[0] == c.UpsertReply(None, None)
    assert bench.apply(upsert("a", operation=c.Operation.DELETE))[0] == c.UpsertReply(None, None)
    assert bench.apply(upsert("a", c.MatchSeq(c.MatchKind.EXACT, 0)))[0] == c.UpsertReply(None, seqv(1))


def test_d2_a_write_replaces_all_meta(bench: Bench) -> None:
    bench.put("a", ttl_ms=100)
    assert bench.machine.expire_count == 1
    assert bench.put("a", at_ms=NOW_MS + 7).current.meta == KVMeta(None, NOW_MS + 7)
    assert bench.machine.expire_count == 0


# ----------------------------------------------------------------------------- time


def test_d3_log_time_never_goes_back(bench: Bench) -> None:
    bench.put("a", at_ms=NOW_MS)
    assert bench.put("b", at_ms=NOW_MS - 1000).current.meta.proposed_at_ms == NOW_MS
    assert bench.machine.last_time_ms == NOW_MS


# ----------------------------------------------------------------------------- expiry


@pytest.mark.parametrize(
    ("expire_at", "milliseconds"),
    [
        (0, 0),
        (1, 1000),
        (100_000_000_000, 100_000_000_000_000),
        (100_000_000_001, 100_000_000_001),
        (2**63 - 1, 2**63 - 1),
        (2**63, 2**63 - 1),
        (U64, 2**63 - 1),
    ],
)
def test_d4_the_unit_is_guessed_at_1e11(expire_at: int, milliseconds: int) -> None:
    assert expire_ms_of(expire_at) == milliseconds


def test_d4_a_ttl_wins_over_an_absolute_expiry(bench: Bench) -> None:
    assert bench.put("a", expire_at=5, ttl_ms=1000).current.meta.expire_at == NOW_MS + 1000


@pytest.mark.parametrize("expire_at", [NOW_MS // 1000 + 9, NOW_MS + 9, 2**63 - 1, 2**63, U64])
def test_d4_an_absolute_expiry_is_stored_as_given(bench: Bench, expire_at: int) -> None:
    bench.put("a", expire_at=expire_at)
    bench.reopen()
    assert bench.machine.get("a", NOW_MS) == seqv(1, b"v", expire_at)


def test_d4_a_ttl_past_the_largest_number_is_cut(bench: Bench) -> None:
    assert bench.put("a", ttl_ms=U64).current.meta.expire_at == U64


def test_d4_equal_is_alive_and_reads_hide_what_is_not_yet_swept(bench: Bench) -> None:
    bench.put("a", expire_at=NOW_MS + 10)
    machine = bench.machine
    for now_ms, alive in ((NOW_MS + 10, True), (NOW_MS + 11, False), (U64, False)):
        assert (machine.get("a", now_ms) is not None) is alive
        assert (machine.get_many(["a", "a"], now_ms) != [None, None]) is alive
        assert bench.keys(now_ms) == (["a"] if alive else [])
        assert machine.list_range("", None, None, 5, now_ms) == ([("a", seqv(1, b"v", NOW_MS + 10))] if alive else [])
    assert machine.key_count == 1, "an idle cluster sweeps nothing"


def test_d4_every_command_sweeps_first_and_transactions_do_not_look_at_the_clock(bench: Bench) -> None:
    bench.put("a", expire_at=NOW_MS + 10)
    (response,) = bench.run(c.Get("a"), at_ms=NOW_MS + 10)
    assert response.value is not None
    (response,) = bench.run(c.Get("a"), at_ms=NOW_MS + 11)
    assert response.value is None
    assert (bench.machine.key_count, bench.machine.expire_count) == (0, 0)


@pytest.mark.parametrize(
    "command",
    [c.RemoveNode(9), c.SetFeature("dummy", True), c.SetClusterSecret("s", b"x"), c.BranchTransaction(())],
)
def test_d4_commands_without_keys_sweep_too(bench: Bench, command: c.Command) -> None:
    bench.put("a", ttl_ms=1)
    bench.apply(command, at_ms=NOW_MS + 2)
    assert bench.machine.key_count == 0


def test_d4_an_insert_in_the_past_answers_previous_and_removes_it(bench: Bench) -> None:
    bench.put("a")
    assert bench.put("a", b"w", expire_at=NOW_MS - 1) == c.PutResponse("a", seqv(1), None)
    assert bench.keys() == []
    assert bench.machine.last_seq == 2


def test_d4_a_sweep_forgets_nothing_after_a_restart(bench: Bench) -> None:
    bench.put("a", ttl_ms=1)
    bench.put("b", ttl_ms=100)
    bench.reopen()
    bench.put("c", at_ms=NOW_MS + 50)
    assert bench.keys() == ["b", "c"]


# ----------------------------------------------------------------------------- transactions


def seq_is(key: str, seq: int, comparison: c.Comparison = c.Comparison.EQ) -> c.Condition:
    return c.Condition(key, c.Target.SEQ, seq, comparison)


TRUE, FALSE = seq_is("absent", 0), seq_is("absent", 1)


def all_of(*conditions: c.Condition) -> c.Expression:
    return c.Expression(c.Combine.AND, (), conditions)


def test_d5_branch_order_and_paths(bench: Bench) -> None:
    then, other = (c.Get("then"),), (c.Get("else"),)

    def path(branches: tuple[c.Branch, ...], condition: c.Condition, else_then: tuple[c.Get, ...]) -> tuple[object, ...]:
        (reply,) = bench.apply(c.Transaction(branches, (condition,), then, else_then))
        return reply.success, reply.execution_path, [response.key for response in reply.responses]

    no, yes = c.Branch(all_of(FALSE), (c.Get("0"),)), c.Branch(all_of(TRUE), (c.Get("1"),))
    assert path((no, yes), TRUE, other) == (True, "operation:1", ["1"])
    assert path((no, c.Branch(None, ())), TRUE, other) == (True, "operation:1", [])
    assert path((no,), TRUE, other) == (True, "then", ["then"])
    assert path((no,), FALSE, other) == (False, "else", ["else"])
    assert path((no,), FALSE, ()) == (False, "else", [])


def test_d5_an_empty_request_succeeds(bench: Bench) -> None:
    assert bench.apply(c.Transaction((), (), (), ())) == (c.TransactionReply(True, (), "then"),)


def test_d5_branch_transactions(bench: Bench) -> None:
    no, always = c.Branch(all_of(FALSE), ()), c.Branch(None, (c.Get("k"),))
    assert bench.apply(c.BranchTransaction(())) == (c.BranchTransactionReply(None, ()),)
    assert bench.apply(c.BranchTransaction((no,))) == (c.BranchTransactionReply(None, ()),)
    assert bench.apply(c.BranchTransaction((no, always))) == (c.BranchTransactionReply(1, (c.GetResponse("k", None),)),)


@pytest.mark.parametrize(
    ("expression", "holds"),
    [
        (c.Expression(c.Combine.AND, (), ()), True),
        (c.Expression(c.Combine.OR, (), ()), True),
        (c.Expression(c.Combine.AND, (), (TRUE, FALSE)), False),
        (c.Expression(c.Combine.OR, (), (FALSE, TRUE)), True),
        (c.Expression(c.Combine.OR, (), (FALSE, FALSE)), False),
        (c.Expression(c.Combine.OR, (all_of(FALSE), c.Expression(c.Combine.OR, (), ())), (FALSE,)), True),
        (c.Expression(c.Combine.AND, (all_of(TRUE),), (FALSE,)), False),
        (c.Expression(c.Combine.AND, (all_of(TRUE, FALSE),), (TRUE,)), False),
    ],
)
def test_d5_boolean_trees(bench: Bench, expression: c.Expression, holds: bool) -> None:
    (reply,) = bench.apply(c.BranchTransaction((c.Branch(expression, ()),)))
    assert (reply.executed_branch == 0) is holds


def test_d5_operations_see_each_other(bench: Bench) -> None:
    responses = bench.run(c.Put("a", b"1"), c.Get("a"), c.Delete("a"), c.Get("a"), c.Put("a", b"2", match_seq=0))
    one = seqv(1, b"1")
    assert responses == (
        c.PutResponse("a", None, one),
        c.GetResponse("a", one),
        c.DeleteResponse("a", True, one),
        c.GetResponse("a", None),
        c.PutResponse("a", None, seqv(2, b"2")),
    )


COMPARISONS = {
    c.Comparison.EQ: (False, True, False),
    c.Comparison.GT: (True, False, False),
    c.Comparison.GE: (True, True, False),
    c.Comparison.LT: (False, False, True),
    c.Comparison.LE: (False, True, True),
    c.Comparison.NE: (True, False, True),
}
"""Whether it holds when the operand is below, equal to, above the present value."""


def holds(bench: Bench, condition: c.Condition) -> bool:
    (reply,) = bench.apply(c.Transaction((), (condition,), (), ()))
    return reply.success


@pytest.mark.parametrize("comparison", COMPARISONS)
def test_d5_condition_targets(bench: Bench, comparison: c.Comparison) -> None:
    for key in ("p/a", "p/b", "p/c", "q"):
        bench.put(key, b"mm")
    expected = COMPARISONS[comparison]
    for target, operands in (
        (c.Target.SEQ, (1, 2, 3)),
        (c.Target.VALUE, (b"mlz", b"mm", b"mm\0")),
        (c.Target.KEYS_WITH_PREFIX, (2, 3, 4)),
    ):
        key = "p/" if target is c.Target.KEYS_WITH_PREFIX else "p/b"
        found = tuple(holds(bench, c.Condition(key, target, operand, comparison)) for operand in operands)
        assert found == expected, target
    assert not holds(bench, c.Condition("absent", c.Target.VALUE, b"", comparison)), "false for every OP"
    assert not holds(bench, c.Condition("p/b", c.Target.NONE, 0, comparison))
    assert holds(bench, seq_is("absent", 0, comparison)) is expected[1]


def test_d5_counts_stop_before_they_overflow(bench: Bench) -> None:
    bench.put("a")
    assert holds(bench, c.Condition("", c.Target.KEYS_WITH_PREFIX, U64, c.Comparison.LT))
    assert holds(bench, c.Condition("", c.Target.KEYS_WITH_PREFIX, 0, c.Comparison.GT))


def test_d5_put_with_match_seq(bench: Bench) -> None:
    assert bench.put("a", match_seq=1) == c.PutResponse("a", None, None)
    assert bench.put("a", match_seq=0) == c.PutResponse("a", None, seqv(1))
    assert bench.put("a", b"x", match_seq=0) == c.PutResponse("a", seqv(1), seqv(1))
    assert bench.put("a", b"x", match_seq=1) == c.PutResponse("a", seqv(1), seqv(2, b"x"))


def test_d5_delete_fills_previous_even_when_mismatched(bench: Bench) -> None:
    bench.put("a")
    responses = bench.run(c.Delete("a", 2), c.Delete("a", 0), c.Delete("a", 1), c.Delete("a", 0), c.Delete("a"))
    assert [(response.success, response.prev) for response in responses] == [
        (False, seqv(1)),
        (False, seqv(1)),
        (True, seqv(1)),
        (False, None),
        (False, None),
    ]


def test_d5_delete_by_prefix(bench: Bench) -> None:
    for key in ("test", "test_key1", "test/key2", "testkey3", "tes", "tesu", "\U0010ffff", "\U0010ffffa"):
        bench.put(key, ttl_ms=10)
    assert bench.run(c.DeleteByPrefix("test"))[0] == c.DeleteByPrefixResponse("test", 4)
    assert bench.run(c.DeleteByPrefix("\U0010ffff"))[0].count == 2
    assert (bench.machine.key_count, bench.machine.expire_count) == (2, 2)
    assert bench.run(c.DeleteByPrefix(""))[0].count == 2
    assert bench.run(c.DeleteByPrefix(""))[0].count == 0


@pytest.mark.parametrize(
    ("stored", "delta", "floor", "before", "after"),
    [
        (None, 3, 0, 0, 3),
        (b"5", 3, 0, 5, 8),
        (b"5", -9, 0, 5, 0),
        (b" 5\n", 0, 7, 5, 7),
        (b"5", 1, 7, 5, 8),
        (b"9", 1, 7, 9, 10),
        (b"05", 1, 0, 0, 1),
        (b"+5", 1, 0, 0, 1),
        (b"5.0", 1, 0, 0, 1),
        (b"-5", 1, 0, 0, 1),
        (b"\xff", 1, 0, 0, 1),
        (b"5 5", 1, 0, 0, 1),
        (b"1" * 5000, 1, 0, 0, 1),
        (str(U64).encode(), 1, 0, U64, U64),
        (str(U64 + 1).encode(), 1, 0, 0, 1),
        (b"1", 2**63 - 1, U64, 1, U64),
        (b"1", -(2**63), 2**63, 1, 0),
    ],
)
def test_d5_fetch_increase(bench: Bench, stored: bytes | None, delta: int, floor: int, before: int, after: int) -> None:
    if stored is not None:
        bench.put("n", stored, ttl_ms=10)
    seq = bench.machine.last_seq
    assert bench.run(c.FetchIncrease("n", delta, floor=floor)) == (
        c.FetchIncreaseResponse("n", seq, before, seq + 1, after),
    )
    assert bench.machine.get("n", U64) == seqv(seq + 1, str(after).encode()), "and the expiry is gone"


def test_d5_fetch_increase_mismatched_changes_nothing(bench: Bench) -> None:
    bench.put("n", b"5")
    assert bench.run(c.FetchIncrease("n", 3, match_seq=0, floor=9)) == (c.FetchIncreaseResponse("n", 1, 5, 1, 5),)


def test_d5_put_sequential(bench: Bench) -> None:
    first, second = bench.run(c.PutSequential("q/", "n", b"x"), c.PutSequential("q/", "n", b"y", None, 20))
    assert first == c.PutResponse("q/000_000_000_000_000_000_000", None, seqv(2, b"x"))
    assert second == c.PutResponse("q/000_000_000_000_000_000_001", None, seqv(4, b"y", NOW_MS + 20))
    assert bench.machine.get("n", NOW_MS).data == b"2"


def test_d5_sequential_names() -> None:
    assert sequential_name(1_200_123) == "000_000_000_000_001_200_123"
    assert sequential_name(U64) == "018_446_744_073_709_551_615"


# ----------------------------------------------------------------------------- listing and gets

ORDERED = ["", "a", "a\0", "a/", "a/b", "a0", "b", "\ud7ff", "\ue000", "\uffff", "\U00010000", "\U0010ffff"]


def test_d6_order_prefixes_and_limits(bench: Bench) -> None:
    for key in reversed(ORDERED):
        bench.put(key)
    assert bench.keys() == ORDERED == sorted(ORDERED, key=str.encode)
    for prefix in [*ORDERED, "x"]:
        found = [key for key, _ in bench.machine.list_prefix(prefix, None, NOW_MS)]
        assert found == [key for key in ORDERED if key.startswith(prefix)], repr(prefix)
    assert bench.machine.list_prefix("", 0, NOW_MS) == []
    assert [key for key, _ in bench.machine.list_prefix("a", 2, NOW_MS)] == ["a", "a\0"]
    assert len(bench.machine.list_prefix("", U64, NOW_MS)) == len(ORDERED)


def test_d6_pages(bench: Bench) -> None:
    for key in ORDERED:
        bench.put(key)
    found, after = [], None
    while page := bench.machine.list_range("a", "\U00010000", after, 2, NOW_MS):
        found += [key for key, _ in page]
        after = page[-1][0]
    assert found == [key for key in ORDERED if "a" <= key < "\U00010000"]


def test_d6_gets_answer_in_order_with_duplicates(bench: Bench) -> None:
    bench.put("a")
    assert bench.machine.get_many(["x", "a", "a", ""], NOW_MS) == [None, seqv(1), seqv(1), None]

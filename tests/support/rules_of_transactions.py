"""Transactions: docs/contract/grpc.md section d.5 as a table."""

from __future__ import annotations

from metasrv.model import commands as c
from metasrv.model.types import SeqV
from tests.support.rules import (
    FAR_MS,
    U64_MAX,
    At,
    Does,
    Event,
    Gets,
    Lists,
    Rule,
    Step,
    Watches,
    all_of,
    any_of,
    puts,
    record,
    runs,
    seq_is,
)

EQ, GT, GE, LT, LE, NE = c.Comparison
YES, NO = seq_is("absent", 0), seq_is("absent", 0, GT)


def _branch(predicate: c.Expression | None, *operations: c.TransactionOperation) -> c.Branch:
    return c.Branch(predicate, operations)


# ----------------------------------------------------------------------------- which branch runs


def _path(name: str, branches: tuple[c.Branch, ...], condition: c.Condition, expected: tuple[bool, str, str]) -> Rule:
    """`expected`: success, execution path, and the key that was read by the branch that ran, if any."""
    success, path, read = expected
    responses = (c.GetResponse(read, None),) if read else ()
    command = c.Transaction(branches, (condition,), (c.Get("then"),), (c.Get("else"),))
    return Rule(f"branches: {name}", (Does(command, c.TransactionReply(success, responses, path)),), takes=0)


FIRST = _branch(all_of(YES), c.Get("first"))
FIRST_FAILS = _branch(all_of(NO), c.Get("first"))
SECOND = _branch(all_of(YES), c.Get("second"))
SECOND_FAILS = _branch(all_of(NO), c.Get("second"))

BRANCHES = (
    _path("the first that holds runs", (FIRST, SECOND), YES, (True, "operation:0", "first")),
    _path("one that fails is passed over", (FIRST_FAILS, SECOND), YES, (True, "operation:1", "second")),
    _path("then comes after all", (FIRST_FAILS, SECOND_FAILS), YES, (True, "then", "then")),
    _path("else comes last", (FIRST_FAILS, SECOND_FAILS), NO, (False, "else", "else")),
    _path("then after one", (FIRST_FAILS,), YES, (True, "then", "then")),
    _path("else after one", (FIRST_FAILS,), NO, (False, "else", "else")),
    _path("an absent predicate is true", (_branch(None, c.Get("first")),), YES, (True, "operation:0", "first")),
    _path("a branch may do nothing", (FIRST_FAILS, _branch(None)), YES, (True, "operation:1", "")),
    Rule(
        "branches: without else nothing runs",
        (
            Does(c.Transaction((), (NO,), (c.Put("a", b"v"),), ()), c.TransactionReply(False, (), "else")),
            Does(c.Transaction((FIRST_FAILS,), (NO,), (c.Put("a", b"v"),), ()), c.TransactionReply(False, (), "else")),
        ),
        takes=0,
    ),
    Rule(
        "branches: an empty request succeeds",
        (Does(c.Transaction((), (), (), ()), c.TransactionReply(True, (), "then")),),
        takes=0,
    ),
    Rule(
        "branches: a branch transaction names the one that ran",
        (
            Does(
                c.BranchTransaction(
                    (_branch(all_of(NO), c.Put("a", b"x")), _branch(None, c.Put("a", b"v"), c.Get("a")), _branch(None))
                ),
                c.BranchTransactionReply(1, (puts("a", 1)[1], c.GetResponse("a", record(1)))),
            ),
            Does(c.BranchTransaction((_branch(None),)), c.BranchTransactionReply(0, ())),
            Does(
                c.BranchTransaction((_branch(all_of(NO)), _branch(None, c.Get("k")))),
                c.BranchTransactionReply(1, (c.GetResponse("k", None),)),
            ),
            Does(c.BranchTransaction(()), c.BranchTransactionReply(None, ())),
            Does(c.BranchTransaction((_branch(all_of(NO)),)), c.BranchTransactionReply(None, ())),
            Does(c.BranchTransaction((_branch(all_of(NO), c.Put("a", b"x")),)), c.BranchTransactionReply(None, ())),
            Gets(("a",), (record(1),)),
        ),
        takes=1,
    ),
)

# ----------------------------------------------------------------------------- boolean trees


def _tree(name: str, tree: c.Expression, holds: bool) -> Rule:
    """The same tree in both kinds of transaction."""
    return Rule(
        f"tree: {name}",
        (
            Does(
                c.BranchTransaction((_branch(tree, c.Get("a")),)),
                c.BranchTransactionReply(0, (c.GetResponse("a", None),)) if holds else c.BranchTransactionReply(None, ()),
            ),
            Does(
                c.Transaction((_branch(tree),), (), (), ()),
                c.TransactionReply(True, (), "operation:0" if holds else "then"),
            ),
        ),
        takes=0,
    )


TREES = (
    _tree("all of nothing", all_of(), True),
    _tree("any of nothing", any_of(), True),
    _tree("all of two that hold", all_of(YES, YES), True),
    _tree("all of one that holds and one that fails", all_of(YES, NO), False),
    _tree("any of one that fails and one that holds", any_of(NO, YES), True),
    _tree("any of two that fail", any_of(NO, NO), False),
    _tree("all of a condition and any", all_of(YES, trees=(any_of(NO, YES),)), True),
    _tree("all of a condition and any that fails", all_of(YES, trees=(any_of(NO),)), False),
    _tree("any of a condition and all", any_of(NO, trees=(all_of(YES, NO), all_of(YES))), True),
    _tree("any of a condition and all that fail", any_of(NO, trees=(all_of(NO),)), False),
    _tree("any of all with one that fails", any_of(trees=(all_of(NO, trees=(any_of(),)),)), False),
    _tree(
        "all of empty ones and a nested any",
        all_of(trees=(all_of(), any_of(), all_of(trees=(any_of(YES, NO),)))),
        True,
    ),
    _tree("any with an empty any", any_of(NO, trees=(all_of(NO), any_of())), True),
    _tree("all of a tree that holds and a condition that fails", all_of(NO, trees=(all_of(YES),)), False),
    _tree("all of a tree that fails and a condition that holds", all_of(YES, trees=(all_of(YES, NO),)), False),
)

# ----------------------------------------------------------------------------- conditions

COMPARISONS = {
    EQ: (False, True, False),
    GT: (True, False, False),
    GE: (True, True, False),
    LT: (False, False, True),
    LE: (False, True, True),
    NE: (True, False, True),
}
"""Whether it holds when the operand is below, equal to, above the present value."""


def _condition(condition: c.Condition, holds: bool) -> Does:
    return Does(c.Transaction((), (condition,), (), ()), c.TransactionReply(holds, (), "then" if holds else "else"))


def _comparison(comparison: c.Comparison, row: tuple[bool, bool, bool]) -> Rule:
    def three(key: str, target: c.Target, operands: tuple[int | bytes, ...]) -> tuple[Step, ...]:
        return tuple(
            _condition(c.Condition(key, target, operand, comparison), holds)
            for operand, holds in zip(operands, row, strict=True)
        )

    value, prefix = c.Target.VALUE, c.Target.KEYS_WITH_PREFIX
    return Rule(
        f"condition: {comparison.name}",
        (
            runs(puts("p", 1, b"mm"), puts("p/b", 2, b"mm"), puts("p/c", 3, b"mm"), puts("q", 4, b"mm")),
            *three("p/b", c.Target.SEQ, (At(1), At(2), At(3))),
            *three("p/b", value, (b"ml\xff", b"mm", b"mm\0")),
            *three("p/b", value, (b"m", b"mm", b"mn")),
            *three("p", prefix, (2, 3, 4)),
            *three("p/", prefix, (1, 2, 3)),
            _condition(seq_is("absent", 0, comparison), row[1]),
            _condition(c.Condition("absent", prefix, 0, comparison), row[1]),
            # An absent key has no value that compares.
            _condition(c.Condition("absent", value, b"", comparison), False),
            _condition(c.Condition("p", prefix, U64_MAX, comparison), row[2]),
            _condition(c.Condition("", prefix, 0, comparison), row[0]),
            # Without a target it is false.
            _condition(c.Condition("p/b", c.Target.NONE, 0, comparison), False),
        ),
        takes=4,
    )


CONDITIONS = tuple(_comparison(comparison, row) for comparison, row in COMPARISONS.items())

# ----------------------------------------------------------------------------- operations


def _increase(stored: bytes | None, delta: int, floor: int, before: int, after: int) -> Rule:
    """An increase of a counter with a time to live, which it clears."""
    number = 1 if stored is None else 2
    prepared: tuple[Step, ...] = ()
    if stored is not None:
        put = c.Put("n", stored, None, 60_000)
        prepared = (runs((put, c.PutResponse("n", None, record(1, stored, ttl_ms=60_000)))),)
    response = c.FetchIncreaseResponse("n", 0 if stored is None else At(1), before, At(number), after)
    shown = stored if stored is None or len(stored) < 30 else f"{len(stored)} digits"
    return Rule(
        f"increase: {shown!r} by {delta} from {floor}",
        (
            *prepared,
            runs((c.FetchIncrease("n", delta, None, floor), response)),
            Gets(("n",), (record(number, str(after).encode()),)),
        ),
        takes=number,
    )


INCREASES = (
    _increase(None, 5, 0, 0, 5),
    _increase(b"7", 5, 0, 7, 12),
    _increase(b" 7\n", 1, 0, 7, 8),
    _increase(b" 5\n", 0, 7, 5, 7),
    _increase(b"text", 5, 0, 0, 5),
    _increase(b"-1", 5, 0, 0, 5),
    _increase(b"-5", 1, 0, 0, 1),
    _increase(b"1.5", 5, 0, 0, 5),
    _increase(b"5.0", 1, 0, 0, 1),
    _increase(b'"9"', 5, 0, 0, 5),
    _increase(b"", 5, 0, 0, 5),
    _increase(b"1\0", 5, 0, 0, 5),
    _increase(b"05", 1, 0, 0, 1),
    _increase(b"+5", 1, 0, 0, 1),
    _increase(b"\xff", 1, 0, 0, 1),
    _increase(b"5 5", 1, 0, 0, 1),
    _increase(b"1" * 5000, 1, 0, 0, 1),
    _increase(str(U64_MAX).encode(), 5, 0, U64_MAX, U64_MAX),
    _increase(str(U64_MAX + 1).encode(), 5, 0, 0, 5),
    _increase(b"3", -5, 0, 3, 0),
    _increase(b"5", -9, 0, 5, 0),
    _increase(b"5", 3, 0, 5, 8),
    _increase(b"3", 1, 100, 3, 101),
    _increase(b"5", 1, 7, 5, 8),
    _increase(b"300", 1, 100, 300, 301),
    _increase(b"9", 1, 7, 9, 10),
    _increase(b"3", -10, 100, 3, 90),
    _increase(b"0", 2**63 - 1, U64_MAX, 0, U64_MAX),
    _increase(b"1", 2**63 - 1, U64_MAX, 1, U64_MAX),
    _increase(b"5", -(2**63), U64_MAX, 5, 2**63 - 1),
    _increase(b"1", -(2**63), 2**63, 1, 0),
)

ONE, TWO = record(1, b"1"), record(2, b"2")


def _deleted(match_seq: int | None, success: bool, prev: SeqV | None) -> tuple[c.Delete, c.DeleteResponse]:
    return c.Delete("a", match_seq), c.DeleteResponse("a", success, prev)


OPERATIONS = (
    Rule(
        "operations see each other",
        (
            runs(
                puts("a", 1, b"1"),
                (c.Get("a"), c.GetResponse("a", ONE)),
                puts("a", 2, b"2", prev=ONE),
                _deleted(None, True, TWO),
                (c.Get("a"), c.GetResponse("a", None)),
                _deleted(None, False, None),
                (c.Put("a", b"3", match_seq=0), c.PutResponse("a", None, record(3, b"3"))),
            ),
            Gets(("a",), (record(3, b"3"),)),
        ),
        takes=3,
    ),
    Rule(
        "a put answers what was there, and changes nothing if its number does not match",
        (
            runs((c.Put("a", b"7", match_seq=1), c.PutResponse("a", None, None))),
            runs(puts("a", 1, b"1")),
            runs(puts("a", 2, b"2", prev=ONE)),
            runs((c.Put("a", b"3", match_seq=At(1)), c.PutResponse("a", TWO, TWO))),
            Gets(("a",), (TWO,)),
            runs((c.Put("a", b"3", match_seq=At(2)), c.PutResponse("a", TWO, record(3, b"3")))),
            # Zero wants the key to be absent.
            runs((c.Put("a", b"4", match_seq=0), c.PutResponse("a", record(3, b"3"), record(3, b"3")))),
            runs((c.Put("new", b"4", match_seq=0), c.PutResponse("new", None, record(4, b"4")))),
        ),
        takes=4,
    ),
    Rule(
        "a delete answers what was there, also if its number does not match",
        (
            runs(puts("a", 1)),
            runs(_deleted(At(2), False, record(1))),
            runs(_deleted(0, False, record(1))),
            Gets(("a",), (record(1),)),
            runs(_deleted(At(1), True, record(1))),
            runs(_deleted(None, False, None)),
            runs(_deleted(0, False, None)),
        ),
        takes=1,
    ),
    Rule(
        "deletes in one transaction see each other",
        (
            runs(puts("a", 1)),
            runs(
                _deleted(At(2), False, record(1)),
                _deleted(0, False, record(1)),
                _deleted(At(1), True, record(1)),
                _deleted(0, False, None),
                _deleted(None, False, None),
            ),
        ),
        takes=1,
    ),
    Rule(
        "a delete by prefix counts, goes in key order, and tells of each once",
        (
            runs(puts("p/b", 1), puts("p/a", 2), puts("p", 3), puts("q", 4), puts("pp", 5)),
            Watches(
                "",
                "~",
                (
                    Event("p", record(3), None),
                    Event("p/a", record(2), None),
                    Event("p/b", record(1), None),
                    Event("pp", record(5), None),
                ),
            ),
            runs((c.DeleteByPrefix("p"), c.DeleteByPrefixResponse("p", 4))),
            runs((c.DeleteByPrefix("p"), c.DeleteByPrefixResponse("p", 0))),
            Lists("", (("q", record(4)),)),
        ),
        takes=5,
    ),
    Rule(
        "a delete by prefix goes by characters",
        (
            runs(
                *(
                    (c.Put(key, b"v", None, 60_000), c.PutResponse(key, None, record(number, ttl_ms=60_000)))
                    for number, key in enumerate(
                        ("test", "test_key1", "test/key2", "testkey3", "tes", "tesu", "\U0010ffff", "\U0010ffffa"), 1
                    )
                )
            ),
            runs((c.DeleteByPrefix("test"), c.DeleteByPrefixResponse("test", 4))),
            runs((c.DeleteByPrefix("\U0010ffff"), c.DeleteByPrefixResponse("\U0010ffff", 2))),
            Lists("", (("tes", record(5, ttl_ms=60_000)), ("tesu", record(6, ttl_ms=60_000)))),
            runs((c.DeleteByPrefix(""), c.DeleteByPrefixResponse("", 2))),
            runs((c.DeleteByPrefix(""), c.DeleteByPrefixResponse("", 0))),
        ),
        takes=8,
    ),
    Rule(
        "an increase whose number does not match changes nothing",
        (
            runs(puts("n", 1, b"7")),
            runs((c.FetchIncrease("n", 5, At(2)), c.FetchIncreaseResponse("n", At(1), 7, At(1), 7))),
            runs((c.FetchIncrease("n", 3, 0, 9), c.FetchIncreaseResponse("n", At(1), 7, At(1), 7))),
            Gets(("n",), (record(1, b"7"),)),
            runs((c.FetchIncrease("absent", 5, 1), c.FetchIncreaseResponse("absent", 0, 0, 0, 0))),
            runs((c.FetchIncrease("n", 5, At(1)), c.FetchIncreaseResponse("n", At(1), 7, At(2), 12))),
            runs((c.FetchIncrease("absent", 5, 0), c.FetchIncreaseResponse("absent", 0, 0, At(3), 5))),
        ),
        takes=3,
    ),
    Rule(
        "a sequential put names its record by the counter",
        (
            runs(
                (
                    c.PutSequential("job/", "n", b"1"),
                    c.PutResponse("job/000_000_000_000_000_000_000", None, record(2, b"1")),
                ),
                (
                    c.PutSequential("job/", "n", b"2", None, 20_000),
                    c.PutResponse("job/000_000_000_000_000_000_001", None, record(4, b"2", ttl_ms=20_000)),
                ),
            ),
            Gets(("n",), (record(3, b"2"),)),
            runs(puts("n", 5, b"1200123", prev=record(3, b"2"))),
            runs(
                (
                    c.PutSequential("job/", "n", b"v"),
                    c.PutResponse("job/000_000_000_000_001_200_123", None, record(7)),
                )
            ),
            Gets(("n",), (record(6, b"1200124"),)),
            runs(puts("n", 8, str(U64_MAX).encode(), prev=record(6, b"1200124"))),
            runs(
                (
                    c.PutSequential("", "n", b"v", FAR_MS),
                    c.PutResponse("018_446_744_073_709_551_615", None, record(10, expire_at=FAR_MS)),
                )
            ),
        ),
        takes=10,
    ),
)

RULES = (*BRANCHES, *TREES, *CONDITIONS, *INCREASES, *OPERATIONS)

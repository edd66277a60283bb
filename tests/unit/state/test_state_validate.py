"""Commands at each limit and one past it (invariant 10)."""

from __future__ import annotations

import pytest

from metasrv.model import commands as c
from metasrv.model.errors import InvalidRequestError, TooLargeError
from metasrv.model.limits import (
    KEY_SIZE_BYTES_MAX,
    TRANSACTION_DEPTH_MAX,
    TRANSACTION_OPERATIONS_MAX,
    VALUE_SIZE_BYTES_MAX,
)
from metasrv.model.types import Endpoint, Node
from metasrv.state.command_rules import validate_command

LONGEST = "é" * (KEY_SIZE_BYTES_MAX // 2)
ANY = c.MatchSeq(c.MatchKind.ANY)
U64 = 2**64 - 1


def transaction(*operations: c.TransactionOperation, conditions: tuple[c.Condition, ...] = ()) -> c.Transaction:
    return c.Transaction((), conditions, operations, ())


def seq_condition(key: str, seq: int = 0) -> c.Condition:
    return c.Condition(key, c.Target.SEQ, seq, c.Comparison.EQ)


def with_key(key: str) -> list[c.Command]:
    return [
        c.Upsert(key, ANY, c.Operation.UPDATE, b""),
        transaction(c.Get(key)),
        transaction(c.Put(key, b"")),
        transaction(c.Delete(key)),
        transaction(c.DeleteByPrefix(key)),
        transaction(c.FetchIncrease(key, 1)),
        transaction(c.PutSequential("", key, b"")),
        transaction(conditions=(seq_condition(key),)),
        c.Transaction((), (), (), (c.Get(key),)),
        c.Transaction((c.Branch(None, (c.Get(key),)),), (), (), ()),
        c.BranchTransaction((c.Branch(c.Expression(c.Combine.OR, (), (seq_condition(key),)), ()),)),
        c.SetFeature(key, True),
        c.SetClusterSecret(key, b""),
        c.ReplaceSecret(key, None, None),
        c.AddNode(Node(1, Endpoint(key, 1), "", None), True),
        c.AddNode(Node(1, Endpoint("h", 1), key, None), True),
        c.AddNode(Node(1, Endpoint("h", 1), "", key), True),
    ]


@pytest.mark.parametrize("position", range(len(with_key(""))))
def test_keys(position: int) -> None:
    for fine in (LONGEST, "k" * KEY_SIZE_BYTES_MAX, ""):
        validate_command(with_key(fine)[position])
    for long in (LONGEST + "x", "k" * (KEY_SIZE_BYTES_MAX + 1)):
        with pytest.raises(TooLargeError, match=f"is {KEY_SIZE_BYTES_MAX + 1}, the limit is {KEY_SIZE_BYTES_MAX}"):
            validate_command(with_key(long)[position])
    with pytest.raises(InvalidRequestError, match="surrogate"):
        validate_command(with_key("half \ud800")[position])


def test_the_key_that_put_sequential_makes() -> None:
    validate_command(transaction(c.PutSequential("p" * (KEY_SIZE_BYTES_MAX - 27), "n", b"")))
    with pytest.raises(TooLargeError):
        validate_command(transaction(c.PutSequential("p" * (KEY_SIZE_BYTES_MAX - 26), "n", b"")))


def test_values() -> None:
    largest = bytes(VALUE_SIZE_BYTES_MAX)

    def made(value: bytes) -> list[c.Command]:
        return [
            c.Upsert("k", ANY, c.Operation.UPDATE, value),
            transaction(c.Put("k", value)),
            transaction(c.PutSequential("k", "n", value)),
            transaction(conditions=(c.Condition("k", c.Target.VALUE, value, c.Comparison.EQ),)),
            c.SetClusterSecret("k", value),
            c.ReplaceSecret("k", None, value),
            c.ReplaceSecret("k", value, None),
        ]

    for command in made(largest):
        validate_command(command)
    for command in made(largest + b"x"):
        with pytest.raises(TooLargeError, match="the value in bytes"):
            validate_command(command)


def test_the_count_of_operations_and_conditions_together() -> None:
    def made(extra: int) -> c.Transaction:
        tree = c.Expression(c.Combine.AND, (c.Expression(c.Combine.AND, (), (seq_condition("k"),)),), ())
        branch = c.Branch(tree, (c.Get("k"),) * 99)
        gets = (c.Get("k"),) * (TRANSACTION_OPERATIONS_MAX - 400 + extra)
        return c.Transaction((branch,), (seq_condition("k"),) * 200, gets, (c.Get("k"),) * 100)

    validate_command(made(0))
    with pytest.raises(TooLargeError, match=f"operations and conditions .* is {TRANSACTION_OPERATIONS_MAX + 1}"):
        validate_command(made(1))


def test_branches_and_expressions_are_counted_too() -> None:
    empty = c.Branch(None, ())
    validate_command(c.BranchTransaction((empty,) * TRANSACTION_OPERATIONS_MAX))
    with pytest.raises(TooLargeError, match="branches"):
        validate_command(c.BranchTransaction((empty,) * (TRANSACTION_OPERATIONS_MAX + 1)))
    leaf = c.Expression(c.Combine.AND, (), ())
    tree = c.Expression(c.Combine.AND, (leaf,) * (TRANSACTION_OPERATIONS_MAX - 1), ())
    validate_command(c.BranchTransaction((c.Branch(tree, ()),)))
    tree = c.Expression(c.Combine.AND, (leaf,) * TRANSACTION_OPERATIONS_MAX, ())
    with pytest.raises(TooLargeError, match="expressions"):
        validate_command(c.BranchTransaction((c.Branch(tree, ()),)))


def test_the_depth_of_the_boolean_tree() -> None:
    tree = c.Expression(c.Combine.AND, (), ())
    for _ in range(TRANSACTION_DEPTH_MAX - 1):
        tree = c.Expression(c.Combine.AND, (tree,), ())
    validate_command(c.BranchTransaction((c.Branch(tree, ()),)))
    with pytest.raises(TooLargeError, match="nesting"):
        validate_command(c.BranchTransaction((c.Branch(c.Expression(c.Combine.OR, (tree,), ()), ()),)))


def test_numbers() -> None:
    for number, fine in ((0, True), (U64, True), (U64 + 1, False), (-1, False)):
        commands: list[c.Command] = [
            c.Upsert("k", c.MatchSeq(c.MatchKind.EXACT, number), c.Operation.DELETE),
            c.Upsert("k", ANY, c.Operation.UPDATE, b"", number),
            c.Upsert("k", ANY, c.Operation.UPDATE, b"", None, number),
            transaction(c.Put("k", b"", number)),
            transaction(c.Put("k", b"", None, number)),
            transaction(c.Put("k", b"", None, None, number)),
            transaction(c.Delete("k", number)),
            transaction(c.FetchIncrease("k", 1, number)),
            transaction(c.FetchIncrease("k", 1, None, number)),
            transaction(c.PutSequential("k", "n", b"", number)),
            transaction(c.PutSequential("k", "n", b"", None, number)),
            transaction(conditions=(seq_condition("k", number),)),
            c.RemoveNode(number),
        ]
        for command in commands:
            if fine:
                validate_command(command)
            else:
                with pytest.raises(InvalidRequestError, match="not an unsigned 64-bit number"):
                    validate_command(command)
    for delta in (-(2**63), 2**63 - 1):
        validate_command(transaction(c.FetchIncrease("k", delta)))
    with pytest.raises(InvalidRequestError):
        validate_command(transaction(c.FetchIncrease("k", 2**63)))

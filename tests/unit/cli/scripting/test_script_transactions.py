"""Tables of scripts as transactions: what they become, and what is said of a wrong one."""

from __future__ import annotations

from typing import Any

import pytest

from metasrv.cli.scripting.transactions import OtherValue, transaction_of
from metasrv.client import Transaction
from metasrv.model.errors import InvalidRequestError
from metasrv.model.types import U64_MAX


def array(*items: Any) -> dict[int, Any]:
    return dict(enumerate(items, 1))


def put(**changed: Any) -> dict[bytes, Any]:
    fields = {"op": b"put", "key": b"k", "value": b"v", **changed}
    return {name.encode(): value for name, value in fields.items() if value is not None}


def condition(**changed: Any) -> dict[bytes, Any]:
    fields = {"op": b"eq_seq", "key": b"k", "value": 0, **changed}
    return {name.encode(): value for name, value in fields.items() if value is not None}


def test_every_condition_and_operation() -> None:
    table = {
        b"conditions": array(
            condition(), condition(op=b"ge_seq", value=3.0), condition(op=b"eq_value", value=b"\x00\xff")
        ),
        b"then": array(put(), put(ttl=0.0015), {b"op": b"get", b"key": "ä".encode()}),
        b"else": array({b"op": b"delete", b"key": b"k"}),
    }
    expected = Transaction().when_seq("k", "==", 0).when_seq("k", ">=", 3).when_value("k", "==", b"\x00\xff")
    expected.put("k", b"v").put("k", b"v", ttl_ms=2).get("ä").otherwise().delete("k")
    assert transaction_of(table).request == expected.request


def test_all_parts_may_be_missing() -> None:
    assert transaction_of({}).request == Transaction().request


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        (None, "transaction: must be a table, got nil"),
        (OtherValue("function"), "transaction: must be a table, got function"),
        ({b"unknown": {}}, "transaction: unknown field `unknown`"),
        ({1: {}}, "transaction: unknown field `1`"),
        ({b"conditions": b"x"}, "transaction.conditions: must be an array, got string"),
        ({b"conditions": array(5)}, "transaction.conditions[1]: must be a table, got number"),
        ({b"conditions": array(condition(op=b"lt"))}, "transaction.conditions[1]: unknown condition `lt`"),
        ({b"conditions": array(condition(op=None))}, "transaction.conditions[1]: missing field `op`"),
        ({b"conditions": array(condition(more=1))}, "transaction.conditions[1]: unknown field `more`"),
        (
            {b"conditions": array(condition(), condition(value=-1))},
            "transaction.conditions[2]: field `value` must be a non-negative integer, got -1",
        ),
        (
            {b"conditions": array(condition(value=True))},
            "transaction.conditions[1]: field `value` must be a non-negative integer, got True",
        ),
        (
            {b"conditions": array(condition(value=b"1"))},
            "transaction.conditions[1]: field `value` must be a non-negative integer, got string",
        ),
        (
            {b"conditions": array(condition(op=b"eq_value"))},
            "transaction.conditions[1]: field `value` must be a string, got number",
        ),
        ({b"then": array(put(op=b"cas"))}, 'transaction["then"][1]: unknown operation `cas`'),
        ({b"then": array(put(value=None))}, 'transaction["then"][1]: missing field `value`'),
        ({b"then": array(put(key=7))}, 'transaction["then"][1]: field `key` must be a string, got number'),
        ({b"then": array(put(key=b"\xff"))}, 'transaction["then"][1]: field `key` must be UTF-8'),
        ({b"then": {1: put(), 3: put()}}, 'transaction["then"]: must be a dense array'),
        ({b"then": array(put(op=b"get", value=None, ttl=1))}, 'transaction["then"][1]: unknown field `ttl`'),
        ({b"then": array(put(ttl=b"soon"))}, 'transaction["then"][1]: field `ttl` must be a number, got string'),
        ({b"else": array(put(op=b"x"))}, 'transaction["else"][1]: unknown operation `x`'),
        *(
            (
                {b"then": array(put(ttl=ttl))},
                'transaction["then"][1].ttl: duration must be finite, non-negative, and representable',
            )
            for ttl in (-1, float("inf"), float("nan"), U64_MAX)
        ),
    ],
)
def test_what_is_wrong_is_said_with_its_place(table: Any, problem: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        transaction_of(table)
    assert str(refused.value) == problem

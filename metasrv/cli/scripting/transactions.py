"""Transactions of scripts: tables with conditions and operations, checked and turned into requests.

A table arrives as a dictionary, text as bytes. What is wrong is said with its place, as upstream's tool says it. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from metasrv.client.transaction import Transaction
from metasrv.model.errors import InvalidRequestError
from metasrv.model.types import U64_MAX

_SIDES = (b"then", b"else")
_MILLISECONDS = 1000


class OtherValue:
    """A value of a script that no request has: a function, for example."""

    def __init__(self, lua_type: str) -> None:
        self.lua_type = lua_type


def transaction_of(value: Any) -> Transaction:
    """The request that a script's table means. Raises InvalidRequestError naming the place."""
    place = "transaction"
    fields = _fields(value, place, (b"conditions", *_SIDES))
    transaction = Transaction()
    conditions_place = f"{place}.conditions"
    for number, item in enumerate(_array(fields.get(b"conditions"), conditions_place), 1):
        _add_condition(transaction, item, f"{conditions_place}[{number}]")
    for side in _SIDES:
        if side == b"else":
            transaction.otherwise()
        side_place = f'{place}["{side.decode()}"]'
        for number, item in enumerate(_array(fields.get(side), side_place), 1):
            _add_operation(transaction, item, f"{side_place}[{number}]")
    return transaction


def _add_condition(transaction: Transaction, value: Any, place: str) -> None:
    op = _op(value, place)
    if op not in ("eq_seq", "ge_seq", "eq_value"):
        raise InvalidRequestError(f"{place}: unknown condition `{op}`")
    fields = _fields(value, place, (b"op", b"key", b"value"))
    key = _key(fields, place)
    if op == "eq_value":
        transaction.when_value(key, "==", _text(fields, "value", place))
    else:
        transaction.when_seq(key, "==" if op == "eq_seq" else ">=", _seq(_field(fields, "value", place), place))


def _add_operation(transaction: Transaction, value: Any, place: str) -> None:
    op = _op(value, place)
    add: dict[str, tuple[tuple[bytes, ...], Callable[[str, Mapping[Any, Any]], object]]] = {
        "put": (
            (b"value", b"ttl"),
            lambda key, fields: transaction.put(
                key, _text(fields, "value", place), ttl_ms=_ttl_ms(fields.get(b"ttl"), place)
            ),
        ),
        "get": ((), lambda key, _fields: transaction.get(key)),
        "delete": ((), lambda key, _fields: transaction.delete(key)),
    }
    if op not in add:
        raise InvalidRequestError(f"{place}: unknown operation `{op}`")
    names, make = add[op]
    fields = _fields(value, place, (b"op", b"key", *names))
    make(_key(fields, place), fields)


# ----------------------------------------------------------------------------- parts


def _op(value: Any, place: str) -> str:
    if not isinstance(value, dict):
        raise InvalidRequestError(f"{place}: must be a table, got {_type_name(value)}")
    return _text(value, "op", place).decode("utf-8", "backslashreplace")


def _fields(value: Any, place: str, known: tuple[bytes, ...]) -> Mapping[Any, Any]:
    if not isinstance(value, dict):
        raise InvalidRequestError(f"{place}: must be a table, got {_type_name(value)}")
    for name in value:
        if name not in known:
            shown = name.decode("utf-8", "backslashreplace") if isinstance(name, bytes) else str(name)
            raise InvalidRequestError(f"{place}: unknown field `{shown}`")
    return value


def _array(value: Any, place: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, dict):
        raise InvalidRequestError(f"{place}: must be an array, got {_type_name(value)}")
    if set(value) != set(range(1, len(value) + 1)):
        raise InvalidRequestError(f"{place}: must be a dense array")
    return [value[number] for number in range(1, len(value) + 1)]


def _field(fields: Mapping[Any, Any], name: str, place: str) -> Any:
    value = fields.get(name.encode())
    if value is None:
        raise InvalidRequestError(f"{place}: missing field `{name}`")
    return value


def _text(fields: Mapping[Any, Any], name: str, place: str) -> bytes:
    value = _field(fields, name, place)
    if not isinstance(value, bytes):
        raise InvalidRequestError(f"{place}: field `{name}` must be a string, got {_type_name(value)}")
    return value


def _key(fields: Mapping[Any, Any], place: str) -> str:
    try:
        return _text(fields, "key", place).decode()
    except UnicodeDecodeError as error:
        raise InvalidRequestError(f"{place}: field `key` must be UTF-8") from error


def _seq(value: Any, place: str) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is not int or not 0 <= value <= U64_MAX:
        shown = value if isinstance(value, int | float) else _type_name(value)
        raise InvalidRequestError(f"{place}: field `value` must be a non-negative integer, got {shown}")
    return value


def _ttl_ms(value: Any, place: str) -> int | None:
    """A lifetime in seconds as milliseconds, rounded up: a record must not go before its time."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidRequestError(f"{place}: field `ttl` must be a number, got {_type_name(value)}")
    if not math.isfinite(value) or not 0 <= value * _MILLISECONDS <= U64_MAX:
        raise InvalidRequestError(f"{place}.ttl: duration must be finite, non-negative, and representable")
    return math.ceil(value * _MILLISECONDS)


def _type_name(value: Any) -> str:
    """What Lua calls the type."""
    if isinstance(value, OtherValue):
        return value.lua_type
    names = {bytes: "string", bool: "boolean", int: "number", float: "number", dict: "table", type(None): "nil"}
    return names[type(value)]

"""Query strings as the first readers of this API know them: parsed as one unit, absent when any of it is bad.

A bad query is never an error of its own (docs/contract/admin-api.md section 1.0). Unknown names are ignored; a
known name given twice is bad. Pure functions; must not know HTTP frameworks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar
from urllib.parse import parse_qsl

U64_MAX = 2**64 - 1
I32_MAX = 2**31 - 1
FIELDS_MAX = 100

Value = TypeVar("Value")


def parse_query(query_string: bytes, fields: Mapping[str, Callable[[str], Value | None]]) -> dict[str, Value]:
    """The known fields that were given; empty when one of them is not what its parser takes (it returns None)."""
    try:
        pairs = parse_qsl(
            query_string.decode("latin-1"), keep_blank_values=True, errors="replace", max_num_fields=FIELDS_MAX
        )
    except ValueError:
        return {}
    values: dict[str, Value] = {}
    for name, text in pairs:
        parse = fields.get(name)
        if parse is None:
            continue
        value = parse(text)
        if value is None or name in values:
            return {}
        values[name] = value
    return values


def unsigned(text: str) -> int | None:
    """A number of 64 bits without sign."""
    if not text.isascii() or not text.isdigit() or len(text) > 40:
        return None
    value = int(text)
    return value if value <= U64_MAX else None


def nonzero_signed(text: str) -> int | None:
    """A number of 32 bits with sign that is not zero."""
    digits = text.removeprefix("-")
    if not digits.isascii() or not digits.isdigit() or len(digits) > 40:
        return None
    value = int(text)
    return value if value and -I32_MAX - 1 <= value <= I32_MAX else None


def boolean(text: str) -> bool | None:
    return {"true": True, "false": False}.get(text)

"""Query strings, parsed as one unit: if any part is malformed, the whole query counts as absent.

A malformed query is never an error of its own (docs/contract/admin-api.md section 1.0). Unknown names are ignored; a
known name given twice is malformed. Pure functions; must not know HTTP frameworks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar
from urllib.parse import parse_qsl

from metasrv.model.limits import ADMIN_QUERY_FIELDS_MAX
from metasrv.model.types import U64_MAX

I32_MAX = 2**31 - 1

Value = TypeVar("Value")


def parse_query(query_string: bytes, fields: Mapping[str, Callable[[str], Value | None]]) -> dict[str, Value]:
    """The known fields that were given; empty if a parser returns None for one, or one is given twice."""
    try:
        pairs = parse_qsl(
            query_string.decode("latin-1"),
            keep_blank_values=True,
            errors="replace",
            max_num_fields=ADMIN_QUERY_FIELDS_MAX,
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
    """An unsigned 64-bit number, else None."""
    if not text.isascii() or not text.isdigit() or len(text) > 40:
        return None
    value = int(text)
    return value if value <= U64_MAX else None


def nonzero_signed(text: str) -> int | None:
    """A signed 32-bit number other than zero, else None."""
    digits = text.removeprefix("-")
    if not digits.isascii() or not digits.isdigit() or len(digits) > 40:
        return None
    value = int(text)
    return value if value and -I32_MAX - 1 <= value <= I32_MAX else None


def boolean(text: str) -> bool | None:
    return {"true": True, "false": False}.get(text)

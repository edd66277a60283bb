"""The number of fields of a query string at its limit and one past it."""

from __future__ import annotations

from metasrv.admin.query import parse_query, unsigned
from metasrv.model.limits import ADMIN_QUERY_FIELDS_MAX


def test_a_query_with_too_many_fields_counts_as_empty() -> None:
    fields = [b"to=7", *[b"unknown=1"] * (ADMIN_QUERY_FIELDS_MAX - 1)]
    assert parse_query(b"&".join(fields), {"to": unsigned}) == {"to": 7}
    assert parse_query(b"&".join([*fields, b"unknown=1"]), {"to": unsigned}) == {}

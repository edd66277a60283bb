"""The tables of state and snapshot files of format 1, which builds before 0.2.0 wrote: every value stands in its record.

Read by this release, never written. Pure constants.
"""

from __future__ import annotations

from metasrv.state.format import SCHEMA

FIRST_FORMAT_VERSION = 1

_RECORDS = (
    "CREATE TABLE kv(key TEXT PRIMARY KEY COLLATE BINARY, seq INTEGER NOT NULL, expire_ms INTEGER, expire_at,"
    " proposed_at_ms INTEGER NOT NULL, checksum INTEGER NOT NULL, data BLOB NOT NULL) WITHOUT ROWID"
)
FIRST_SCHEMA = (
    _RECORDS,
    *(statement for statement in SCHEMA if not statement.startswith(("CREATE TABLE kv(", "CREATE TABLE large("))),
)
LARGE_NOWHERE = "CREATE TEMP TABLE large(seq INTEGER PRIMARY KEY, data BLOB NOT NULL)"
"""Beside a file of format 1, so that the statements of the present format read it: this table stays empty."""

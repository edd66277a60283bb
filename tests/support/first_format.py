"""State files of format 1, as builds before 0.2.0 wrote them."""

from __future__ import annotations

import sqlite3

from metasrv.state.first_format import FIRST_SCHEMA
from metasrv.state.format import APPLICATION_ID


def write_first_format(source: str, target: str) -> None:
    """A file of format 1 with what the state file `source` holds."""
    tool = sqlite3.connect(target, isolation_level=None)
    tool.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    tool.execute("PRAGMA user_version = 1")
    for statement in FIRST_SCHEMA:
        tool.execute(statement)
    tool.execute("ATTACH ? AS newer", (source,))
    for table in ("meta", "nodes", "features", "secrets"):
        tool.execute(f"INSERT INTO main.{table} SELECT * FROM newer.{table}")
    tool.execute(
        "INSERT INTO main.kv SELECT key, seq, expire_ms, expire_at, proposed_at_ms, checksum,"
        " ifnull(data, (SELECT large.data FROM newer.large AS large WHERE large.seq = kv.seq)) FROM newer.kv AS kv"
    )
    tool.close()

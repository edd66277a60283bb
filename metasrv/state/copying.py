"""Copies the live rows of a state file, in either format, into a new file of the present one.

The new file is as large as what is in it: nothing that was deleted or replaced comes along. Rows are copied inside SQLite
in slices, so that a helper thread leaves the interpreter to the event loop meanwhile, and whoever asked can look after
each slice whether to go on. Runs in a helper thread, or before the loop's work begins.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from metasrv.state.damage import damaged
from metasrv.state.format import INLINE_SIZE_BYTES_MAX
from metasrv.state.state_file import create_draft
from metasrv.state.store import SET_META, Store

_SLICE_RECORDS = 512
_SLICE_LARGE_VALUES = 64

# Statements are put together from constants of this module; values are always bound (S608).
_IN_SLICE = "key {} ? AND key <= ?"
_LAST_OF_SLICE = "SELECT max(key) FROM (SELECT key FROM main.kv WHERE key {} ? ORDER BY key LIMIT ?)"
_COPY_RECORDS = (
    "INSERT INTO copy.kv SELECT key, seq, expire_ms, expire_at, proposed_at_ms, checksum,"  # noqa: S608
    f" CASE WHEN length(data) > {INLINE_SIZE_BYTES_MAX} THEN NULL ELSE data END"
    f" FROM main.kv WHERE {_IN_SLICE} ORDER BY key"
)
_COPY_LARGE_OF_RECORDS = (
    f"INSERT INTO copy.large SELECT seq, data FROM main.kv WHERE {_IN_SLICE} AND length(data) > {INLINE_SIZE_BYTES_MAX}"  # noqa: S608
)
_LAST_LARGE = "SELECT max(seq) FROM (SELECT seq FROM main.large WHERE seq > ? ORDER BY seq LIMIT ?)"
_COPY_LARGE = "INSERT INTO copy.large SELECT seq, data FROM main.large WHERE seq > ? AND seq <= ? ORDER BY seq"
_OTHER_TABLES = ("meta", "nodes", "features", "secrets")


def copy_live(
    store: Store,
    draft: str,
    *,
    values_inside: bool,
    meta: tuple[tuple[str, bytes], ...] = (),
    copied: Callable[[int], None] = lambda _records: None,
) -> None:
    """Write what `store` shows to the new file `draft`, synced; `store` is inside a transaction, which ends.

    `values_inside`: the source has all values in the records (format 1). `meta` is stored in the copy beside, or over,
    what the source has there. `copied` hears after each slice how many records it had; what it raises ends the copy.
    Raises sqlite3.Error, OSError, or DataDamagedError when the source contradicts itself.
    """
    create_draft(draft).close()
    execute = store.execute
    execute("ATTACH ? AS copy", (draft,))
    # A copy that a crash cuts short is thrown away, so it needs no journal.
    execute("PRAGMA copy.journal_mode = OFF").fetchall()
    try:
        for table in _OTHER_TABLES:
            execute(f"INSERT INTO copy.{table} SELECT * FROM main.{table}")  # noqa: S608
        for name, value in meta:
            execute(SET_META.replace("meta", "copy.meta"), (name, value))
        _copy_records(store, values_inside, copied)
        if not values_inside:
            _copy_large(store, copied)
    except sqlite3.IntegrityError as error:
        raise damaged(store.path, "table kv", f"its rows contradict each other: {error}") from error
    store.commit()


def _copy_records(store: Store, values_inside: bool, copied: Callable[[int], None]) -> None:
    execute = store.execute
    after, lower = "", ">="
    while (last := execute(_LAST_OF_SLICE.format(lower), (after, _SLICE_RECORDS)).fetchone()[0]) is not None:
        count = execute(_COPY_RECORDS.format(lower), (after, last)).rowcount
        if values_inside:
            execute(_COPY_LARGE_OF_RECORDS.format(lower), (after, last))
        after, lower = last, ">"
        copied(count)


def _copy_large(store: Store, copied: Callable[[int], None]) -> None:
    execute = store.execute
    after = -1
    while (last := execute(_LAST_LARGE, (after, _SLICE_LARGE_VALUES)).fetchone()[0]) is not None:
        execute(_COPY_LARGE, (after, last))
        after = last
        copied(0)

"""What is compared when a state file is opened: its rows with what the entries left.

Reads every key, so a large file is not looked through before it serves; the scrubber does that (`scrubbing.py`). Runs
before the loop's work begins, and in tests.
"""

from __future__ import annotations

from metasrv.state.damage import damaged
from metasrv.state.digest import UNKNOWN_DIGEST, UNKNOWN_SIZE
from metasrv.state.format import Applied
from metasrv.state.store import Store


def rows_fit(store: Store, applied: Applied) -> bool:
    """Whether the rows are those that the entries left, by number, digest and size."""
    fit = store.sums() == applied.sums and store.data_size_bytes() == applied.data_size_bytes
    return fit and store.large_values_fit()


def with_sums(store: Store, applied: Applied) -> Applied:
    """The same with what the build that wrote the file did not count."""
    if applied.digest == UNKNOWN_DIGEST:
        applied = applied._replace(digest=store.sums().digest)
    if applied.data_size_bytes == UNKNOWN_SIZE:
        applied = applied._replace(data_size_bytes=store.data_size_bytes())
    return applied


def check_small_file(path: str, store: Store, applied: Applied) -> None:
    """Walk the whole file; closes it and raises DataDamagedError or sqlite3.Error when anything is wrong."""
    try:
        # Also compares the expire index with the records: their pages may be of different instants.
        problem = store.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if problem != "ok":
            raise damaged(path, "inside the file", f"SQLite's check says: {problem}")
        if not rows_fit(store, applied):
            raise damaged(path, "table kv", f"it holds {store.sums()}, its counters differ")
    except BaseException:
        store.close()
        raise

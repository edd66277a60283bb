"""SQL statements of an append to the raft log, counted: they do not depend on the machine."""

from __future__ import annotations

from pathlib import Path

from tests.support.log_bench import FIRST, OpenLog, entry


def test_an_append_is_one_statement_however_many_entries(tmp_path: Path) -> None:
    log = OpenLog(tmp_path, [FIRST])
    log.store.setCurrentTerm(1, None)
    log.flush()
    statements: list[str] = []
    log.writer._connection.set_trace_callback(statements.append)
    next_index = 2
    for entries in (1, 10, 1, 10):
        for _ in range(entries):
            log.store.add(*entry(next_index, size_bytes=300))
            next_index += 1
        log.flush()
        assert len(statements) == 1, statements
        statements.clear()
    log.writer.close()
    log.store._destroy()

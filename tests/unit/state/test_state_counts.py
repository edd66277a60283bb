"""SQL statements and bytes of a write and of a read, counted: they do not depend on the machine.

A bound is what was counted when it was written; a change that costs more has to say so here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from metasrv.model import commands as c
from tests.support.state_bench import NOW_MS, Bench

VALUE = b"v" * 256


class Counted:
    """A machine whose SQL statements are counted."""

    def __init__(self, directory: Path) -> None:
        self.bench = Bench(directory)
        self.executed: list[str] = []
        """The statements of the last work."""
        self.bench.machine._store.connection.set_trace_callback(self.executed.append)

    def statements(self, work: Callable[[], object]) -> int:
        self.executed.clear()
        work()
        self.bench.machine.commit()
        return len(self.executed)


@pytest.fixture
def counted(tmp_path: Path) -> Iterator[Counted]:
    made = Counted(tmp_path)
    yield made
    made.bench.machine.close()


def test_statements_of_a_put(counted: Counted) -> None:
    assert counted.statements(lambda: counted.bench.put("k", VALUE)) == 6, "begin, look, record, position, size, commit"
    assert counted.statements(lambda: counted.bench.put("k", VALUE)) == 5, "a record in memory is not looked up"


def test_statements_of_entries_that_are_committed_together(counted: Counted) -> None:
    counted.bench.put("k", VALUE)
    counted.bench.machine.commits_later = True

    def ten() -> None:
        for _ in range(10):
            counted.bench.put("k", VALUE)

    assert counted.statements(ten) <= 50, "a record, a position and a size for each, between two marks; one commit"
    assert sum(statement == "COMMIT" for statement in counted.executed) == 1


def test_statements_of_a_transaction_of_ten_puts(counted: Counted) -> None:
    puts = [c.Put(f"t/{number}", VALUE) for number in range(10)]
    assert counted.statements(lambda: counted.bench.run(*puts)) == 24
    assert counted.statements(lambda: counted.bench.run(*puts)) == 14


def test_statements_of_a_deletion(counted: Counted) -> None:
    counted.bench.put("k", VALUE)
    assert counted.statements(lambda: counted.bench.run(c.Delete("k"))) == 5


def test_statements_of_reads(counted: Counted) -> None:
    machine = counted.bench.machine
    counted.bench.run(*(c.Put(f"r/{number:03}", VALUE) for number in range(100)))
    assert counted.statements(lambda: machine.get("r/001", NOW_MS)) == 0, "it is in memory"
    machine._store.forget()
    assert counted.statements(lambda: machine.get("r/001", NOW_MS)) == 1
    assert counted.statements(lambda: machine.list_prefix("r/", 100, NOW_MS)) == 1


def test_bytes_of_the_file_a_record(counted: Counted) -> None:
    """Key of 26 bytes and value of 256: with its pages a record takes at most a third more, whatever the order."""
    records = 4_000
    for start in range(0, records, 100):
        numbers = range(start, start + 100)
        counted.bench.run(*(c.Put(f"benchmark/spread/{number * 7919 % 1_000_000:09}", VALUE) for number in numbers))
    counted.bench.machine.commit()
    pages, size = (
        counted.bench.machine._store.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size")
    )
    assert pages * size / records < 480

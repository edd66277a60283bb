"""Rows for long lists: the same records as `scan_page` gives, the same damage found, and pages that stay small."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from metasrv.model import commands as c
from metasrv.model.errors import DataDamagedError
from metasrv.model.types import U64_MAX, KVMeta, SeqV
from metasrv.state.raw_rows import RawRow
from metasrv.state.reader import StateReader
from metasrv.state.store import Store
from tests.support.state_bench import NOW_MS, Bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.machine.close()


def record_of(row: RawRow) -> tuple[str, SeqV]:
    key, seq, expire_at, proposed_at_ms, _, data = row
    return key.decode(), SeqV(seq, data, KVMeta(None if expire_at is None else int(expire_at), proposed_at_ms))


def rows_of(bench: Bench, start: str = "", end: str | None = None, now_ms: int = 0) -> list[tuple[str, SeqV]]:
    with bench.machine.open_reader() as reader:
        return [record_of(row) for page in reader.raw_pages(start, end, now_ms) for row in page]


def filled(bench: Bench) -> None:
    bench.run(*(c.Put(f"a/{number:04}", bytes(number % 700)) for number in range(700)))
    bench.run(c.Put("b/é\0", "漢".encode()), c.Put("b/\U0010ffff", b""), c.Put("", b"no name"))
    bench.run(c.Put("c/1", b"v", ttl_ms=5), c.Put("c/2", b"v", expire_at=U64_MAX))
    bench.run(*(c.Put(f"d/{number}", bytes(60_000 + 1_000 * number)) for number in range(12)))


def test_rows_are_the_records_that_pages_of_records_have(bench: Bench) -> None:
    filled(bench)
    for start, end in (("", None), ("a/0600", "b"), ("b", "c"), ("c", None), ("d/2", "d/7"), ("e", None)):
        with bench.machine.open_reader() as reader:
            expected = [record for page in reader.pages(start, end) for record in page]
        assert rows_of(bench, start, end) == expected


def test_what_has_expired_is_hidden_when_a_time_is_given(bench: Bench) -> None:
    filled(bench)
    assert [key for key, _ in rows_of(bench, "c", "d", NOW_MS)] == ["c/1", "c/2"]
    assert [key for key, _ in rows_of(bench, "c", "d", NOW_MS + 6)] == ["c/2"]
    assert len(rows_of(bench, "c", "d")) == 2, "a linearizable read hides nothing"


def test_pages_end_with_the_count_and_when_values_are_large(bench: Bench) -> None:
    bench.run(*(c.Put(f"a/{number:04}", b"v") for number in range(1_024)))
    bench.run(*(c.Put(f"b/{number}", bytes(700_000)) for number in range(4)))
    with bench.machine.open_reader() as reader:
        assert [len(page) for page in reader.raw_pages("a", "b", 0)] == [512, 512]
        assert [len(page) for page in reader.raw_pages("b", None, 0)] == [2, 2]


def test_large_values_are_read_one_at_a_time(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.run(*(c.Put(f"b/{number}", bytes(700_000)) for number in range(5)))
    statements: list[str] = []
    with bench.machine.open_reader() as reader:
        reader._store.connection.set_trace_callback(statements.append)
        pages = reader.raw_pages("b", None, 0)
        next(pages)
    assert sum("FROM large WHERE seq" in statement for statement in statements) == 2


def test_a_list_takes_one_statement_for_each_page(bench: Bench) -> None:
    bench.run(*(c.Put(f"a/{number:04}", bytes(number % 700)) for number in range(1_300)))
    statements: list[str] = []
    with bench.machine.open_reader() as reader:
        reader._store.connection.set_trace_callback(statements.append)
        assert sum(len(page) for page in reader.raw_pages("a", None, 0)) == 1_300
    assert len(statements) == 3


def test_a_usual_row_needs_no_record(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(bench)
    records: list[str] = []

    class Counting(Store):
        __slots__ = ()

        def record(self, key: str, *columns: object) -> SeqV:
            records.append(key)
            return super().record(key, *columns)  # type: ignore[arg-type]

    with StateReader(bench.path) as reader:
        monkeypatch.setattr(reader, "_store", Counting(bench.path, reader._store.connection))
        assert sum(len(page) for page in reader.raw_pages("", None, 0)) == 717
    assert records == ["c/1", "c/2"], "records with an expiry are compared one by one"


@pytest.mark.parametrize(
    "change",
    [
        "data = x'00'",
        "data = NULL",
        "data = 'text'",
        "seq = seq + 1",
        "seq = 'text'",
        "proposed_at_ms = 5",
        "checksum = checksum + 1",
        "checksum = x'00'",
        "expire_at = 5",
        "expire_at = x'00'",
        "key = CAST(x'612fff' AS TEXT)",
    ],
)
def test_a_row_that_is_not_what_was_written_is_damage(bench: Bench, change: str) -> None:
    bench.run(*(c.Put(f"a/{number}", b"value") for number in range(9)))
    bench.machine.commit()
    tool = sqlite3.connect(bench.path)
    tool.execute(f"UPDATE kv SET {change} WHERE key = 'a/4'")
    tool.commit()
    tool.close()
    with pytest.raises(DataDamagedError, match="key"), StateReader(bench.path) as reader:
        list(reader.raw_pages("a/", "b", 0))

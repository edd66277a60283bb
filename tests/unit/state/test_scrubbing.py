"""What the look through a state file finds, and where it goes on."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from metasrv.model import commands as c
from metasrv.model.errors import DataDamagedError
from metasrv.state import scrubbing
from metasrv.state.machine import StateMachine
from metasrv.state.scrubbing import check_slice, check_sums, range_digests, sample_keys
from metasrv.testing.hand_clock import HandClock
from tests.support.state_bench import Bench

KEYS = 300


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    made.run(*(c.Put(f"key/{at:03}", b"v" * at * 5, None, 50_000 if at % 3 == 0 else None) for at in range(KEYS)))
    yield made
    made.machine.close()


def sql(bench: Bench, statement: str, *values: object) -> None:
    bench.machine._store.execute(statement, values)


def whole_round(bench: Bench, seconds_max: float) -> list[int]:
    """The records of each slice."""
    after, found, clock = None, [], HandClock(step_seconds=0.001)
    while True:
        done = check_slice(bench.path, after, seconds_max, clock)
        found.append(done.records)
        if done.last_key is None:
            return found
        after = done.last_key


def test_slices_cover_the_state_once(bench: Bench) -> None:
    assert whole_round(bench, 10.0) == [KEYS]
    slices = whole_round(bench, 0.0)
    assert sum(slices) == KEYS
    assert len(slices) > 3


def test_an_empty_state_is_good(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "empty.db")
    assert whole_round(bench, 0.0) == [0]
    assert check_sums(bench.path) == (0, 0, 0)
    bench.machine.close()


@pytest.mark.parametrize(
    ("column", "value"), [("data", b"w"), ("seq", 9), ("proposed_at_ms", 1), ("checksum", 1), ("expire_at", 1)]
)
def test_a_changed_column_is_found_with_its_key(bench: Bench, column: str, value: object) -> None:
    sql(bench, f"UPDATE kv SET {column} = ? WHERE key = 'key/001'", value)
    with pytest.raises(DataDamagedError, match="key 'key/001'"):
        whole_round(bench, 0.0)


def test_a_changed_large_value_is_found(bench: Bench) -> None:
    sql(bench, "UPDATE large SET data = zeroblob(length(data)) WHERE seq = (SELECT seq FROM kv WHERE key = 'key/299')")
    with pytest.raises(DataDamagedError, match="key 'key/299'"):
        whole_round(bench, 0.0)


def test_sums_are_those_that_the_entries_left(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = check_sums(bench.path)
    assert whole is not None
    assert (whole.keys, whole.expiring) == (KEYS, KEYS // 3)
    monkeypatch.setattr(scrubbing, "_SLICE_RECORDS", 7)
    assert check_sums(bench.path) == whole


def test_a_lost_row_and_one_of_another_time_are_found(bench: Bench) -> None:
    """Each row that is there fits its checksum."""
    (old,) = bench.machine._store.execute("SELECT * FROM kv WHERE key = 'key/001'").fetchall()
    bench.put("key/001", b"new")
    assert check_sums(bench.path) is not None
    sql(bench, "INSERT OR REPLACE INTO kv VALUES(?, ?, ?, ?, ?, ?, ?)", *old)
    assert sum(whole_round(bench, 0.0)) == KEYS
    with pytest.raises(DataDamagedError, match="its rows add up to"):
        check_sums(bench.path)


def test_an_index_that_differs_from_the_rows_is_found(bench: Bench) -> None:
    """A row is changed behind the index's back: for that moment the file says that there is none."""
    bench.machine.close()
    tool = sqlite3.connect(bench.path, isolation_level=None)
    (schema,) = tool.execute("SELECT sql FROM sqlite_schema WHERE name = 'expire'").fetchone()
    tool.execute("PRAGMA writable_schema = ON")
    tool.execute("UPDATE sqlite_schema SET sql = replace(sql, 'IS NOT NULL', 'IS NULL') WHERE name = 'expire'")
    tool.close()
    tool = sqlite3.connect(bench.path, isolation_level=None)
    tool.execute("UPDATE kv SET expire_ms = expire_ms + 1 WHERE key = 'key/003'")
    tool.execute("PRAGMA writable_schema = ON")
    tool.execute("UPDATE sqlite_schema SET sql = ? WHERE name = 'expire'", (schema,))
    tool.close()
    assert sum(whole_round(bench, 0.0)) == KEYS
    with pytest.raises(DataDamagedError, match="index expire"):
        check_sums(bench.path)
    bench.machine = StateMachine.open(str(bench.directory / "new.db"))


def test_a_log_that_grew_too_long_ends_the_sums(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrubbing, "STATE_LOG_PINNED_SIZE_BYTES_MAX", 0)
    assert check_sums(bench.path) is None


def test_ranges_add_up_to_the_whole_and_name_the_position(bench: Bench) -> None:
    bounds = ("", *sample_keys(bench.path, "", None, 7))
    assert len(bounds) == 8
    found = range_digests(bench.path, bounds)
    assert found.index == bench.machine.last_applied.index
    assert sum(found.digests) % 2**64 == bench.machine._applied.digest
    assert 0 not in found.digests


def test_samples_stay_inside_their_range(bench: Bench) -> None:
    assert sample_keys(bench.path, "key/010", "key/013", 63) == ["key/011", "key/012"]
    assert sample_keys(bench.path, "key/010", "key/011", 63) == []
    assert sample_keys(bench.path, "z", None, 63) == []

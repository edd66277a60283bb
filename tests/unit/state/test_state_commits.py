"""Several entries in one transaction: who sees them before the commit, and what a refused one leaves (invariant 3)."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from metasrv.model import commands as c
from metasrv.model.errors import StorageError
from metasrv.state.machine import StateMachine
from metasrv.state.store import Store
from tests.support.state_bench import NOW_MS, Bench, dump


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    made.machine.commits_later = True
    yield made
    made.machine.close()


def seen_outside(bench: Bench) -> list[str]:
    """The keys that another connection finds in the file."""
    with sqlite3.connect(f"file:{bench.path}?mode=ro", uri=True) as other:
        keys = [str(row[0]) for row in other.execute("SELECT key FROM kv ORDER BY key")]
    other.close()
    return keys


def test_an_entry_is_seen_here_at_once_and_outside_after_the_commit(bench: Bench) -> None:
    for number, key in enumerate("abc", 1):
        bench.put(key)
        assert bench.machine.uncommitted == number
    assert bench.keys() == ["a", "b", "c"]
    assert seen_outside(bench) == []
    bench.machine.commit()
    assert bench.machine.uncommitted == 0
    assert seen_outside(bench) == ["a", "b", "c"]
    bench.put("d")
    assert seen_outside(bench) == ["a", "b", "c"]


def test_a_reader_sees_all_that_was_applied(bench: Bench) -> None:
    bench.put("a")
    bench.put("b")
    with bench.machine.open_reader() as reader:
        assert reader.last_applied == bench.machine.last_applied
        assert reader.key_count == 2


def test_what_needs_the_file_commits_first(bench: Bench) -> None:
    bench.put("a")
    bench.machine.set_cluster_id("1b6d0a4e-0000-4000-8000-000000000001")
    assert bench.machine.uncommitted == 0
    bench.put("b")
    bench.machine.give_back_space(1)
    assert bench.machine.uncommitted == 0
    bench.put("c")
    bench.machine.close()
    bench.machine = StateMachine.open(bench.path)
    assert bench.keys() == ["a", "b", "c"]


def test_a_refused_command_takes_nothing_from_earlier_entries(bench: Bench) -> None:
    deep = c.Expression(c.Combine.AND, (), ())
    for _ in range(100):
        deep = c.Expression(c.Combine.AND, (deep,), ())
    bench.put("a", b"before")
    bench.put("b")
    refused = c.BranchTransaction((c.Branch(None, (c.Put("c", b"x"),) * 3), c.Branch(deep, ())))
    replies = bench.apply(
        c.Transaction((), (), (c.Put("a", b"after"),), ()), c.Transaction((c.Branch(deep, ()),), (), (), ()), refused
    )
    assert isinstance(replies[1], c.ErrorReply)
    assert bench.value("a") == b"after"
    bench.put("d")
    assert (bench.reopen() and bench.keys()) == ["a", "b", "c", "d"]


def test_an_entry_that_fails_is_undone_alone(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.put("a")
    before = bench.machine.state_hash()

    def refuse(_store: Store, _name: str, _value: bytes) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "set_meta", refuse)
        with pytest.raises(StorageError, match="disk I/O error"):
            bench.put("b")
    assert bench.keys() == ["a"]
    assert bench.machine.state_hash() == before
    bench.put("c")
    assert (bench.reopen() and bench.keys()) == ["a", "c"]


def test_when_the_disk_refuses_a_commit_nothing_is_read_any_more(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.put("a")
    bench.machine.commit()
    bench.put("a", b"answered")

    def refuse(_store: Store) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "commit", refuse)
        with pytest.raises(StorageError, match="full"):
            bench.machine.commit()
    for read in (lambda: bench.machine.get("a", NOW_MS), bench.keys, bench.machine.open_reader, bench.machine.commit):
        with pytest.raises(StorageError, match="could not be written"):
            read()
    with pytest.raises(StorageError, match="could not be written"):
        bench.put("b")
    bench.machine.close()
    bench.machine = StateMachine.open(bench.path)  # and the raft log brings the entry again
    assert bench.value("a") == b"v"


def test_when_sqlite_ends_the_transaction_by_itself_nothing_is_read_any_more(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.put("a")

    def roll_back(store: Store, _name: str, _value: bytes) -> None:
        store.execute("ROLLBACK")
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "set_meta", roll_back)
        with pytest.raises(StorageError, match="disk I/O error"):
            bench.put("b")
    with pytest.raises(StorageError, match="could not be written"):
        bench.keys()
    bench.machine.close()
    bench.machine = StateMachine.open(bench.path)
    assert bench.keys() == []


def test_the_same_entries_give_the_same_state_however_they_are_committed(bench: Bench, tmp_path: Path) -> None:
    other = Bench(tmp_path, "other.db")
    try:
        for number in range(40):
            for one in (bench, other):
                one.put(f"key/{number % 7}", b"%d" % number, ttl_ms=50 if number % 3 else 0, at_ms=NOW_MS + 20 * number)
            if number % 6 == 5:
                bench.machine.commit()
        bench.machine.commit()
        assert dump(bench.path) == dump(other.path)
        assert bench.machine.state_hash() == other.machine.state_hash()
    finally:
        other.machine.close()


def test_whoever_wants_to_know_is_told_how_long_each_commit_took(bench: Bench) -> None:
    told: list[float] = []
    bench.machine.committed = told.append
    bench.machine.commit()
    assert told == [], "there was nothing to commit"
    bench.put("a")
    bench.put("b")
    bench.machine.commit()
    assert len(told) == 1
    assert told[0] > 0

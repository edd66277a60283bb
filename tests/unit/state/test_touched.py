"""Ranges that somebody keeps a copy of: every way in which records change touches those concerned, and no others."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from metasrv.model import commands as c
from metasrv.model.entries import NoopEntry
from metasrv.model.errors import StorageError
from metasrv.model.migration import MigratedRecord, MigrationStep
from metasrv.model.types import LogId
from metasrv.state.effects import SWEPT_KEYS_MAX
from metasrv.state.format import prefix_end
from metasrv.state.many_puts import TOGETHER_MIN
from metasrv.state.touched import Held, Touched
from tests.support.state_bench import NOW_MS, Bench

PREFIX = "p/"
INSIDE = ("p/", "p/1", "p/1/2", "p/\U0010ffff")
OUTSIDE = ("", "o", "p", "p.", "p.\U0010ffff", "p0", "q/1")


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.machine.close()


def hold(bench: Bench, prefix: str = PREFIX) -> Held:
    return bench.machine.touched.hold(prefix, prefix_end(prefix))


def transaction(*operations: c.TransactionOperation) -> c.Transaction:
    return c.Transaction((), (), operations, ())


class Case(NamedTuple):
    """A command, and whether the range is touched where `p/1` holds `1` and `lease` expires a second later."""

    command: c.Command
    touches: bool
    later_ms: int = 0


def upsert(key: str, operation: c.Operation, expire_at: int | None = None) -> c.Upsert:
    return c.Upsert(key, c.MatchSeq(c.MatchKind.ANY, 0), operation, b"v", expire_at, None)


CASES = {
    "a put of a new key": Case(transaction(c.Put("p/2", b"v")), True),
    "a put over a record": Case(transaction(c.Put("p/1", b"v")), True),
    "a put of what was there": Case(transaction(c.Put("p/1", b"1")), True),
    "a put that is expired already": Case(transaction(c.Put("p/1", b"v", 1)), True),
    "a put that finds another number": Case(transaction(c.Put("p/1", b"v", match_seq=999)), False),
    "a large put": Case(transaction(c.Put("p/1", b"v" * 2000)), True),
    "a put elsewhere": Case(transaction(c.Put("q/1", b"v")), False),
    "many puts": Case(transaction(*(c.Put(f"p/{number}", b"v") for number in range(TOGETHER_MIN))), True),
    "many puts with one inside": Case(
        transaction(c.Put("p/5", b"v"), *(c.Put(f"{key}", b"v") for key in "abcdrstuvw")), True
    ),
    "many puts elsewhere": Case(transaction(*(c.Put(f"{key}", b"v") for key in "abcdrstuvw")), False),
    "a read": Case(transaction(c.Get("p/1")), False),
    "a deletion": Case(transaction(c.Delete("p/1")), True),
    "a deletion of nothing": Case(transaction(c.Delete("p/2")), False),
    "a deletion elsewhere": Case(transaction(c.Delete("q")), False),
    "a deletion of the prefix": Case(transaction(c.DeleteByPrefix(PREFIX)), True),
    "a deletion of a part": Case(transaction(c.DeleteByPrefix("p/1")), True),
    "a deletion of more than the prefix": Case(transaction(c.DeleteByPrefix("p")), True),
    "a deletion of everything": Case(transaction(c.DeleteByPrefix("")), True),
    "a deletion of another prefix": Case(transaction(c.DeleteByPrefix("q")), False),
    "a deletion of a prefix with nothing": Case(transaction(c.DeleteByPrefix("p/7")), False),
    "a counter": Case(transaction(c.FetchIncrease("p/counter", 1)), True),
    "a counter elsewhere": Case(transaction(c.FetchIncrease("counter", 1)), False),
    "a sequential put": Case(transaction(c.PutSequential(PREFIX, "counter", b"v")), True),
    "a sequential put that counts inside": Case(transaction(c.PutSequential("r/", "p/counter", b"v")), True),
    "a branch": Case(c.BranchTransaction((c.Branch(None, (c.Delete("p/1"),)),)), True),
    "no branch": Case(c.BranchTransaction(()), False),
    "an upsert": Case(upsert("p/1", c.Operation.UPDATE), True),
    "an upsert of the expiry": Case(upsert("p/1", c.Operation.AS_IS, (NOW_MS + 9_000) // 1000), True),
    "an upsert that deletes": Case(upsert("p/1", c.Operation.DELETE), True),
    "an upsert elsewhere": Case(upsert("p", c.Operation.UPDATE), False),
    "a limit": Case(c.SetReadOnly("moving"), False),
    "a tick before the lease ends": Case(c.TICK, False, 1_000),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("watched", [False, True])
def test_each_command_touches_what_it_changes(bench: Bench, name: str, watched: bool) -> None:
    case = CASES[name]
    bench.run(c.Put("p/1", b"1"), c.Put("q/1", b"1"), c.Put("q", b"1"))
    bench.put("lease", ttl_ms=1_000)
    if watched:
        bench.machine.watches.subscribe("watched", "watched0")
    before = bench.machine.list_prefix(PREFIX, None, 0)
    held, other = hold(bench), hold(bench, "unconcerned")
    bench.apply(case.command, at_ms=NOW_MS + case.later_ms)
    assert held.untouched is not case.touches
    assert case.touches or bench.machine.list_prefix(PREFIX, None, 0) == before
    if case.command != CASES["a deletion of everything"].command:
        assert other.untouched


@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize(("prefix", "key"), [("p/", key) for key in (*INSIDE, *OUTSIDE)] + [("", "any"), ("é", "é")])
def test_the_ends_of_a_prefix(bench: Bench, prefix: str, key: str, watched: bool) -> None:
    if watched:
        bench.machine.watches.subscribe("", "\U0010ffff")
    held = hold(bench, prefix)
    bench.put(key)
    assert held.untouched is not key.startswith(prefix)
    held = hold(bench, prefix)
    bench.apply(transaction(c.Delete(key)))
    assert held.untouched is not key.startswith(prefix)


@pytest.mark.parametrize("prefix", ["", "\U0010ffff", "p/\U0010ffff", "\ud7ff"])
@pytest.mark.parametrize("emptied", ["", "p", "p/\U0010ffff", "\U0010ffff", "\ud7ff", "\ue000", "q"])
def test_deleted_prefixes_touch_what_they_overlap(bench: Bench, prefix: str, emptied: str) -> None:
    bench.put(emptied + "x")
    held = hold(bench, prefix)
    bench.run(c.DeleteByPrefix(emptied))
    assert held.untouched is not (emptied.startswith(prefix) or prefix.startswith(emptied))


def test_a_deletion_of_a_prefix_reads_none_of_its_records(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.put("p/1")
    held = hold(bench)
    monkeypatch.setattr(type(bench.machine._store), "scan", lambda *_: pytest.fail("records were read"))
    bench.run(c.DeleteByPrefix("p"))
    assert not held.untouched


# ----------------------------------------------------------------------------- expiry


@pytest.mark.parametrize("setting", ["alone", "watched", "instants"])
def test_what_expires_touches_its_range(bench: Bench, setting: str) -> None:
    bench.put("p/lease", ttl_ms=1_000)
    bench.put("q/lease", ttl_ms=2_000)
    if setting == "watched":
        bench.machine.watches.subscribe("watched")
    instant = bench.machine.open_instant() if setting == "instants" else None
    inside, outside = hold(bench), hold(bench, "q/")
    bench.apply(c.TICK, at_ms=NOW_MS + 1_000)
    assert inside.untouched, "it is alive in this very millisecond"
    bench.apply(c.TICK, at_ms=NOW_MS + 1_001)
    assert (inside.untouched, outside.untouched) == (False, True)
    bench.put("other", at_ms=NOW_MS + 2_001)
    assert not outside.untouched
    if instant is not None:
        instant.close()


@pytest.mark.parametrize("count", [SWEPT_KEYS_MAX, SWEPT_KEYS_MAX + 1])
def test_when_many_expire_everything_is_touched(bench: Bench, count: int) -> None:
    bench.run(*(c.Put(f"q/{number:03}", b"v", ttl_ms=1_000) for number in range(count)))
    bench.put("q/later", ttl_ms=9_000)
    elsewhere, last = hold(bench), hold(bench, f"q/{count - 1:03}")
    bench.apply(c.TICK, at_ms=NOW_MS + 1_001)
    assert elsewhere.untouched is (count <= SWEPT_KEYS_MAX)
    assert not last.untouched
    assert bench.keys() == ["q/later"]


# ----------------------------------------------------------------------------- migrations, snapshots


def test_each_step_of_a_migration_touches_what_it_changes(bench: Bench) -> None:
    def step(kind: MigrationStep, touches: tuple[bool, bool], later_ms: int = 0, **fields: Any) -> None:
        held = hold(bench), hold(bench, "q/")
        bench.apply(c.Migrate(kind, 1, **fields), at_ms=NOW_MS + later_ms)
        assert tuple(not one.untouched for one in held) == touches, (kind, fields)
        for one in held:
            bench.machine.touched.release(one)

    def record(key: str, seq: int, data: bytes | None, expire_at: int | None = None) -> dict[str, Any]:
        return {"records": (MigratedRecord(key, seq, data, expire_at, NOW_MS),)}

    step(MigrationStep.BEGIN, (False, False), source="old")
    step(MigrationStep.STORE, (True, False), **record("p/1", 5, b"v"))
    step(MigrationStep.STORE, (False, False), **record("p/1", 4, b"older"))
    step(MigrationStep.STORE, (True, False), **record("p/1", 6, None))
    step(MigrationStep.STORE, (False, True), **record("q/1", 7, b"v"))
    step(MigrationStep.STORE, (True, False), **record("p/1", 8, b"v"))
    step(MigrationStep.CLEAR, (True, False), count=1)
    step(MigrationStep.STORE, (True, False), **record("p/1", 9, b"v", NOW_MS + 10))
    step(MigrationStep.FINISH, (True, False), later_ms=20, count=2)
    assert bench.keys() == ["q/1"]


def test_a_snapshot_that_is_put_in_place_touches_everything(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other, bench = Bench(tmp_path / "other"), Bench(tmp_path)
    other.put("key")
    other.put("key")
    bench.put("p/1")
    held = hold(bench), hold(bench, "")
    bench.machine.install(other.snapshot("snapshot").path)
    assert not any(one.untouched for one in held)
    assert len(bench.machine.touched) == 0
    bench.machine.close()
    other.machine.close()


# ----------------------------------------------------------------------------- what fails


def test_a_command_that_cannot_be_applied_does_not_hide_the_others(bench: Bench) -> None:
    deep = c.Expression(c.Combine.AND, (), (c.Condition("a", c.Target.SEQ, 0, c.Comparison.EQ),))
    for _ in range(200):
        deep = c.Expression(c.Combine.AND, (deep,), ())
    refused = c.BranchTransaction((c.Branch(deep, (c.Delete("q/1"),)),))
    held = hold(bench)
    replies = bench.apply(transaction(c.Put("p/1", b"v")), refused)
    assert isinstance(replies[1], c.ErrorReply)
    assert not held.untouched


def test_a_write_over_the_quota_does_not_hide_the_others(bench: Bench) -> None:
    bench.run(c.Put("p/1", b"v"), c.Put("q/1", b"v"))
    bench.apply(c.SetQuota(12))
    held, other = hold(bench), hold(bench, "q/")
    replies = bench.apply(transaction(c.Delete("p/1")), transaction(c.Put("q/1", b"v" * 99)))
    assert isinstance(replies[1], c.RefusedReply)
    assert (held.untouched, other.untouched) == (False, True)


def test_an_entry_that_is_rolled_back_touches_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.put("p/1")
    held = hold(bench)

    def fail(*_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(type(bench.machine._store), "set_meta", fail)
        with pytest.raises(StorageError):
            bench.put("p/1", b"new")
    assert held.untouched
    assert bench.value("p/1") == b"v"
    bench.put("p/1", b"new")
    assert not held.untouched


def test_entries_without_commands_touch_nothing(bench: Bench) -> None:
    held = hold(bench, "")
    bench.machine.apply_entry(LogId(1, 1, 1), NoopEntry(1))
    bench.apply()
    assert held.untouched


# ----------------------------------------------------------------------------- the ranges themselves


def test_a_range_is_forgotten_once_it_is_touched_or_released(bench: Bench) -> None:
    touched: Touched = bench.machine.touched
    first, second, third = hold(bench), hold(bench), hold(bench, "q")
    assert len(touched) == 3
    touched.release(first)
    touched.release(first)
    assert not first.untouched, "nobody would notice"
    bench.put("p/1")
    assert len(touched) == 1
    assert (second.untouched, third.untouched) == (False, True)
    touched.tell_everything()
    assert len(touched) == 0


def test_nothing_is_collected_while_nothing_is_held(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[object, ...]] = []
    monkeypatch.setattr(Touched, "tell", lambda _, *what: told.append(what))
    bench.put("p/1", ttl_ms=1_000)
    bench.put("p/2", at_ms=NOW_MS + 2_000)
    assert told == [([], []), ([], [])]

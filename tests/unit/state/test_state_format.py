"""The layout of the state file: large values beside the records, space that comes back, files of format 1."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from metasrv.model import commands as c
from metasrv.model.entries import MembershipEntry
from metasrv.model.errors import DataDamagedError
from metasrv.model.types import Endpoint, LogId, Member, Membership
from metasrv.state import conversion, copying
from metasrv.state.conversion import accept_snapshot
from metasrv.state.durability import checkpoint, restart_log
from metasrv.state.format import INLINE_SIZE_BYTES_MAX
from metasrv.state.machine import StateMachine
from metasrv.state.snapshot import digest_of, verify_snapshot
from metasrv.state.snapshot_keys import SnapshotKeys
from tests.support.first_format import write_first_format
from tests.support.state_bench import NOW_MS, Bench, dump

MIB = 1024 * 1024
LARGE = b"L" * (INLINE_SIZE_BYTES_MAX + 1)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.machine.close()


def rows_of(bench: Bench, query: str) -> list[tuple[object, ...]]:
    return bench.machine._store.execute(query).fetchall()


def large_seqs(bench: Bench) -> list[object]:
    return [row[0] for row in rows_of(bench, "SELECT seq FROM large ORDER BY seq")]


def filled(bench: Bench) -> None:
    membership = Membership({1: Member(Endpoint("h", 1), "x")}, {})
    bench.machine.apply_entry(LogId(2, 1, 1), MembershipEntry(1, Membership(), membership))
    bench.machine.set_cluster_id("cluster")
    bench.run(*(c.Put(f"key/{at:05d}", b"x" * at) for at in range(1100)))
    bench.put("expiring", LARGE, ttl_ms=1000)
    bench.put("unicode/\U0010ffff", b"v")


# ----------------------------------------------------------------------------- large values


def test_a_large_value_stands_beside_its_record_and_goes_with_it(bench: Bench) -> None:
    small = LARGE[:-1]
    bench.put("a", LARGE)
    bench.put("b", small)
    assert large_seqs(bench) == [1]
    bench.put("a", LARGE + b"again")
    assert large_seqs(bench) == [3], "the value that was replaced is gone"
    assert bench.value("a") == LARGE + b"again"
    bench.put("a", small)
    assert large_seqs(bench) == []
    bench.put("b", LARGE)
    assert large_seqs(bench) == [5]
    bench.run(c.Delete("b", None))
    assert large_seqs(bench) == []
    assert bench.reopen().get("a", NOW_MS) is not None
    assert bench.keys() == ["a"]


def test_large_values_go_with_a_prefix_and_with_their_time(bench: Bench) -> None:
    bench.put("gone/1", LARGE)
    bench.put("gone/2", b"small")
    bench.put("stays", LARGE)
    bench.put("expires", LARGE, ttl_ms=10)
    bench.run(c.DeleteByPrefix("gone/"))
    assert large_seqs(bench) == [3, 4]
    bench.put("later", b"v", at_ms=NOW_MS + 11)
    assert large_seqs(bench) == [3]
    assert bench.reopen().key_count == 2


def test_a_deletion_by_prefix_looks_for_large_values_only_where_there_are_some(bench: Bench) -> None:
    """The range is added up once, for the digest, and not read again for values that are not there."""
    statements: list[str] = []

    def deleted(prefix: str) -> tuple[int, int, int]:
        statements.clear()
        (response,) = bench.run(c.DeleteByPrefix(prefix))
        assert isinstance(response, c.DeleteByPrefixResponse)
        sums = sum("sum(" in text for text in statements)
        return response.count, sums, sum("DELETE FROM large" in text for text in statements)

    bench.machine._store.connection.set_trace_callback(statements.append)
    for key in ("a/1", "a/2", "b/1", "c/1", "c/2", "d/1"):
        bench.put(key, b"v")
    assert deleted("a/") == (2, 1, 0)
    assert deleted("a/") == (0, 1, 0)
    bench.put("b/2", b"v", ttl_ms=10)
    assert deleted("b/") == (2, 2, 0), "what expires is added up as well"
    bench.put("c/3", LARGE)
    assert deleted("c/") == (3, 2, 1), "their sizes are added up as well"
    assert (bench.machine.key_count, bench.machine.expire_count, large_seqs(bench)) == (1, 0, [])
    assert bench.reopen().key_count == 1


def test_small_keys_among_large_values_are_compared_without_reading_these(bench: Bench) -> None:
    """Ten times the pages of the page cache in values; a put beside them touches a handful of pages."""
    for at in range(16):
        bench.put(f"m/{at:02}/large", b"v" * MIB)
    bench.reopen()
    bench.machine._store.connection.execute("PRAGMA cache_size = 16")
    before = os.stat(f"{bench.path}-wal").st_size if os.path.exists(f"{bench.path}-wal") else 0
    bench.put("m/07/small")
    (pages,) = rows_of(bench, "SELECT count(*) FROM dbstat WHERE name = 'kv'")[0] if has_dbstat(bench) else (1,)
    assert pages == 1, "all records stand in one page"
    assert os.stat(f"{bench.path}-wal").st_size - before <= 8 * 4120


def has_dbstat(bench: Bench) -> bool:
    return bool(rows_of(bench, "SELECT 1 FROM pragma_module_list WHERE name = 'dbstat'"))


@pytest.mark.parametrize("statement", ["DELETE FROM large", "INSERT INTO large VALUES(999, x'00')"])
def test_a_lost_or_a_left_value_is_damage(bench: Bench, statement: str) -> None:
    bench.put("a", LARGE)
    info = bench.snapshot()
    bench.machine.close()
    for path in (bench.path, info.path):
        tool = sqlite3.connect(path)
        tool.execute(statement)
        tool.commit()
        tool.close()
    with pytest.raises(DataDamagedError, match="table kv"):
        StateMachine.open(bench.path)
    for sha256 in (None, digest_of(info.path, sync=False)[0]):
        with pytest.raises(DataDamagedError, match="table kv"):
            verify_snapshot(info.path, sha256)
    os.unlink(bench.path)
    bench.machine = StateMachine.open(bench.path)


# ----------------------------------------------------------------------------- space


def test_deleted_values_leave_file_and_snapshot(bench: Bench) -> None:
    """64 values of 1 MiB, written and deleted."""
    for at in range(50):
        bench.put(f"small/{at}", b"v")
    for at in range(64):
        bench.put(f"large/{at}", b"delicate" + os.urandom(8) * (MIB // 8))
    bench.run(c.DeleteByPrefix("large/"))
    checkpoint(bench.path)
    assert os.path.getsize(bench.path) > 64 * MIB
    info = bench.snapshot()
    assert info.size_bytes < 128 * 1024
    assert b"delicate" not in Path(info.path).read_bytes()
    assert verify_snapshot(info.path, info.sha256) == info
    slices = 0
    while bench.machine.free_size_bytes()[0]:
        bench.machine.give_back_space(64)
        slices += 1
    assert 200 < slices < 300
    checkpoint(bench.path)
    assert restart_log(bench.path).restarted
    assert os.path.getsize(bench.path) < 128 * 1024
    assert bench.reopen().key_count == 50


# ----------------------------------------------------------------------------- format 1


def test_a_state_of_format_1_is_converted_when_it_is_opened(bench: Bench, tmp_path: Path) -> None:
    filled(bench)
    content = dump(bench.path)
    older = tmp_path / "older"
    older.mkdir()
    write_first_format(bench.path, str(older / "state.db"))
    machine = StateMachine.open(str(older / "state.db"))
    assert (machine.key_count, machine.expire_count, machine.last_applied) == (1102, 1, bench.machine.last_applied)
    assert machine.cluster_id == "cluster"
    assert machine.list_prefix("", None, NOW_MS) == bench.machine.list_prefix("", None, NOW_MS)
    machine.close()
    assert sorted(os.listdir(older)) == ["state.db"]
    assert dump(str(older / "state.db")) == content


def test_what_stands_in_the_log_of_an_older_state_is_converted_too(bench: Bench, tmp_path: Path) -> None:
    filled(bench)
    older, crashed = tmp_path / "older.db", tmp_path / "crashed.db"
    write_first_format(bench.path, str(older))
    writer = sqlite3.connect(older, isolation_level=None)
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute("UPDATE kv SET expire_at = 'soon' WHERE key = 'key/00007'")
    for suffix in ("", "-wal"):
        shutil.copy(f"{older}{suffix}", f"{crashed}{suffix}")
    writer.close()
    machine = StateMachine.open(str(crashed))
    with pytest.raises(DataDamagedError, match="key/00007"):
        machine.get("key/00007", NOW_MS)
    machine.close()


class Crash(Exception):
    """The process dies here."""


@pytest.mark.parametrize("survivors", range(10))
def test_a_kill_in_the_middle_of_the_conversion_leaves_a_state_that_opens(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, survivors: int
) -> None:
    filled(bench)
    older = tmp_path / "older"
    older.mkdir()
    path = str(older / "state.db")
    write_first_format(bench.path, path)
    calls = 0

    def dying(owner: object, name: str) -> None:
        real = getattr(owner, name)

        def call(*arguments: object, **options: object) -> object:
            nonlocal calls
            calls += 1
            if calls > survivors:
                raise Crash
            return real(*arguments, **options)

        monkeypatch.setattr(owner, name, call)

    try:
        with monkeypatch.context():
            for name in ("replace", "unlink", "fsync"):
                dying(os, name)
            dying(conversion, "copy_live")
            StateMachine.open(path).close()
    except Crash:
        assert calls == survivors + 1
    finally:
        monkeypatch.undo()
    machine = StateMachine.open(path)
    assert machine.list_prefix("", None, NOW_MS) == bench.machine.list_prefix("", None, NOW_MS)
    machine.close()
    assert sorted(os.listdir(older)) == ["state.db"]


def test_a_kill_between_two_slices_leaves_the_older_file(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(bench)
    path = str(tmp_path / "older.db")
    write_first_format(bench.path, path)
    before = Path(path).read_bytes()
    copy = copying.copy_live

    def dies_after_a_slice(*arguments: object, **options: object) -> None:
        def copied(_records: int) -> None:
            raise Crash

        copy(*arguments, **{**options, "copied": copied})  # type: ignore[arg-type]

    monkeypatch.setattr(conversion, "copy_live", dies_after_a_slice)
    with pytest.raises(Crash):
        StateMachine.open(path)
    monkeypatch.undo()
    assert Path(path).read_bytes() == before
    machine = StateMachine.open(path)
    assert machine.key_count == 1102
    machine.close()


def test_a_snapshot_of_format_1_is_good_and_converted_when_it_arrives(bench: Bench, tmp_path: Path) -> None:
    filled(bench)
    info = bench.snapshot()
    older, again = str(tmp_path / "older.snap"), str(tmp_path / "again.snap")
    write_first_format(info.path, older)
    shutil.copy(older, again)
    sha256, _ = digest_of(older, sync=False)
    assert verify_snapshot(older, sha256, "cluster").key_count == verify_snapshot(older).key_count == 1102
    keys = SnapshotKeys(older)
    assert keys.open()
    assert sum(len(page) for page in keys.pages()) == 1102
    keys.close()
    accepted = accept_snapshot(older, sha256, "cluster")
    assert (accepted.key_count, accepted.path) == (1102, older)
    assert accepted.sha256 == digest_of(older, sync=False)[0] != sha256
    assert verify_snapshot(older, accepted.sha256, "cluster") == accepted
    (tmp_path / "other").mkdir()
    other = Bench(tmp_path / "other")
    other.machine.install(accepted.path)
    assert other.machine.list_prefix("", None, NOW_MS) == bench.machine.list_prefix("", None, NOW_MS)
    other.machine.close()
    assert "older.snap.tmp" not in os.listdir(tmp_path)


def test_a_damaged_older_file_is_refused_and_left_alone(bench: Bench, tmp_path: Path) -> None:
    filled(bench)
    path = str(tmp_path / "older.db")
    write_first_format(bench.path, path)
    tool = sqlite3.connect(path)
    tool.execute("DELETE FROM kv WHERE key = 'key/00007'")
    tool.commit()
    tool.close()
    before = Path(path).read_bytes()
    with pytest.raises(DataDamagedError, match=r"1101 records, its counters say 1102"):
        StateMachine.open(path)
    assert Path(path).read_bytes() == before

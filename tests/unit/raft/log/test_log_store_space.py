"""Free space of the raft log's file goes back in slices; files of earlier releases take part from their next start on."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from metasrv.model.errors import DataDamagedError
from metasrv.model.limits import MIB
from metasrv.raft.log.format import wal_path
from metasrv.raft.log.store import LogStore
from metasrv.raft.log.writer import CHECKPOINT_SIZE_BYTES, FREE_PAGES_PER_SLICE
from tests.support.log_bench import FIRST, OpenLog, entry

SLICE_SIZE_BYTES = FREE_PAGES_PER_SLICE * 4096


@pytest.fixture
def log(tmp_path: Path) -> Iterator[OpenLog]:
    opened = OpenLog(tmp_path, [FIRST])
    yield opened
    opened.writer.close()


def write(log: OpenLog, count: int, size_bytes: int) -> None:
    for _ in range(count):
        log.store.add(*entry(log.store.last_index + 1, 1, size_bytes))
        log.flush()
        log.writer.checkpoint_if_due()


def purge(log: OpenLog) -> None:
    log.store.purge_to(log.store.last_index - 1)
    log.flush()


def auto_vacuum_of(path: str) -> int:
    return Path(path).read_bytes()[67]


def older_file(log: OpenLog, target: Path) -> str:
    """What an earlier release would have written with the same entries; closed."""
    log.writer.close()
    path = str(target / "raft.db")
    tool = sqlite3.connect(log.path, isolation_level=None)
    tool.execute("PRAGMA journal_mode = DELETE")
    tool.execute("PRAGMA auto_vacuum = NONE")
    tool.execute("VACUUM")
    tool.execute("PRAGMA journal_mode = WAL")
    tool.close()
    for suffix in ("", "-mark"):
        if log.path != path:
            shutil.copy(log.path + suffix, path + suffix)
    assert auto_vacuum_of(path) == 0
    return path


def test_a_purged_log_gets_short_and_keeps_what_it_has(log: OpenLog) -> None:
    """64 entries of 1 MiB."""
    write(log, 64, MIB)
    purge(log)
    log.writer.checkpoint_if_due()
    assert os.path.getsize(log.path) > 56 * MIB
    slices = 0
    log_bytes_max = 0
    while log.writer.give_back():
        slices += 1
        log_bytes_max = max(log_bytes_max, os.path.getsize(wal_path(log.path)))
    assert slices > 56 * MIB // SLICE_SIZE_BYTES
    assert os.path.getsize(log.path) < 3 * MIB + CHECKPOINT_SIZE_BYTES // 2
    assert log_bytes_max < 3 * CHECKPOINT_SIZE_BYTES
    assert not log.writer.give_back(), "nothing is looked for until something is purged again"
    write(log, 3, 100)
    store = log.reopen()
    assert [store[at][1] for at in range(len(store))] == [63 + 1, 65, 66, 67, 68]


def test_a_slice_comes_only_now_and_then_while_writes_come(log: OpenLog) -> None:
    write(log, 16, MIB)
    purge(log)
    before = free_pages(log)
    for _ in range(16):
        log.store.add(*entry(log.store.last_index + 1))
        log.flush()
        log.writer.upkeep()
    assert 0 < before - free_pages(log) <= 3 * FREE_PAGES_PER_SLICE


def free_pages(log: OpenLog) -> int:
    return int(log.writer._connection.execute("PRAGMA freelist_count").fetchone()[0])


def test_a_little_free_space_stays(log: OpenLog) -> None:
    write(log, 20, 200_000)
    purge(log)
    before = free_pages(log)
    assert before * 4096 < CHECKPOINT_SIZE_BYTES
    assert not log.writer.give_back()
    assert free_pages(log) == before
    write(log, 20, MIB)
    log.store.purge_to(9)
    log.flush()
    assert not log.writer.give_back(), "most of the file is in use"


def test_an_operator_gets_all_of_it_and_the_write_ahead_log(log: OpenLog, tmp_path: Path) -> None:
    write(log, 20, 200_000)
    purge(log)
    assert free_pages(log) > 0
    log.writer.give_back_all()
    while log.writer.give_back():
        assert log.writer.gives_back
    assert not log.writer.gives_back
    assert free_pages(log) == 0
    assert os.path.getsize(wal_path(log.path)) == 0
    last = log.store.last_index
    crashed = tmp_path / "crashed"
    crashed.mkdir()
    for suffix in ("", "-wal", "-mark"):
        shutil.copy(log.path + suffix, crashed / f"raft.db{suffix}")
    store = LogStore.open(str(crashed / "raft.db"), create_entries=None)
    assert store.last_index == last, "the empty log is not a lost one"
    store._destroy()
    write(log, 3, 100)
    assert log.reopen().last_index == last + 3


@pytest.mark.parametrize("slices", range(1, 40, 3))
def test_a_log_that_is_killed_between_two_slices_opens(log: OpenLog, tmp_path: Path, slices: int) -> None:
    write(log, 10, MIB // 2)
    keeps = log.store.last_index
    write(log, 1, 3000)
    log.store.purge_to(keeps)
    log.flush()
    for _ in range(slices):
        log.writer.give_back()
    crashed = tmp_path / "crashed"
    crashed.mkdir()
    for suffix in ("", "-wal", "-mark"):
        shutil.copy(log.path + suffix, crashed / f"raft.db{suffix}")
    store = LogStore.open(str(crashed / "raft.db"), create_entries=None)
    assert [store[at] for at in range(len(store))] == [entry(keeps, 1, MIB // 2), entry(keeps + 1, 1, 3000)]
    store.open_writer().close()


def test_a_torn_slice_is_dropped_and_one_before_other_transactions_is_damage(log: OpenLog, tmp_path: Path) -> None:
    write(log, 12, MIB)
    purge(log)
    assert log.writer.give_back()
    size_bytes = os.path.getsize(wal_path(log.path))
    assert log.writer.give_back()
    torn = tmp_path / "torn"
    torn.mkdir()
    for suffix in ("", "-wal", "-mark"):
        shutil.copy(log.path + suffix, torn / f"raft.db{suffix}")
    with open(torn / "raft.db-wal", "r+b") as file:
        file.truncate(max(size_bytes, os.path.getsize(wal_path(log.path)) - 100))
    store = LogStore.open(str(torn / "raft.db"), create_entries=None)
    assert len(store) == 2
    store._destroy()


def test_a_log_of_an_earlier_release_gives_space_back_after_its_next_start(log: OpenLog, tmp_path: Path) -> None:
    write(log, 30, 3000)
    log.store.setCurrentTerm(7, "2")
    log.flush()
    entries = [log.store[at] for at in range(len(log.store))]
    older = tmp_path / "older"
    older.mkdir()
    path = older_file(log, older)
    for auto_vacuum in (0, 1):
        store = LogStore.open(path, create_entries=None)
        assert [store[at] for at in range(len(store))] == entries
        assert (store.getCurrentTerm(), store.getVotedForNodeId()) == (7, "2")
        assert auto_vacuum_of(path) == auto_vacuum
        store.open_writer().close()
        assert auto_vacuum_of(path) == 1
    again = OpenLog.__new__(OpenLog)
    again.path = path
    again.store = LogStore.open(path, create_entries=None)
    again.store.commit_floor = lambda: 0
    again.writer = again.store.open_writer()
    write(again, 16, MIB)
    purge(again)
    while again.writer.give_back():
        pass
    assert os.path.getsize(path) < 5 * MIB
    again.writer.close()


def test_a_kill_after_the_conversion_of_an_older_log_leaves_a_whole_one(log: OpenLog, tmp_path: Path) -> None:
    """The new pages stand in the write-ahead log, over a header that says something else."""
    write(log, 30, 3000)
    entries = [log.store[at] for at in range(len(log.store))]
    older = tmp_path / "older"
    older.mkdir()
    path = older_file(log, older)
    tool = sqlite3.connect(path, isolation_level=None)
    tool.execute("PRAGMA wal_autocheckpoint = 0")
    tool.execute("PRAGMA auto_vacuum = INCREMENTAL")
    tool.execute("VACUUM")
    crashed = tmp_path / "crashed"
    crashed.mkdir()
    for suffix in ("", "-wal", "-mark"):
        shutil.copy(path + suffix, crashed / f"raft.db{suffix}")
    tool.close()
    assert auto_vacuum_of(str(crashed / "raft.db")) == 0
    store = LogStore.open(str(crashed / "raft.db"), create_entries=None)
    assert [store[at] for at in range(len(store))] == entries
    store.open_writer().close()
    assert auto_vacuum_of(str(crashed / "raft.db")) == 1


@pytest.mark.parametrize("offset", [55, 67])
def test_another_vacuum_mode_is_damage(log: OpenLog, offset: int) -> None:
    log.writer.close()
    content = bytearray(Path(log.path).read_bytes())
    content[offset] ^= 1
    Path(log.path).write_bytes(content)
    with pytest.raises(DataDamagedError, match=r"vacuum mode|max rootpage"):
        LogStore.open(log.path, create_entries=None)

"""The raft log in memory against a plain list, and what it hands to the disk against what a reopened log holds."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from metasrv.model.errors import DataDamagedError, IdentityError, InvariantError
from metasrv.raft.log.format import NUMBER_MAX, LogEntry
from metasrv.raft.log.store import LogStore
from tests.support.log_bench import FIRST, OpenLog, entry


@pytest.fixture
def log(tmp_path: Path) -> Iterator[OpenLog]:
    opened = OpenLog(tmp_path, [FIRST])
    yield opened
    opened.writer.close()


def fill(log: OpenLog, last_index: int, term: int = 1, size_bytes: int = 20) -> None:
    for index in range(log.store.last_index + 1, last_index + 1):
        log.store.add(*entry(index, term, size_bytes))


# ----------------------------------------------------------------------------- creation


def test_created_log_holds_its_first_entries_and_nothing_is_pending(log: OpenLog) -> None:
    assert list(log.store[:]) == [FIRST]
    assert (log.store.first_index, log.store.last_index, log.store.last_term) == (1, 1, 0)
    assert (log.store.getCurrentTerm(), log.store.getVotedForNodeId()) == (0, None)
    assert not log.store.dirty
    assert not log.store.dirty_term
    assert log.store.take_pending() is None


def test_creation_from_a_snapshots_entries_keeps_their_indexes_and_takes_their_term(tmp_path: Path) -> None:
    log = OpenLog(tmp_path, [entry(99, 4), entry(100, 5)])
    store = log.reopen()
    assert store[:] == [entry(99, 4), entry(100, 5)]
    assert store.getCurrentTerm() == 5
    assert store.getRaftCommitIndex() == 99


def test_missing_log_of_a_used_directory_is_damage_and_leaves_no_file_behind(tmp_path: Path) -> None:
    with pytest.raises(DataDamagedError, match=r"raft\.db: file: missing"):
        LogStore.open(str(tmp_path / "raft.db"), create_entries=None)
    assert list(tmp_path.iterdir()) == []


def test_log_is_never_created_without_an_entry(tmp_path: Path) -> None:
    with pytest.raises(InvariantError):
        LogStore.open(str(tmp_path / "raft.db"), create_entries=[])


def test_create_entries_are_ignored_when_the_log_exists(tmp_path: Path) -> None:
    log = OpenLog(tmp_path, [FIRST])
    fill(log, 5)
    log.flush()
    log.writer.close()
    again = OpenLog(tmp_path, [FIRST])
    assert again.store.last_index == 5
    again.writer.close()


def test_second_opening_is_refused_while_the_log_is_open_and_works_afterwards(tmp_path: Path) -> None:
    log = OpenLog(tmp_path, [FIRST])
    with pytest.raises(IdentityError, match="another process"):
        LogStore.open(log.path, create_entries=None)
    log.writer.close()
    OpenLog(tmp_path, None).writer.close()


# ----------------------------------------------------------------------------- reading


def test_positions_behave_as_those_of_a_list(log: OpenLog) -> None:
    fill(log, 12)
    model = [FIRST, *(entry(index) for index in range(2, 13))]
    log.store.purge_to(4)
    del model[:3]
    assert len(log.store) == len(model)
    for position in range(-9, 9):
        assert log.store[position] == model[position]
    for position in (-10, 9, 100):
        with pytest.raises(IndexError):
            log.store[position]
    for item in (slice(2, 5), slice(-3, None), slice(None, None, -2), slice(50, 60), slice(-50, 2)):
        assert log.store[item] == model[item]


def test_entry_at_finds_by_index_only_what_is_there(log: OpenLog) -> None:
    fill(log, 6)
    log.store.purge_to(3)
    assert [log.store.entry_at(index) for index in (0, 2, 7)] == [None, None, None]
    assert log.store.entry_at(3) == entry(3)
    assert log.store.entry_at(6) == entry(6)


def test_entries_from_stops_at_the_size_but_gives_at_least_one(log: OpenLog) -> None:
    fill(log, 6, size_bytes=100)
    assert log.store.entries_from(2, 300) == [entry(index, 1, 100) for index in (2, 3, 4)]
    assert log.store.entries_from(2, 299) == [entry(index, 1, 100) for index in (2, 3)]
    assert log.store.entries_from(6, 1) == [entry(6, 1, 100)]
    assert log.store.entries_from(7, 1000) == []
    log.store.purge_to(4)
    assert log.store.entries_from(3, 1000) == []


def test_memory_is_counted_and_given_back(log: OpenLog) -> None:
    before = log.store.bytes_in_memory
    fill(log, 11, size_bytes=1000)
    full = log.store.bytes_in_memory
    assert full - before > 10 * 1000
    log.store.purge_to(6)
    assert log.store.bytes_in_memory < full - 4 * 1000
    log.store.deleteEntriesFrom(2)
    log.store.reset_to([FIRST])
    assert log.store.bytes_in_memory == before


def test_statistics_add_up(log: OpenLog) -> None:
    fill(log, 50, size_bytes=500)
    log.flush()
    for _ in range(40):
        fill(log, log.store.last_index + 1)
        log.flush()
        log.writer.checkpoint_if_due()
    status = log.store.statistics()
    assert status.cache_items == 90
    assert status.cache_used_size == log.store.bytes_in_memory
    assert status.wal_total_size == status.wal_open_chunk_size + status.wal_closed_chunk_total_size
    assert status.wal_open_chunk_size >= 50 * 500
    assert sum(status.wal_closed_chunk_sizes.values()) == status.wal_closed_chunk_total_size > 0


def test_the_offset_of_the_log_grows_with_what_is_written_whatever_the_files_do(log: OpenLog) -> None:
    offsets = [log.store.statistics().wal_offset]
    for _ in range(3):
        fill(log, log.store.last_index + 20, size_bytes=500)
        log.flush()
        log.writer.give_back_all()
        while log.writer.give_back():
            pass
        offsets.append(log.store.statistics().wal_offset)
    grown = [later - earlier for earlier, later in pairwise(offsets)]
    assert min(grown) >= 20 * 500
    assert log.store.statistics().wal_open_chunk_size == 0, "the files got short meanwhile"


# ----------------------------------------------------------------------------- adding


def test_bare_noop_of_the_engine_names_its_leader_but_the_first_entry_stays(log: OpenLog) -> None:
    log.store.noop_content = b"\x01\x01leader"
    log.store.add(b"\x01", 2, 1)
    log.store.add(b"\x01\x01other", 3, 1)
    log.store.reset_to([FIRST])
    assert log.store[0] == FIRST
    log.store.add(b"\x01", 2, 1)
    assert log.store[-1] == (b"\x01\x01leader", 2, 1)


@pytest.mark.parametrize("bad", [(b"x", 5, 1), (b"x", 3, 1), (b"x", 4, 0), (b"x", NUMBER_MAX + 1, 1)])
def test_entry_out_of_order_is_never_taken(log: OpenLog, bad: LogEntry) -> None:
    fill(log, 3)
    with pytest.raises(InvariantError):
        log.store.add(*bad)
    assert log.store.last_index == 3


def test_largest_term_is_stored_and_one_more_refused(log: OpenLog) -> None:
    log.store.setCurrentTerm(NUMBER_MAX, None)
    log.store.add(b"x", 2, NUMBER_MAX)
    with pytest.raises(InvariantError):
        log.store.add(b"y", 3, NUMBER_MAX + 1)
    with pytest.raises(InvariantError):
        log.store.setCurrentTerm(NUMBER_MAX + 1, None)
    log.flush()
    assert log.reopen()[-1] == (b"x", 2, NUMBER_MAX)


# ----------------------------------------------------------------------------- cutting the end off


def test_committed_entries_are_never_cut_off(log: OpenLog) -> None:
    fill(log, 10)
    log.store.commit_floor = lambda: 6
    with pytest.raises(InvariantError, match="index 6 is committed"):
        log.store.deleteEntriesFrom(5)
    assert log.store.last_index == 10
    log.store.deleteEntriesFrom(6)
    assert log.store.last_index == 6
    log.store.deleteEntriesFrom(6)  # nothing there: no harm


def test_without_a_hook_the_stores_own_commit_index_is_the_floor(tmp_path: Path) -> None:
    store = LogStore.open(str(tmp_path / "raft.db"), create_entries=[FIRST])
    for index in range(2, 6):
        store.add(*entry(index))
    store.setRaftCommitIndex(4)
    with pytest.raises(InvariantError):
        store.deleteEntriesFrom(3)
    store.deleteEntriesFrom(4)
    with pytest.raises(InvariantError):
        store.deleteEntriesFrom(-1)
    store._destroy()


def test_entries_cut_off_before_they_were_written_never_reach_the_disk(log: OpenLog) -> None:
    fill(log, 5)
    log.store.deleteEntriesFrom(2)
    pending = log.store.take_pending()
    assert pending is not None
    assert pending.entries == [entry(2)]
    assert pending.delete_from is None
    assert not pending.changes_meta
    fill(log, 4)
    log.store.deleteEntriesFrom(2)
    assert not log.store.dirty


def test_overwritten_tail_is_replaced_on_disk(log: OpenLog) -> None:
    fill(log, 8)
    log.flush()
    log.store.deleteEntriesFrom(4)
    assert log.store.dirty
    fill(log, 6, term=3)
    log.flush()
    assert log.reopen()[:] == [FIRST, *(entry(index) for index in (2, 3, 4)), entry(5, 3), entry(6, 3)]


# ----------------------------------------------------------------------------- purging


def test_purge_alone_is_lazy_until_a_second_has_passed(log: OpenLog) -> None:
    fill(log, 10)
    log.flush()
    log.store.purge_to(5)
    assert (log.store.first_index, log.store.dirty) == (5, False)
    log.store.onOneSecondTimer()
    assert log.store.dirty
    log.flush()
    assert not log.store.dirty
    assert log.reopen().first_index == 5


def test_purge_rides_along_with_the_next_write(log: OpenLog) -> None:
    fill(log, 10)
    log.flush()
    log.store.purge_to(5)
    fill(log, 11)
    pending = log.store.take_pending()
    assert pending is not None
    assert (pending.delete_before, pending.first_index, pending.last_index) == (5, 5, 11)


def test_purge_keeps_two_entries(log: OpenLog) -> None:
    fill(log, 10)
    log.store.purge_to(1000)
    assert (log.store.first_index, log.store.last_index) == (9, 10)
    log.store.purge_to(3)
    assert log.store.first_index == 9


def test_purge_of_a_long_log_is_written_in_pieces_and_all_of_it_in_the_end(log: OpenLog) -> None:
    fill(log, 3000, size_bytes=100)
    log.flush()
    log.store.purge_to(2990)
    pieces = 0
    log.store.onOneSecondTimer()
    while log.store.dirty:
        pending = log.store.take_pending()
        assert pending is not None
        log.writer.write(pending)
        pieces += 1
    assert pieces == 6
    assert log.reopen()[:] == [entry(index, 1, 100) for index in range(2990, 3001)]


def test_half_purged_file_is_complete_at_any_piece(log: OpenLog) -> None:
    fill(log, 2000)
    log.flush()
    log.store.purge_to(1900)
    pending = log.store.take_pending()
    assert pending is not None
    log.writer.write(pending)
    store = log.reopen()
    assert 1 < store.first_index < 1900
    assert store.last_index == 2000


def test_entries_purged_before_they_were_written_leave_no_hole(log: OpenLog) -> None:
    fill(log, 700)
    log.flush()
    fill(log, 3000)
    log.store.purge_to(2500)
    log.flush()
    assert log.reopen()[:] == [entry(index) for index in range(2500, 3001)]


def test_reset_replaces_everything_also_with_lower_indexes(log: OpenLog) -> None:
    fill(log, 30)
    log.flush()
    log.store.reset_to([entry(9, 7), entry(10, 7)])
    log.store.setCurrentTerm(7, None)
    log.flush()
    store = log.reopen()
    assert store[:] == [entry(9, 7), entry(10, 7)]
    assert store.getCurrentTerm() == 7


def test_cleared_log_is_never_written_empty(log: OpenLog) -> None:
    log.store.clear()
    assert log.store.dirty
    with pytest.raises(InvariantError):
        log.store.take_pending()
    with pytest.raises(InvariantError):
        log.store.reset_to([])


# ----------------------------------------------------------------------------- term and vote


def test_term_and_vote_are_pending_until_taken_and_survive(log: OpenLog) -> None:
    log.store.setCurrentTerm(3, "2")
    assert log.store.dirty
    assert log.store.dirty_term
    log.flush()
    assert not log.store.dirty_term
    store = log.reopen()
    assert (store.getCurrentTerm(), store.getVotedForNodeId()) == (3, "2")


def test_vote_is_given_once_in_a_term_and_the_term_never_goes_back(log: OpenLog) -> None:
    log.store.setCurrentTerm(3, None)
    log.store.setCurrentTerm(3, "2")
    log.flush()
    log.store.setCurrentTerm(3, "2")
    assert not log.store.dirty_term
    for term, vote in ((3, "1"), (3, None), (2, "2")):
        with pytest.raises(InvariantError):
            log.store.setCurrentTerm(term, vote)
    log.store.setCurrentTerm(4, None)
    assert (log.store.getCurrentTerm(), log.store.getVotedForNodeId()) == (4, None)


def test_state_may_not_be_ahead_of_the_log(log: OpenLog) -> None:
    fill(log, 7)
    log.store.check_against_state(7)
    with pytest.raises(DataDamagedError, match="ends at index 7, but the state beside it has applied index 8"):
        log.store.check_against_state(8)


def test_commit_index_lives_in_memory(log: OpenLog) -> None:
    fill(log, 9)
    log.store.setRaftCommitIndex(8)
    assert log.store.getRaftCommitIndex() == 8
    log.flush()
    assert log.reopen().getRaftCommitIndex() == 1


def test_a_slow_sync_is_a_line_with_the_name_of_the_file(
    log: OpenLog, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    moments = iter([10.0, 10.2, 20.0, 22.5])
    monkeypatch.setattr("metasrv.raft.log.writer.perf_counter", lambda: next(moments))
    fill(log, 2)
    log.flush()
    assert caplog.messages == []
    fill(log, 4)
    log.flush()
    assert caplog.messages == [f"a write and sync of {log.path} took 2.5 s"]

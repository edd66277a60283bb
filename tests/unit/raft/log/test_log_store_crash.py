"""Death of the process and loss of power at any moment of any write, and disks that refuse.

The model of a power loss: what was synced is there; of what was being written, any sector may be there or not, in any
order; the mark, which is not synced, may be as old as it likes.
"""

from __future__ import annotations

import errno
import os
import random
import sqlite3
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metasrv.model.errors import DataDamagedError, IdentityError, InvariantError, StorageError
from metasrv.raft.log.format import LogEntry
from metasrv.raft.log.mark import decode_mark
from metasrv.raft.log.store import LogStore, LogWriter
from metasrv.raft.log.writer import CHECKPOINT_SIZE_BYTES

SECTOR_SIZE_BYTES = 512
WAL_HEADER_SIZE_BYTES = 32
SUFFIXES = ("", "-wal", "-mark")


class Moment(NamedTuple):
    """The files after a step, and what a restarted process must find then."""

    files: dict[str, bytes]
    entries: list[LogEntry]
    term: int
    vote: str | None


def take_files(path: str) -> dict[str, bytes]:
    return {suffix: Path(path + suffix).read_bytes() if os.path.exists(path + suffix) else b"" for suffix in SUFFIXES}


def write(store: LogStore, writer: LogWriter) -> None:
    pending = store.take_pending()
    assert pending is not None
    writer.write(pending)


def moment(store: LogStore) -> Moment:
    # The file keeps entries whose purge is still pending; the tests here purge nothing in pieces.
    return Moment(take_files(store.path), store[:], store.getCurrentTerm(), store.getVotedForNodeId())


def random_step(store: LogStore, chance: random.Random) -> None:
    kind = chance.random()
    if kind < 0.2:
        store.setCurrentTerm(store.getCurrentTerm() + 1, chance.choice([None, "1", "3"]))
    if kind < 0.1 and len(store) > 3:
        store.deleteEntriesFrom(len(store) - chance.randint(1, 2))
    if 0.3 < kind < 0.4 and len(store) > 60:
        store.purge_to(store.last_index - 50)
    if 0.4 < kind < 0.43:
        index = store.last_index + 10
        store.reset_to([(b"a", index, store.getCurrentTerm()), (b"b", index + 1, store.getCurrentTerm())])
    for _ in range(chance.randint(1, 4)):
        content = chance.randbytes(chance.choice([20, 300, 300, 300, 5000]))
        store.add(content, store.last_index + 1, store.getCurrentTerm())


def history(seed: int, steps: int) -> list[Moment]:
    """A random life of a log, one moment for each write and each checkpoint."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as directory:
        store = LogStore.open(f"{directory}/raft.db", create_entries=[(b"\x01", 1, 0)])
        writer = store.open_writer()
        store.commit_floor = lambda: store.last_index - 4 if store.last_index > 60 else 0
        moments = [moment(store)]
        for _ in range(steps):
            random_step(store, chance)
            write(store, writer)
            moments.append(moment(store))
            if chance.random() < 0.15:
                writer._wal_used_bytes, writer._looked_at = 1 << 30, 0
                writer.checkpoint_if_due()
                moments.append(moment(store))
        writer.close()
        moments.append(moment(store))
        return moments


HISTORIES = [history(seed, 40) for seed in range(4)]


def torn(before: bytes, after: bytes, chance: random.Random, share: float) -> bytes:
    """Sectors of `before`, some of them replaced by those of `after`; any length in between."""
    size_bytes = chance.choice([len(before), len(after), chance.randint(*sorted((len(before), len(after))))])
    result = bytearray(before[:size_bytes].ljust(size_bytes, b"\x00"))
    for start in range(0, size_bytes, SECTOR_SIZE_BYTES):
        if chance.random() < share:
            new = after[start : min(start + SECTOR_SIZE_BYTES, size_bytes)]
            result[start : start + len(new)] = new
    return bytes(result)


def torn_wal(before: bytes, after: bytes, chance: random.Random, share: float) -> bytes:
    """SQLite syncs a new header before the frames that follow it, and shortens the file only between transactions."""
    if len(after) < max(len(before), 1):
        return chance.choice([before, after])
    if not before:
        before = after[:WAL_HEADER_SIZE_BYTES] if chance.random() < 0.9 else bytes(chance.randint(0, 32))
        return torn(before, after, chance, share) if before[:4] == after[:4] else before
    return torn(after[:WAL_HEADER_SIZE_BYTES] + before[WAL_HEADER_SIZE_BYTES:], after, chance, share)


def recovered(files: dict[str, bytes]) -> tuple[list[LogEntry], int, str | None]:
    """Open as a restarted process does, checked against SQLite's own recovery by the writer."""
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/raft.db"
        for suffix, data in files.items():
            if data or suffix != "-wal":
                Path(path + suffix).write_bytes(data)
        store = LogStore.open(path, create_entries=None)
        store.open_writer().close()
        return store[:], store.getCurrentTerm(), store.getVotedForNodeId()


def test_power_loss_model_is_not_trivial() -> None:
    """Otherwise the tests below would prove nothing: all steps occur, and a write-ahead log is reused."""
    for moments in HISTORIES:
        headers = {each.files["-wal"][:WAL_HEADER_SIZE_BYTES] for each in moments}
        assert len(headers) > 2
        assert len({each.files[""] for each in moments}) > 2
        assert moments[-1].term > 2


@settings(max_examples=300, deadline=None)
@given(moments=st.sampled_from(HISTORIES), data=st.data())
def test_power_loss_loses_nothing_that_was_synced(moments: list[Moment], data: st.DataObject) -> None:
    step = data.draw(st.integers(0, len(moments) - 2))
    mark_step = data.draw(st.integers(0, step) | st.just(step))
    share = data.draw(st.sampled_from([0.0, 0.05, 0.5, 0.95, 1.0]))
    chance = random.Random(data.draw(st.integers(0, 2**32)))
    before, after = moments[step], moments[step + 1]
    files = {
        "": torn(before.files[""], after.files[""], chance, share),
        "-wal": before.files["-wal"],
        "-mark": moments[mark_step].files["-mark"],
    }
    if before.files[""] == after.files[""]:  # a write: the database file is touched by checkpoints only
        files["-wal"] = torn_wal(before.files["-wal"], after.files["-wal"], chance, share)
    assert recovered(files) in (before[1:], after[1:])


@settings(max_examples=100, deadline=None)
@given(moments=st.sampled_from(HISTORIES), data=st.data())
def test_killed_process_is_found_as_it_was(moments: list[Moment], data: st.DataObject) -> None:
    """After kill -9 the kernel still has every byte; only the mark may be one write behind."""
    step = data.draw(st.integers(1, len(moments) - 1))
    mark_step = data.draw(st.sampled_from([step, step - 1]))
    files = {**moments[step].files, "-mark": moments[mark_step].files["-mark"]}
    assert recovered(files) == moments[step][1:]


@settings(max_examples=100, deadline=None)
@given(moments=st.sampled_from(HISTORIES), data=st.data())
def test_lost_sync_is_noticed_unless_the_mark_was_lost_too(moments: list[Moment], data: st.DataObject) -> None:
    """A disk that lies about a sync: with the mark of the write, the log without it is refused."""
    step = data.draw(st.integers(0, len(moments) - 2))
    before, after = moments[step], moments[step + 1]
    files = {**before.files, "-mark": after.files["-mark"]}
    if before.files["-mark"] == after.files["-mark"]:
        assert recovered(files) == before[1:]
    else:
        with pytest.raises(DataDamagedError, match="1 transactions that had been synced are missing"):
            recovered(files)


@pytest.mark.parametrize("keep", ["nothing", "building", "mark", "both"])
def test_crash_while_creating_is_repaired_by_the_next_start(tmp_path: Path, keep: str) -> None:
    model = LogStore.open(str(tmp_path / "model.db"), create_entries=[(b"\x01", 1, 0)])
    model._destroy()
    path = str(tmp_path / "raft.db")
    if keep in ("building", "both"):
        Path(path + "-new").write_bytes((tmp_path / "model.db").read_bytes()[:5000])
        Path(path + "-new-wal").write_bytes(b"half")
    if keep in ("mark", "both"):
        Path(path + "-mark").write_bytes((tmp_path / "model.db-mark").read_bytes())
    store = LogStore.open(path, create_entries=[(b"\x01", 1, 0)])
    assert store[:] == [(b"\x01", 1, 0)]
    assert not os.path.exists(path + "-new")
    store._destroy()


def test_mark_is_complete_before_the_log_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log without a mark would be refused for ever, so no crash may leave one."""
    path = str(tmp_path / "raft.db")
    seen: list[int] = []
    rename = os.rename

    def crash_before_rename(source: str, target: str) -> None:
        seen.append(decode_mark(path + "-mark", Path(path + "-mark").read_bytes()).last_index)
        if len(seen) == 1:
            raise OSError(errno.EIO, "crash")
        rename(source, target)

    monkeypatch.setattr(os, "rename", crash_before_rename)
    with pytest.raises(StorageError, match="creating failed"):
        LogStore.open(path, create_entries=[(b"\x01", 1, 0)])
    assert not os.path.exists(path)
    LogStore.open(path, create_entries=[(b"a", 5, 1), (b"b", 6, 1)])._destroy()
    assert seen == [1, 6]


def test_marks_slots_are_written_in_turn(tmp_path: Path) -> None:
    """So that one of them is whole, whatever happens to the other while it is being written."""
    store, writer = started(tmp_path)
    data = Path(store.path + "-mark").read_bytes()
    newest = decode_mark("mark", data)
    alone = [decode_mark("mark", half + half) for half in (data[:4096], data[4096:])]
    assert sorted(each.written for each in alone) == [newest.written - 1, newest.written]
    assert newest.last_index == store.last_index
    writer.close()


@pytest.mark.parametrize(
    ("name", "value"),
    [("synchronous", 2), ("wal_autocheckpoint", 0), ("journal_mode", "wal"), ("locking_mode", "exclusive")],
)
def test_writer_syncs_each_transaction_and_checkpoints_only_when_told(
    tmp_path: Path, name: str, value: int | str
) -> None:
    _, writer = started(tmp_path)
    assert writer._connection.execute(f"PRAGMA {name}").fetchone() == (value,)
    writer.close()


# ----------------------------------------------------------------------------- disks that refuse


def started(tmp_path: Path) -> tuple[LogStore, LogWriter]:
    store = LogStore.open(str(tmp_path / "raft.db"), create_entries=[(b"\x01", 1, 0)])
    writer = store.open_writer()
    for index in range(2, 30):
        store.add(b"x" * 300, index, 0)
        write(store, writer)
    return store, writer


def test_full_disk_kills_the_writer_and_loses_nothing_acknowledged(tmp_path: Path) -> None:
    store, writer = started(tmp_path)
    (pages,) = writer._connection.execute("PRAGMA page_count").fetchone()
    writer._connection.execute(f"PRAGMA max_page_count = {pages + 2}")
    acknowledged: list[LogEntry] = []

    def write_until_it_fails() -> None:
        for index in range(30, 200):
            acknowledged[:] = store[:]
            store.add(b"y" * 300, index, 0)
            write(store, writer)

    with pytest.raises(StorageError, match=r"raft\.db: writing failed: the disk is full") as caught:
        write_until_it_fails()
    assert caught.value.exit_code == 8
    store.setCurrentTerm(9, "1")
    with pytest.raises(StorageError, match=r"an earlier write failed: .*the disk is full"):
        write(store, writer)
    writer.close()
    again = LogStore.open(store.path, create_entries=None)
    assert again[:] == acknowledged
    assert again.getCurrentTerm() == 0
    again.open_writer().close()


def refuse(*_: object) -> int:
    raise OSError(errno.EIO, "refused")


def test_failed_mark_kills_the_writer_although_the_log_itself_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, writer = started(tmp_path)
    store.add(b"z", 30, 0)
    monkeypatch.setattr(os, "pwrite", refuse)
    with pytest.raises(StorageError, match=r"raft\.db-mark: writing failed: Input/output error"):
        write(store, writer)
    monkeypatch.undo()
    store.add(b"z", 31, 0)
    with pytest.raises(StorageError, match="an earlier write failed"):
        write(store, writer)
    writer.close()
    again = LogStore.open(store.path, create_entries=None)
    assert again.last_index == 30
    again._destroy()


def test_failed_checkpoint_is_told_by_the_next_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, writer = started(tmp_path)
    monkeypatch.setattr(os, "fdatasync", refuse)
    writer._wal_used_bytes, writer._looked_at = 1 << 30, 0
    writer.checkpoint_if_due()
    store.add(b"z", 30, 0)
    with pytest.raises(StorageError, match=r"an earlier write failed: .*syncing failed: Input/output error"):
        write(store, writer)
    with pytest.raises(StorageError, match="syncing failed"):
        writer.close()


def test_write_that_contradicts_the_file_is_an_invariant_fault(tmp_path: Path) -> None:
    store, writer = started(tmp_path)
    store.add(b"z", 30, 0)
    pending = store.take_pending()
    assert pending is not None
    writer.write(pending)
    with pytest.raises(InvariantError, match="contradicts what is in the file"):
        writer.write(pending)
    with pytest.raises(StorageError):
        writer.write(pending)
    writer.close()


def test_file_that_another_program_has_open_is_refused(tmp_path: Path) -> None:
    store, writer = started(tmp_path)
    writer.close()
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("PRAGMA locking_mode = EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    again = LogStore.open(store.path, create_entries=None)
    with pytest.raises(IdentityError, match="another process uses this file"):
        again.open_writer()
    other.close()
    again._destroy()


def test_nobody_reads_or_writes_the_file_while_the_writer_has_it(tmp_path: Path) -> None:
    _, writer = started(tmp_path)
    with sqlite3.connect(writer.path, timeout=0) as other, pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("SELECT count(*) FROM entries")
    other.close()
    writer.close()


def test_checkpoints_keep_the_write_ahead_log_small(tmp_path: Path) -> None:
    store, writer = started(tmp_path)
    for index in range(30, 900):
        store.add(b"v" * 20_000, index, 0)
        write(store, writer)
        writer.checkpoint_if_due()
    assert writer.file_sizes.database_bytes > 15_000_000
    assert writer.file_sizes.wal_bytes < 8 * 1024 * 1024
    writer.close()


def test_large_entries_do_not_gather_for_one_long_checkpoint(tmp_path: Path) -> None:
    store, writer = started(tmp_path)
    size_bytes = CHECKPOINT_SIZE_BYTES + 1
    for index in range(30, 36):
        store.add(bytes(size_bytes), index, 0)
        write(store, writer)
        writer.checkpoint_if_due()
        assert writer._wal_used_bytes == 0
        assert writer.file_sizes.wal_bytes < 2 * size_bytes
    assert writer.file_sizes.database_bytes > 6 * size_bytes
    writer.close()

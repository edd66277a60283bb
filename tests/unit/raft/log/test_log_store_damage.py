"""Damaged files (D11): whatever bytes change, a log is refused with its place named, or it is complete; never shorter."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metasrv.model.errors import DataDamagedError, IdentityError, StorageError
from metasrv.raft.log.checks import read_wal
from metasrv.raft.log.format import INDEX, LogEntry
from metasrv.raft.log.mark import FILE_SIZE_BYTES
from metasrv.raft.log.store import LogStore

FRAME_SIZE_BYTES = 4096 + 24
SUFFIXES = ("", "-wal", "-mark")


class Recording(NamedTuple):
    """The files of a killed process and what it had acknowledged."""

    files: dict[str, bytes]
    entries: list[LogEntry]
    term: int
    vote: str | None


def put(directory: Path, files: dict[str, bytes]) -> str:
    path = str(directory / "raft.db")
    for suffix, data in files.items():
        Path(path + suffix).write_bytes(data)
    return path


def take(path: str) -> dict[str, bytes]:
    return {suffix: Path(path + suffix).read_bytes() for suffix in SUFFIXES}


def record(*, checkpoints: bool) -> Recording:
    """A log of some hundred entries with term changes, cut tails and a purge; killed without closing."""
    with tempfile.TemporaryDirectory() as directory:
        store = LogStore.open(f"{directory}/raft.db", create_entries=[(b"\x01", 1, 0)])
        writer = store.open_writer()
        store.commit_floor = lambda: store.last_index - 5
        for step in range(60):
            if step % 10 == 3:
                store.setCurrentTerm(store.getCurrentTerm() + 1, "2" if step % 20 == 3 else None)
                store.deleteEntriesFrom(len(store) - 2)
            for _ in range(step % 4 + 1):
                content = bytes([step]) * (300 if step % 15 else 9000)
                store.add(content, store.last_index + 1, store.getCurrentTerm())
            if step == 50:
                store.purge_to(40)
            pending = store.take_pending()
            assert pending is not None
            writer.write(pending)
            if checkpoints and step in (20, 45):
                writer._wal_used_bytes, writer._looked_at = 1 << 30, 0
                writer.checkpoint_if_due()
        files = take(store.path)
        writer.close()
        return Recording(files, store[:], store.getCurrentTerm(), store.getVotedForNodeId())


RECORDINGS = {"one long write-ahead log": record(checkpoints=False), "a reused one": record(checkpoints=True)}


@contextmanager
def opened(files: dict[str, bytes]) -> Iterator[LogStore]:
    """The log as a restarted process finds it; its writer opens too, and a third process finds the same."""
    with tempfile.TemporaryDirectory() as directory:
        path = put(Path(directory), files)
        store = LogStore.open(path, create_entries=None)
        try:
            entries, term = store[:], store.getCurrentTerm()
            writer = store.open_writer()
            store.add(b"more", store.last_index + 1, store.last_term)
            pending = store.take_pending()
            assert pending is not None
            writer.write(pending)
            writer.close()
            again = LogStore.open(path, create_entries=None)
            again._destroy()
            assert again[:-1] == entries
            assert again.getCurrentTerm() == term
            yield store
        finally:
            store._destroy()


def outcome(files: dict[str, bytes], recording: Recording) -> str:
    """What a restarted process makes of the files: `complete` and `refused` are right, anything else is not."""
    try:
        with opened(files) as store:
            same_term = (store.getCurrentTerm(), store.getVotedForNodeId()) == (recording.term, recording.vote)
            return "complete" if same_term and store[:-1] == recording.entries else "wrong"
    except DataDamagedError as error:
        names_a_file = error.path.rsplit("raft.db")[-1] in {*SUFFIXES, "-journal"} and error.path in str(error)
        return "refused" if names_a_file else "refused without naming the file"


recordings = pytest.mark.parametrize("recording", RECORDINGS.values(), ids=RECORDINGS.keys())


@recordings
def test_killed_process_loses_nothing(recording: Recording) -> None:
    assert outcome(recording.files, recording) == "complete"


# ----------------------------------------------------------------------------- any byte


def places(data: st.DataObject, size_bytes: int) -> tuple[int, int]:
    start = data.draw(st.integers(0, size_bytes - 1))
    length = data.draw(st.sampled_from([1, 4, 24, 512, 4096, 20000]))
    return start, min(size_bytes, start + length)


@recordings
@settings(max_examples=150, deadline=None)
@given(
    data=st.data(),
    suffix=st.sampled_from(SUFFIXES),
    shape=st.sampled_from(["flip", "zero", "noise", "truncate", "remove", "repeat", "append"]),
)
def test_any_damage_is_refused_or_harmless(recording: Recording, data: st.DataObject, suffix: str, shape: str) -> None:
    before = recording.files[suffix]
    start, end = places(data, len(before))
    damaged = bytearray(before)
    if shape == "flip":
        damaged[start] ^= 1 << data.draw(st.integers(0, 7))
    elif shape == "zero":
        damaged[start:end] = bytes(end - start)
    elif shape == "noise":
        damaged[start:end] = data.draw(st.randoms(use_true_random=False)).randbytes(end - start)
    elif shape == "truncate":
        del damaged[start:]
    elif shape == "remove":
        del damaged[start:end]
    elif shape == "repeat":
        damaged[start:start] = damaged[start:end]
    else:
        damaged += data.draw(st.binary(min_size=1, max_size=64))
    assert outcome({**recording.files, suffix: bytes(damaged)}, recording) in {"complete", "refused"}


@recordings
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_flipped_bit_in_a_used_page_of_the_write_ahead_log_is_refused(recording: Recording, data: st.DataObject) -> None:
    """Also in the very last transaction, which SQLite would drop without a word."""
    wal = bytearray(recording.files["-wal"])
    salts = wal[16:24]
    frames = [offset for offset in range(32, len(wal), FRAME_SIZE_BYTES) if wal[offset + 8 : offset + 16] == salts]
    offset = data.draw(st.sampled_from(frames)) + data.draw(st.integers(0, FRAME_SIZE_BYTES - 1))
    wal[offset] ^= 1 << data.draw(st.integers(0, 7))
    assert outcome({**recording.files, "-wal": bytes(wal)}, recording) == "refused"


def test_damage_in_the_last_transaction_is_what_sqlite_itself_would_not_notice(tmp_path: Path) -> None:
    recording = RECORDINGS["one long write-ahead log"]
    wal = bytearray(recording.files["-wal"])
    wal[-100] ^= 1
    path = put(tmp_path, {**recording.files, "-wal": bytes(wal)})
    with pytest.raises(DataDamagedError, match="1 transactions that had been synced are missing"):
        LogStore.open(path, create_entries=None)
    with closing(sqlite3.connect(path)) as connection:
        (last_index,) = connection.execute("SELECT max(log_index) FROM entries").fetchone()
    assert last_index < recording.entries[-1][INDEX]


def test_refused_log_is_left_as_it_is(tmp_path: Path) -> None:
    recording = RECORDINGS["a reused one"]
    wal = bytearray(recording.files["-wal"])
    wal[5000] ^= 1
    files = {**recording.files, "-wal": bytes(wal)}
    path = put(tmp_path, files)
    for _ in range(2):
        with pytest.raises(DataDamagedError):
            LogStore.open(path, create_entries=None)
    assert take(path) == files


# ----------------------------------------------------------------------------- named shapes


@recordings
@pytest.mark.parametrize(
    ("suffix", "content", "sentence"),
    [
        ("", b"", "byte 0: the file is empty"),
        ("", b"SQLite format 3\x00", "byte 16: the file ends within its first page"),
        ("", b"{}" * 5000, "byte 0: not an SQLite database"),
        ("-wal", b"", "transactions that had been synced are missing"),
        ("-wal", bytes(40_000), "transactions that had been synced are missing"),
        ("-wal", b"noise" * 10_000, "byte 0: the header of the write-ahead log is damaged"),
        ("-mark", b"", "0 bytes instead of 8192"),
        ("-mark", bytes(FILE_SIZE_BYTES), "byte 0: checksum of the mark does not match"),
    ],
)
def test_damaged_file_is_named_with_place_and_advice(
    recording: Recording, suffix: str, content: bytes, sentence: str, tmp_path: Path
) -> None:
    path = put(tmp_path, {**recording.files, suffix: content})
    with pytest.raises(DataDamagedError, match=sentence) as caught:
        LogStore.open(path, create_entries=[(b"\x01", 1, 0)])
    assert path in str(caught.value)
    assert "let it join again with an empty data directory" in str(caught.value)
    assert caught.value.exit_code == 6


@recordings
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_missing_file_is_damage_whoever_asks(recording: Recording, suffix: str, tmp_path: Path) -> None:
    path = put(tmp_path, recording.files)
    Path(path + suffix).unlink()
    for create in (None, [(b"\x01", 1, 0)]):
        with pytest.raises(DataDamagedError):
            LogStore.open(path, create_entries=create)


def test_log_removed_after_a_clean_stop_is_not_created_again(tmp_path: Path) -> None:
    store = LogStore.open(str(tmp_path / "raft.db"), create_entries=[(b"\x01", 1, 0)])
    writer = store.open_writer()
    store.add(b"x", 2, 0)
    pending = store.take_pending()
    assert pending is not None
    writer.write(pending)
    writer.close()
    os.unlink(store.path)
    with pytest.raises(DataDamagedError, match="missing, although 2 transactions had been synced"):
        LogStore.open(store.path, create_entries=[(b"\x01", 1, 0)])


def test_older_copy_of_the_log_is_refused(tmp_path: Path) -> None:
    """A restored or reverted file lacks votes and entries that were acknowledged."""
    newer, older = RECORDINGS["a reused one"], tmp_path / "older"
    older.mkdir()
    path = put(older, newer.files)
    store = LogStore.open(path, create_entries=None)
    store.open_writer().close()
    before = {"": Path(path).read_bytes(), "-mark": Path(path + "-mark").read_bytes()}
    store = LogStore.open(path, create_entries=None)
    writer = store.open_writer()
    store.setCurrentTerm(store.getCurrentTerm() + 1, "3")
    pending = store.take_pending()
    assert pending is not None
    writer.write(pending)
    writer.close()
    Path(path).write_bytes(before[""])
    with pytest.raises(DataDamagedError, match="1 transactions that had been synced are missing"):
        LogStore.open(path, create_entries=None)


@pytest.mark.parametrize("vote_alone", [False, True], ids=["another term", "another vote in the same term"])
def test_older_copy_of_the_database_under_a_newer_write_ahead_log_is_refused(tmp_path: Path, vote_alone: bool) -> None:
    """All entries are there, but the term or the vote would be those of before: a node could vote again."""
    store = LogStore.open(str(tmp_path / "raft.db"), create_entries=[(b"\x01", 1, 0)])
    writer = store.open_writer()

    def write(*, entry: bool = True) -> None:
        if entry:
            store.add(b"content", store.last_index + 1, store.getCurrentTerm())
        pending = store.take_pending()
        assert pending is not None
        writer.write(pending)

    store.setCurrentTerm(1, None)
    write()
    writer._checkpoint()
    older = take(store.path)[""]
    store.setCurrentTerm(1 if vote_alone else 2, "3")
    write(entry=not vote_alone)
    writer._checkpoint()
    write()
    files = take(store.path)
    with opened(files) as found:
        assert found.getVotedForNodeId() == "3"
    sentence = "transaction 2, but 3 had changed them" if vote_alone else "entry 4 is of term 2"
    with pytest.raises(DataDamagedError, match="table meta.*" + sentence), opened(files | {"": older}):
        pass
    writer.close()


def test_log_of_another_node_is_refused(tmp_path: Path) -> None:
    ours, theirs = RECORDINGS.values()
    path = put(tmp_path, {**theirs.files, "-mark": ours.files["-mark"]})
    with pytest.raises(DataDamagedError, match="belongs to another log"):
        LogStore.open(path, create_entries=None)


def edited(tmp_path: Path, *statements: str) -> str:
    """A cleanly closed log that somebody edited with a database tool."""
    path = put(tmp_path, RECORDINGS["a reused one"].files)
    LogStore.open(path, create_entries=None).open_writer().close()
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()
    return path


@pytest.mark.parametrize(
    ("statement", "sentence"),
    [
        ("PRAGMA application_id = 7", "application_id is 0x7"),
        ("PRAGMA user_version = 2", "user_version is 0x2"),
        ("DELETE FROM meta", "table meta: it has 0 rows"),
        ("UPDATE meta SET term = term + 1", "checksum of term and vote"),
        ("UPDATE meta SET voted_for = '9'", "checksum of term and vote"),
        ("UPDATE meta SET voted_for = x'39'", "checksum of term and vote"),
        ("UPDATE meta SET term = 'seven'", "checksum of term and vote"),
        ("DELETE FROM entries", "table entries: it is empty"),
        ("DELETE FROM entries WHERE log_index = 60", "entry 61: entries 60 to 60 are missing"),
        ("DELETE FROM entries WHERE log_index < 45", "entry 45: entries 40 to 44 are missing"),
        ("DELETE FROM entries WHERE log_index > 60", "transactions that had been synced are missing"),
        ("UPDATE entries SET term = 0 WHERE log_index = 60", "entry 60: its checksum does not match"),
        ("UPDATE entries SET content = x'00' WHERE log_index = 60", "entry 60: its checksum does not match"),
        ("UPDATE entries SET content = 'text' WHERE log_index = 60", "entry 60: a column has a value of the wrong"),
        ("CREATE TABLE more (a)", "schema: its tables are not those of a raft log"),
        ("DROP TABLE meta", "schema: its tables are not those of a raft log"),
        ("PRAGMA journal_mode = DELETE", "journal mode is 0x101"),
    ],
)
def test_edited_log_is_refused(tmp_path: Path, statement: str, sentence: str) -> None:
    with pytest.raises(DataDamagedError, match=sentence):
        LogStore.open(edited(tmp_path, statement), create_entries=None)


def test_part_of_the_last_transaction_removed_is_refused(tmp_path: Path) -> None:
    path = edited(tmp_path, "DELETE FROM entries WHERE log_index = (SELECT max(log_index) FROM entries)")
    with pytest.raises(DataDamagedError, match=r"the log ends at index \d+, but index \d+ had been synced"):
        LogStore.open(path, create_entries=None)


def test_rollback_journal_is_never_played_back(tmp_path: Path) -> None:
    path = edited(tmp_path)
    Path(path + "-journal").write_bytes(b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + bytes(600))
    with pytest.raises(DataDamagedError, match="never has a rollback journal"):
        LogStore.open(path, create_entries=None)


def test_directory_in_place_of_the_log_is_a_storage_fault(tmp_path: Path) -> None:
    path = edited(tmp_path)
    os.unlink(path)
    os.mkdir(path)
    with pytest.raises(StorageError, match="directory"):
        LogStore.open(path, create_entries=None)


# ----------------------------------------------------------------------------- write-ahead log alone


def test_bad_frame_with_later_transactions_behind_it_is_damage_even_without_the_mark() -> None:
    wal = bytearray(RECORDINGS["one long write-ahead log"].files["-wal"])
    wal[32 + 3 * FRAME_SIZE_BYTES + 500] ^= 0x10
    place = f"byte {32 + 3 * FRAME_SIZE_BYTES}: frame 4 is damaged, but later transactions follow"
    with pytest.raises(DataDamagedError, match=place):
        read_wal("raft.db-wal", bytes(wal))


def test_committed_prefix_of_a_torn_log_is_read() -> None:
    wal = RECORDINGS["one long write-ahead log"].files["-wal"]
    whole = read_wal("raft.db-wal", wal)
    assert whole.page_count is not None
    torn = read_wal("raft.db-wal", wal[:-1])
    assert torn.page_count is not None
    assert torn != whole
    assert read_wal("raft.db-wal", b"").page_count is None


def test_frames_of_a_torn_transaction_out_of_order_are_no_damage() -> None:
    """A large transaction was being written when the power went: its first frames are missing, later ones are there,
    one of them with the page count of an older frame in the half of its header that is still the old sector."""
    with tempfile.TemporaryDirectory() as directory:
        store = LogStore.open(f"{directory}/raft.db", create_entries=[(b"\x01", 1, 0)])
        writer = store.open_writer()
        sizes = []
        for size_bytes in (300, 40_000):
            store.add(b"x" * size_bytes, store.last_index + 1, 0)
            pending = store.take_pending()
            assert pending is not None
            writer.write(pending)
            sizes.append(os.path.getsize(store.path + "-wal"))
        wal = bytearray(take(store.path)["-wal"])
        writer.close()
    assert sizes[1] - sizes[0] > 5 * FRAME_SIZE_BYTES
    wal[sizes[0] + 24 : sizes[0] + FRAME_SIZE_BYTES] = bytes(4096)
    third = sizes[0] + 2 * FRAME_SIZE_BYTES
    wal[third + 4 : third + 8] = (3).to_bytes(4, "big")
    assert read_wal("raft.db-wal", bytes(wal)) == read_wal("raft.db-wal", bytes(wal[: sizes[0]]))


def test_second_process_is_refused_before_it_reads_anything(tmp_path: Path) -> None:
    path = put(tmp_path, RECORDINGS["a reused one"].files)
    store = LogStore.open(path, create_entries=None)
    writer = store.open_writer()
    shutil.copy(path, tmp_path / "same.db")
    with pytest.raises(IdentityError):
        LogStore.open(path, create_entries=None)
    store._destroy()  # the engine lets go, the writer still holds the lock
    with pytest.raises(IdentityError):
        LogStore.open(path, create_entries=None)
    writer.close()

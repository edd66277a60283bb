"""Files: damage at open, copies, checks of copies, installation and crashes in the middle of it (invariants 7, 9)."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from metasrv.model import commands as c
from metasrv.model.entries import MembershipEntry, NoopEntry
from metasrv.model.errors import DataDamagedError, MetasrvError, StorageError
from metasrv.model.types import Endpoint, LogId, Member, Membership, Node
from metasrv.state import snapshot
from metasrv.state.durability import checkpoint, restart_log, sync_state
from metasrv.state.machine import StateMachine
from metasrv.state.snapshot import SnapshotTail, SnapshotWriter, read_snapshot_tail, verify_snapshot
from metasrv.state.state_file import file_sizes
from metasrv.state.watch import WatchReset
from tests.support.state_bench import NOW_MS, Bench, dump


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.machine.close()


def fill(bench: Bench, count: int = 300, value: bytes = b"x" * 200) -> None:
    bench.run(*(c.Put(f"key/{at:05d}", value) for at in range(count)))


def crashed_copy(bench: Bench, target: Path) -> str:
    """The files as a kill of the process leaves them."""
    target.mkdir()
    for name in os.listdir(bench.directory):
        if name.startswith("state.db") and not name.endswith("-shm"):
            shutil.copy(bench.directory / name, target / name)
    return str(target / "state.db")


# ----------------------------------------------------------------------------- opening


def test_a_crash_keeps_every_committed_entry(bench: Bench, tmp_path: Path) -> None:
    fill(bench)
    path = crashed_copy(bench, tmp_path / "crashed")
    machine = StateMachine.open(path)
    assert (machine.key_count, machine.last_applied) == (300, bench.machine.last_applied)
    machine.close()


def test_a_crash_during_creation_is_no_damage(tmp_path: Path) -> None:
    path = str(tmp_path / "state.db")
    Path(f"{path}.new").write_bytes(b"half a file")
    Path(f"{path}.new-journal").write_bytes(b"half a journal")
    StateMachine.open(path).close()
    assert os.listdir(tmp_path) == ["state.db"]


@pytest.mark.parametrize(
    "content",
    [b"", b"x", b"SQLite format 3\0", b"SQLite format 3\0" + bytes(84), random.Random(1).randbytes(8192)],
    ids=["empty", "one byte", "magic", "zeros", "random"],
)
def test_a_foreign_file_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(content)
    with pytest.raises(DataDamagedError, match=r"state\.db: .*metasrv --rebuild") as caught:
        StateMachine.open(str(path))
    assert caught.value.exit_code == 6
    assert path.read_bytes() == content


def test_another_sqlite_file_is_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "state.db")
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE t(x)")
    other.close()
    with pytest.raises(DataDamagedError, match="not written by metasrv"):
        StateMachine.open(path)


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("PRAGMA user_version = 3", "format 3.*format 2"),
        ("DROP TABLE secrets", "tables"),
        ("CREATE TABLE extra(x)", "tables"),
        ("DELETE FROM meta", "meta applied"),
        ("UPDATE meta SET value = x'0011223344'", "meta applied.*checksum"),
        ("UPDATE meta SET value = 7", "meta applied"),
        ("UPDATE nodes SET node = x'0011223344'", "node 1"),
        ("UPDATE secrets SET secret = x'0011223344'", "secret s"),
    ],
)
def test_a_mangled_table_is_refused(bench: Bench, statement: str, what: str) -> None:
    bench.apply(c.AddNode(Node(1, Endpoint("h", 1), "", None), False), c.SetClusterSecret("s", b"x"))
    bench.machine.close()
    tool = sqlite3.connect(bench.path)
    tool.execute(statement)
    tool.commit()
    tool.close()
    with pytest.raises(DataDamagedError, match=what):
        StateMachine.open(bench.path)
    os.unlink(bench.path)
    bench.machine = StateMachine.open(bench.path)


@pytest.mark.parametrize("keep", [0, 1, 99, 100, 4095, 4096, 8192, 20_000])
def test_a_truncated_file_is_refused(bench: Bench, keep: int) -> None:
    fill(bench)
    bench.machine.close()
    os.truncate(bench.path, keep)
    with pytest.raises(DataDamagedError, match=r"state\.db"):
        StateMachine.open(bench.path)
    os.unlink(bench.path)
    bench.machine = StateMachine.open(bench.path)


def test_a_file_cut_short_by_a_crash_in_a_checkpoint_is_whole_with_its_log(bench: Bench, tmp_path: Path) -> None:
    fill(bench)
    path = crashed_copy(bench, tmp_path / "crashed")
    checkpoint(bench.path)
    with open(bench.path, "rb") as done:  # page 1 was moved, the later pages were not yet
        first_page = done.read(4096)
    with open(path, "r+b") as short:
        short.write(first_page)
    machine = StateMachine.open(path)
    assert machine.key_count == 300
    machine.close()
    os.truncate(path, 8192)
    with pytest.raises(DataDamagedError, match="cut off"):
        StateMachine.open(path)


def test_a_lost_log_is_an_older_state(bench: Bench, tmp_path: Path) -> None:
    fill(bench, 10)
    checkpoint(bench.path)
    bench.put("later")
    path = crashed_copy(bench, tmp_path / "crashed")
    os.unlink(f"{path}-wal")
    machine = StateMachine.open(path)
    assert (machine.key_count, machine.last_applied.index) == (10, 1)
    machine.close()


def test_a_lost_file_beside_its_log_is_damage(bench: Bench, tmp_path: Path) -> None:
    fill(bench, 10)
    path = crashed_copy(bench, tmp_path / "crashed")
    os.unlink(path)
    with pytest.raises(DataDamagedError, match="the file is gone"):
        StateMachine.open(path)


def test_a_schema_that_is_no_text_is_damage(tmp_path: Path) -> None:
    """SQLite quotes it in its complaint, or hands it out: Python decodes neither, and has its own errors for both."""
    path = tmp_path / "state.db"
    StateMachine.open(str(path)).close()
    whole = path.read_bytes()
    start = whole.index(b"CREATE TABLE")
    for position in range(start, start + 60):
        content = bytearray(whole)
        content[position] |= 0x80
        path.write_bytes(content)
        with pytest.raises(DataDamagedError):
            StateMachine.open(str(path))


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="only Linux says which files a process has open")
def test_a_file_that_is_refused_is_closed(tmp_path: Path) -> None:
    """Not only once the collector comes by: whoever looks at the error keeps the frames that had it open."""
    bench = Bench(tmp_path)
    fill(bench, 60)
    bench.machine.close()
    whole = Path(bench.path).read_bytes()
    refused = []
    for place in [*range(16, 100), *range(100, len(whole), len(whole) // 100)]:
        content = bytearray(whole)
        content[place] ^= 0x55
        target = tmp_path / f"flipped-{place}.db"
        target.write_bytes(content)
        try:
            StateMachine.open(str(target)).close()
        except MetasrvError as error:
            refused.append((target, error))
    assert len(refused) > 30
    assert [(target.name, str(error)) for target, error in refused if open_files(target)] == []


def open_files(path: Path) -> list[str]:
    """Which descriptors of this process are of a file."""
    found = []
    for descriptor in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the listing itself had one
            if os.readlink(f"/proc/self/fd/{descriptor}") == str(path):
                found.append(descriptor)
    return found


def test_flipped_bytes_are_noticed_or_harmless(bench: Bench, tmp_path: Path) -> None:
    """Wherever a byte flips: a refusal that names the file, or exactly the records that were written."""
    fill(bench, 60)
    bench.apply(c.AddNode(Node(1, Endpoint("h", 1), "", None), False))
    expected = bench.machine.list_prefix("", None, NOW_MS)
    bench.machine.close()
    content = Path(bench.path).read_bytes()
    chance, sentences = random.Random(11), []
    places = [*range(100), *(chance.randrange(100, len(content)) for _ in range(250))]
    target = tmp_path / "flipped.db"
    for place in places:
        flipped = bytearray(content)
        flipped[place] ^= 1 << chance.randrange(8)
        target.write_bytes(flipped)
        try:
            machine = StateMachine.open(str(target))
            try:
                assert machine.list_prefix("", None, NOW_MS) == expected, f"byte {place}"
            finally:
                machine.close()
        except MetasrvError as error:
            sentences.append(str(error))
        for suffix in ("-wal", "-shm", "-journal"):
            (tmp_path / f"flipped.db{suffix}").unlink(missing_ok=True)
    assert len(sentences) > 100
    assert all("flipped.db" in sentence for sentence in sentences)
    bench.machine = StateMachine.open(bench.path)


# ----------------------------------------------------------------------------- durability


def test_checkpoint_moves_everything_and_the_log_starts_over(bench: Bench) -> None:
    fill(bench)
    passes = checkpoint(bench.path)
    assert passes.frames == passes.moved > 10
    assert passes.size_bytes == passes.frames * (4096 + 24)
    bench.put("a")
    assert checkpoint(bench.path).frames < passes.frames
    sync_state(bench.path)


def test_checkpoint_stops_before_what_a_reader_needs(bench: Bench) -> None:
    fill(bench, 10)
    with bench.machine.open_reader() as reader:
        fill(bench, 300)
        passes = checkpoint(bench.path)
        assert passes.moved < passes.frames
        assert not restart_log(bench.path).restarted
        assert reader.key_count == len(list(reader.records())) == 10
        fill(bench, 20)
    passes = checkpoint(bench.path)
    assert passes.frames == passes.moved
    assert restart_log(bench.path).restarted


def test_sync_without_a_log_is_done_already(tmp_path: Path) -> None:
    sync_state(str(tmp_path / "state.db"))
    assert os.listdir(tmp_path) == []


def test_faults_of_the_helper_functions_are_named(tmp_path: Path) -> None:
    nothing = str(tmp_path / "missing" / "state.db")
    for function in (
        checkpoint,
        restart_log,
        lambda path: SnapshotWriter(path).pin(),
        StateMachine.open,
        verify_snapshot,
    ):
        with pytest.raises((StorageError, DataDamagedError), match=r"state\.db"):
            function(nothing)


# ----------------------------------------------------------------------------- copies


def rich(bench: Bench) -> None:
    """A state with something of everything in it."""
    membership = Membership({1: Member(Endpoint("h", 1), "x")}, {})
    bench.machine.apply_entry(LogId(2, 1, 1), MembershipEntry(1, Membership(), membership))
    bench.apply(c.AddNode(Node(1, Endpoint("h", 1), "", None), False), c.SetFeature("dummy", True))
    bench.apply(c.SetClusterSecret("s", b"x"))
    bench.machine.set_cluster_id("cluster")
    fill(bench, 100)
    bench.put("expiring", ttl_ms=1000)


def test_a_copy_is_the_state_at_the_pinned_instant(bench: Bench, tmp_path: Path) -> None:
    rich(bench)
    writer = SnapshotWriter(bench.path)
    assert writer.pin() == bench.machine.last_applied
    tail = bench.tail()
    bench.put("after the pin")
    info = writer.write(str(tmp_path / "copy.snap"), tail)
    assert (info.log_id, info.key_count, info.expire_count) == (LogId(2, 5, 1), 101, 1)
    assert info.size_bytes == os.path.getsize(info.path)
    assert sorted(os.listdir(tmp_path)) == ["copy.snap", "state.db", "state.db-shm", "state.db-wal"]
    assert verify_snapshot(info.path, info.sha256, "cluster") == verify_snapshot(info.path) == info
    assert read_snapshot_tail(info.path) == tail
    copied = StateMachine.open(info.path)
    assert copied.list_prefix("after", None, NOW_MS) == []
    assert copied.membership == bench.machine.membership
    assert (copied.cluster_id, copied.features, copied.secrets.get("s")) == ("cluster", ("dummy",), b"x")
    assert copied.installed_tail() == tail
    copied.close()


def test_a_copy_can_be_written_by_another_thread(bench: Bench, tmp_path: Path) -> None:
    rich(bench)
    writer = SnapshotWriter(bench.path)
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(writer.pin()))
    thread.start()
    thread.join()
    thread = threading.Thread(target=lambda: results.append(writer.write(str(tmp_path / "c.snap"), bench.tail())))
    thread.start()
    thread.join()
    assert results[0] == results[1].log_id


def test_a_given_up_copy_leaves_nothing(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rich(bench)
    before = sorted(os.listdir(tmp_path))
    writer = SnapshotWriter(bench.path)
    writer.pin()
    writer.close()
    writer.close()
    with pytest.raises(StorageError, match="nothing is pinned"):
        writer.write(str(tmp_path / "x.snap"), bench.tail())
    writer.pin()

    def full(_path: str, *, sync: bool) -> tuple[str, int]:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(snapshot, "digest_of", full)
    with pytest.raises(StorageError, match="No space left"):
        writer.write(str(tmp_path / "x.snap"), bench.tail())
    assert sorted(os.listdir(tmp_path)) == before


Damage = Callable[[str], None]


def edit(statement: str) -> Damage:
    def damage(path: str) -> None:
        tool = sqlite3.connect(path)
        tool.execute(statement)
        tool.commit()
        tool.close()

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: os.truncate(path, 0),
        lambda path: os.truncate(path, 50),
        lambda path: os.truncate(path, os.path.getsize(path) - 4096),
        lambda path: os.truncate(path, os.path.getsize(path) - 1),
        edit("UPDATE kv SET data = CAST('other' AS BLOB) WHERE key = 'key/00007'"),
        edit("DELETE FROM meta WHERE name = 'tail'"),
        edit("UPDATE meta SET value = x'00' WHERE name = 'tail'"),
        edit("UPDATE meta SET value = x'00' WHERE name = 'membership'"),
        edit("UPDATE nodes SET node = x'00'"),
        edit("DELETE FROM kv WHERE key = 'key/00007'"),
        edit("UPDATE kv SET expire_ms = NULL WHERE key = 'expiring'"),
        edit("UPDATE kv SET seq = seq + 1 WHERE key = 'key/00007'"),
        edit("UPDATE kv SET expire_at = 'soon' WHERE key = 'expiring'"),
        edit("DROP TABLE features"),
    ],
)
def test_a_damaged_copy_is_refused_with_and_without_its_digest(bench: Bench, damage: Damage) -> None:
    rich(bench)
    info = bench.snapshot()
    damage(info.path)
    for sha256 in (None, info.sha256):
        with pytest.raises(DataDamagedError, match=r"copy\.snap"):
            verify_snapshot(info.path, sha256)


def test_a_copy_of_another_cluster_or_with_another_end_is_refused(bench: Bench) -> None:
    rich(bench)
    info = bench.snapshot()
    with pytest.raises(DataDamagedError, match="cluster cluster, this node is of cluster other"):
        verify_snapshot(info.path, None, "other")
    term, index, _ = bench.machine.last_applied
    for previous, last in (
        ((b"", index - 1, term), (b"", index + 1, term)),
        ((b"", index - 2, term), (b"", index, term)),
        ((b"", index - 1, term), (b"", index, term + 1)),
        ((b"", index - 1, term + 1), (b"", index, term)),
    ):
        writer = SnapshotWriter(bench.path)
        writer.pin()
        wrong = writer.write(info.path, SnapshotTail(previous, last))
        with pytest.raises(DataDamagedError, match="do not end at"):
            verify_snapshot(wrong.path, wrong.sha256)


# ----------------------------------------------------------------------------- installation


async def test_install_replaces_everything_and_ends_watches(bench: Bench, tmp_path: Path) -> None:
    rich(bench)
    info = bench.snapshot()
    content = dump(info.path)
    (tmp_path / "other").mkdir()
    other = Bench(tmp_path / "other")
    fill(other, 2000)
    other.apply(c.SetFeature("dummy_feature2", True))
    assert other.machine.get("key/01999", NOW_MS) is not None
    watcher = other.machine.watches.subscribe("", "z")
    old_view = other.machine.open_reader()
    assert other.machine.install(info.path) == bench.tail() == other.machine.installed_tail()
    assert "copy.snap" not in os.listdir(tmp_path), "the file was used up"
    with pytest.raises(WatchReset, match="replaced"):
        await watcher.next_batch()
    machine = other.machine
    assert (machine.last_applied, machine.key_count, machine.features) == (info.log_id, 101, ("dummy",))
    assert machine.get("key/01999", NOW_MS) is None
    assert len(list(old_view.records())) == 2000, "an open view keeps its instant"
    old_view.close()
    assert other.keys() == bench.keys()
    assert other.reopen().installed_tail() == bench.tail()
    assert dump(other.path) == content
    other.put("next")
    assert other.machine.installed_tail() is None, "it is only the end of the log until the next entry"
    assert other.reopen().last_applied.index == info.log_id.index + 1
    other.machine.close()
    assert sorted(os.listdir(tmp_path / "other")) == ["state.db"]


class Crash(Exception):
    """The process dies here."""


@pytest.mark.parametrize("survivors", range(12))
def test_a_crash_at_any_step_of_an_installation_leaves_the_old_or_the_new_state(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, survivors: int
) -> None:
    fill(bench, 50)
    new = bench.snapshot()
    (tmp_path / "other").mkdir()
    other = Bench(tmp_path / "other")
    fill(other, 10)
    checkpoint(other.path)
    other.put("in the log only")
    calls = 0

    def dying(name: str) -> None:
        real = getattr(os, name)

        def call(*arguments: object) -> object:
            nonlocal calls
            calls += 1
            if calls > survivors:
                raise Crash
            return real(*arguments)

        monkeypatch.setattr(os, name, call)

    path = other.path
    try:
        with monkeypatch.context():
            for name in ("replace", "unlink", "fsync"):
                dying(name)
            other.machine.install(new.path)
    except Crash:
        assert calls == survivors + 1
    finally:
        monkeypatch.undo()
    copied = crashed_copy(other, tmp_path / "after")
    machine = StateMachine.open(copied)
    old_state = (12 - 1, "in the log only")
    found = (machine.key_count, machine.list_prefix("in", None, NOW_MS)[0][0] if machine.key_count == 11 else "")
    assert found in (old_state, (50, ""))
    assert (machine.key_count == 50) is (survivors >= 2), "decided by the rename to the pending name"
    assert machine.installed_tail() == (bench.tail() if machine.key_count == 50 else None)
    machine.close()
    assert sorted(os.listdir(tmp_path / "after")) == ["state.db"]
    other.machine.close()
    assert path == other.path


def test_install_after_noops(tmp_path: Path) -> None:
    """A state without a single record can be copied and installed."""
    first = Bench(tmp_path, "first.db")
    for index in (1, 2):
        first.machine.apply_entry(LogId(0, index, 0), NoopEntry(0))
    info = first.snapshot()
    second = Bench(tmp_path, "second.db")
    second.machine.install(verify_snapshot(info.path, info.sha256).path)
    assert second.machine.last_applied == LogId(0, 2, 0)
    first.machine.close()
    second.machine.close()


def test_the_sizes_of_files_that_are_gone_are_figures(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert file_sizes(str(tmp_path / "gone" / "state.db")) == (0, 0)
    assert file_sizes(str(tmp_path / "file" / "state.db")) == (0, 0), "a file stands where its directory was"

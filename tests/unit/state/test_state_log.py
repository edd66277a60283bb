"""The state's write-ahead log stays short: beside a writer, after a reader, after a crash, and in whatever thread."""

from __future__ import annotations

import os
import random
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from metasrv.model import commands as c
from metasrv.model.errors import StorageError, ViewLostError
from metasrv.model.limits import MIB
from metasrv.state import durability, snapshot
from metasrv.state.durability import checkpoint, restart_log
from metasrv.state.machine import StateMachine
from metasrv.state.snapshot import SnapshotWriter
from metasrv.state.store import Store
from tests.support.state_bench import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.machine.close()


def fill(bench: Bench, count: int = 300, value: bytes = b"x" * 200) -> None:
    bench.run(*(c.Put(f"key/{at:05d}", value) for at in range(count)))


def wal_size_of(bench: Bench) -> int:
    return os.path.getsize(f"{bench.path}-wal")


def crashed_copy(bench: Bench, target: Path) -> str:
    """The files as a kill of the process leaves them."""
    target.mkdir()
    for name in ("state.db", "state.db-wal"):
        shutil.copy(bench.directory / name, target / name)
    return str(target / "state.db")


def test_a_restart_begins_the_log_anew_in_place(bench: Bench) -> None:
    fill(bench)
    size_bytes = wal_size_of(bench)
    restart = restart_log(bench.path)
    assert restart.restarted
    assert restart.file_size_bytes == wal_size_of(bench) == size_bytes
    fill(bench)
    assert wal_size_of(bench) <= size_bytes + 8192, "the same frames again, and the one that the restart wrote"


def test_the_first_frame_of_a_new_log_is_not_the_loops(bench: Bench) -> None:
    """Whoever writes it syncs the file: SQLite would do so on the event loop."""
    fill(bench)
    restart_log(bench.path)
    passes = checkpoint(bench.path)
    assert passes.frames == 1
    restart_log(bench.path)
    bench.put("a")
    assert checkpoint(bench.path).frames > 1, "the loop's frames follow it"


def test_a_log_with_a_new_beginning_survives_a_crash(bench: Bench, tmp_path: Path) -> None:
    fill(bench)
    restart_log(bench.path)
    bench.put("after")
    machine = StateMachine.open(crashed_copy(bench, tmp_path / "crashed"))
    assert (machine.key_count, machine.last_applied) == (301, bench.machine.last_applied)
    machine.close()


def test_a_long_file_is_cut_piece_by_piece(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durability, "SHORTEN_STEP_SIZE_BYTES", 100_000)
    fill(bench, 300, b"x" * 2_000)
    before = wal_size_of(bench)
    kept = before - 250_000
    sizes = [restart_log(bench.path, kept).file_size_bytes for _ in range(4)]
    assert sizes == [before - 100_000, before - 200_000, kept, kept]
    fill(bench, 300, b"y" * 2_000)
    assert bench.machine.key_count == 300
    assert bench.machine.list_prefix("key/00299", None, 0)[0][1].data == b"y" * 2_000


def test_nothing_is_cut_while_a_reader_needs_it(bench: Bench) -> None:
    fill(bench)
    with bench.machine.open_reader() as reader:
        bench.put("later")
        size_bytes = wal_size_of(bench)
        restart = restart_log(bench.path, 0)
        assert (restart.restarted, restart.file_size_bytes) == (False, size_bytes)
        assert reader.key_count == 300


class Turns:
    """The writer steps aside when the other thread asks it to, as the loop holds back entries."""

    def __init__(self) -> None:
        self._asked, self._granted, self._over = threading.Event(), threading.Event(), threading.Event()

    def step_aside(self) -> None:
        """In the writer, between two entries."""
        if self._asked.is_set():
            self._asked.clear()
            self._granted.set()
            self._over.wait(10)
            self._over.clear()

    def take(self, work: Callable[[], bool]) -> bool:
        """In the other thread: do the work while the writer stands aside."""
        self._asked.set()
        assert self._granted.wait(10)
        self._granted.clear()
        try:
            return work()
        finally:
            self._over.set()


def test_the_log_stays_short_beside_a_writer_in_another_thread(bench: Bench) -> None:
    """Passes alone moved all that they saw, and the log grew for as long as somebody wrote."""
    turns, ending = Turns(), threading.Event()
    problems: list[BaseException] = []
    restarts: list[bool] = []
    rounds = threading.Semaphore(0)

    def keep_short() -> None:
        try:
            while not ending.is_set():
                if checkpoint(bench.path).size_bytes > 256 * 1024 and not ending.is_set():
                    restarts.append(turns.take(lambda: restart_log(bench.path).restarted))
                rounds.release()
        except BaseException as error:
            problems.append(error)
            ending.set()

    keeper = threading.Thread(target=keep_short)
    keeper.start()
    chance, largest = random.Random(5), 0
    for number in range(1_000):
        # A disk takes entries no faster than this, seen from a thread that syncs; the writer goes on meanwhile.
        while number % 25 == 24 and not rounds.acquire(timeout=0.01) and not ending.is_set():
            turns.step_aside()
        keys = [f"key/{chance.randrange(800):03}" for _ in range(16)]
        bench.run(*(c.Put(key, chance.randbytes(256)) for key in keys))
        largest = max(largest, wal_size_of(bench))
        turns.step_aside()
    ending.set()
    while keeper.is_alive():
        turns.step_aside()
        keeper.join(0.01)
    assert problems == []
    assert len(restarts) > 3
    assert all(restarts)
    assert largest < 16 * MIB, "all entries together have written almost 70"


# ----------------------------------------------------------------------------- views


def test_a_revoked_view_lets_go_and_says_why(bench: Bench) -> None:
    fill(bench)
    reader = bench.machine.open_reader()
    pages = reader.pages(page_records=10)
    assert len(next(pages)) == 10
    fill(bench, 20)
    assert not restart_log(bench.path).restarted
    assert bench.machine.views.revoke("too long") == 1
    assert len(bench.machine.views) == 0
    assert restart_log(bench.path).restarted
    for read in (lambda: next(pages), lambda: reader.get("key/00001"), lambda: list(reader.expire_index())):
        with pytest.raises(ViewLostError, match="too long"):
            read()
    reader.close()


def test_a_view_that_is_revoked_in_the_middle_of_a_read_finishes_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(bench)
    reader = bench.machine.open_reader()
    read = reader._store.read

    def revoked_meanwhile(key: str) -> object:
        thread = threading.Thread(target=lambda: bench.machine.views.revoke("too long"))
        thread.start()
        thread.join()
        return read(key)

    monkeypatch.setattr(Store, "read", lambda _store, key: revoked_meanwhile(key))
    assert reader.get("key/00001") is not None
    assert len(bench.machine.views) == 0, "it was closed behind the read"
    with pytest.raises(ViewLostError):
        reader.get("key/00001")


def test_a_closed_view_is_not_revoked(bench: Bench) -> None:
    with bench.machine.open_reader():
        assert len(bench.machine.views) == 1
    assert bench.machine.views.revoke("too long") == 0


# ----------------------------------------------------------------------------- snapshots


def test_a_copy_does_not_pin_the_log_once_it_is_made(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(bench)
    digest, restarted = snapshot.digest_of, []

    def digest_after_restart(path: str, *, sync: bool) -> tuple[str, int]:
        bench.put("meanwhile")
        restarted.append(restart_log(bench.path).restarted)
        return digest(path, sync=sync)

    monkeypatch.setattr(snapshot, "digest_of", digest_after_restart)
    writer = SnapshotWriter(bench.path)
    writer.pin()
    assert writer.write(str(tmp_path / "copy.snap"), bench.tail()).key_count == 300
    assert restarted == [True]


@pytest.mark.parametrize("over", [0, 1])
def test_a_copy_is_given_up_when_the_log_grows_past_its_bound(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, over: int
) -> None:
    fill(bench)
    writer = SnapshotWriter(bench.path)
    writer.pin()
    tail = bench.tail()
    fill(bench, 50)
    monkeypatch.setattr(snapshot, "STATE_LOG_COPY_FACTOR", 0)
    monkeypatch.setattr(snapshot, "STATE_LOG_PINNED_SIZE_BYTES_MAX", wal_size_of(bench) - over)
    target = tmp_path / "copy.snap"
    if not over:
        writer.write(str(target), tail)
        return
    with pytest.raises(StorageError, match="given up, because the write-ahead log grew"):
        writer.write(str(target), tail)
    assert not target.exists()
    assert restart_log(bench.path).restarted, "and the log is free again"

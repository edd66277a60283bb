"""When the state's write-ahead log is moved and begins anew, what waits for it, and which views are lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from metasrv.model.errors import DataDamagedError, FatalError, StorageError
from metasrv.model.limits import (
    MIB,
    STATE_LOG_PINNED_SIZE_BYTES_MAX,
    STATE_LOG_SIZE_BYTES_KEPT,
    STATE_LOG_SIZE_BYTES_TARGET,
    STATE_LOG_UNSYNCED_SIZE_BYTES_MAX,
)
from metasrv.model.sizes import size_text
from metasrv.raft import state_log
from metasrv.raft.observer import SilentObserver
from metasrv.raft.state_log import SHORTENED_SIZE_BYTES_MAX, StateLog, StateLogLimits
from metasrv.state.durability import LogPasses, LogRestart, checkpoint, restart_log, sync_log
from metasrv.state.state_file import StateFileSizes
from metasrv.state.views import Views

LIMITS = StateLogLimits(unsynced=900_000, target=1_000_000, kept=2_000_000, pinned_max=10_000_000)
ALL_MOVED = LogPasses(frames=250, moved=250, size_bytes=1_030_000, seconds=0.001)
ONE_ENTRY_BYTES = 8 * 1024
"""What an entry with a single command and no content counts as."""


class Machine:
    path = "state.db"

    def __init__(self) -> None:
        self.views = Views()
        self.log_bytes = 0
        self.database_bytes = 5_000_000
        self.commits = 0
        self.error: StorageError | None = None

    def commit(self) -> None:
        if self.error is not None:
            raise self.error
        self.commits += 1

    def file_sizes(self) -> StateFileSizes:
        return StateFileSizes(self.database_bytes, self.log_bytes)


class View:
    def __init__(self) -> None:
        self.reasons: list[str] = []

    def revoke(self, reason: str) -> None:
        self.reasons.append(reason)


class Thread:
    """Keeps what is given to it until the test says how it ended."""

    def __init__(self) -> None:
        self.jobs: list[tuple[Callable[..., Any], tuple[Any, ...], Callable[[Any, Any], None]]] = []

    def submit(self, function: Callable[..., Any], *args: Any, on_done: Callable[[Any, Any], None]) -> None:
        self.jobs.append((function, args, on_done))

    @property
    def waiting(self) -> list[Callable[..., Any]]:
        return [function for function, _, _ in self.jobs]

    def end(self, result: Any, error: BaseException | None = None) -> None:
        self.jobs.pop(0)[2](result, error)


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now

    def wall_ms(self) -> int:
        return 0


class Pauses(SilentObserver):
    def __init__(self) -> None:
        self.seconds: list[float] = []

    def applying_paused(self, seconds: float) -> None:
        self.seconds.append(seconds)


class Bench:
    def __init__(self, log_bytes: int = 0) -> None:
        self.machine, self.thread, self.clock, self.pauses = Machine(), Thread(), Clock(), Pauses()
        self.machine.log_bytes = log_bytes
        self.holds: list[bool] = []
        self.failures: list[FatalError] = []
        parts: dict[str, Any] = {"machine": self.machine, "thread": self.thread, "clock": self.clock}
        self.log = StateLog(
            **parts, observer=self.pauses, limits=LIMITS, hold=self.holds.append, failed=self.failures.append
        )

    def write(self, size_bytes: int) -> None:
        """One entry that counts as so many bytes."""
        self.log.applied(size_bytes - ONE_ENTRY_BYTES, 1)
        self.log.consider()

    def later(self, seconds: float) -> None:
        self.clock.now += seconds
        self.log.consider()


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_the_log_is_moved_once_so_much_was_written(bench: Bench) -> None:
    bench.write(LIMITS.unsynced)
    bench.thread.end(True)
    bench.write(LIMITS.target - LIMITS.unsynced - 1)
    assert bench.thread.waiting == []
    bench.write(ONE_ENTRY_BYTES)
    assert bench.thread.waiting == [checkpoint]
    bench.write(LIMITS.target)
    assert bench.thread.waiting == [checkpoint], "one at a time"


def test_a_file_that_gets_shorter_is_cut_in_small_pieces(bench: Bench) -> None:
    """The log is moved for that alone, whatever the estimate of what was written; no more is given back meanwhile."""
    bench.log._share = 1 / 16
    bench.log.shortened(SHORTENED_SIZE_BYTES_MAX - 1)
    bench.log.consider()
    assert not bench.log.takes_no_more
    assert checkpoint not in bench.thread.waiting
    bench.thread.jobs.clear()
    bench.log._running = False
    bench.log.shortened(1)
    bench.log.consider()
    assert bench.log.takes_no_more
    assert bench.thread.waiting == [checkpoint]
    bench.thread.end(ALL_MOVED._replace(moved=0))
    bench.write(ONE_ENTRY_BYTES)
    assert bench.thread.waiting == [], "a reader is in the way: a second later again"
    assert bench.log.takes_no_more
    bench.later(1.0)
    bench.thread.end(ALL_MOVED)
    assert bench.thread.waiting == [restart_log]
    bench.thread.end(LogRestart(True, 0))
    assert not bench.log.takes_no_more


@pytest.mark.parametrize("over", [0, 1])
def test_the_log_is_synced_in_small_pieces(bench: Bench, over: int) -> None:
    """A large one would hold up the raft log's syncs, which clients wait for."""
    bench.write(LIMITS.unsynced - 1 + over)
    assert bench.thread.waiting == [sync_log] * over
    if over:
        bench.write(ONE_ENTRY_BYTES)
        assert bench.thread.waiting == [sync_log], "one at a time"
        bench.thread.end(True)
        bench.log.consider()
        assert bench.thread.waiting == []


def test_a_refused_sync_stops_the_node(bench: Bench) -> None:
    bench.write(LIMITS.unsynced)
    bench.thread.end(None, StorageError("the disk is full"))
    assert [str(error) for error in bench.failures] == ["the disk is full"]


@pytest.mark.parametrize("grown", [0, 1])
def test_the_log_is_moved_once_its_file_has_grown_so_much(bench: Bench, grown: int) -> None:
    """What a single command deletes shows nowhere else."""
    bench.machine.log_bytes = LIMITS.target - 1 + grown
    bench.write(ONE_ENTRY_BYTES)
    assert len(bench.thread.waiting) == grown


@pytest.mark.parametrize(("restarted", "grown"), [(True, 1), (False, LIMITS.target)])
def test_a_file_that_grows_says_that_more_was_written_than_it_seemed(bench: Bench, restarted: bool, grown: int) -> None:
    """A log that began anew was in need of no more room until all of the file was written again."""
    bench.write(LIMITS.target)
    bench.thread.end(ALL_MOVED)
    bench.machine.log_bytes = 1_500_000
    bench.thread.end(LogRestart(restarted, 1_500_000))
    bench.machine.log_bytes += grown - 1
    bench.write(ONE_ENTRY_BYTES)
    assert bench.thread.waiting == []
    bench.machine.log_bytes += 1
    bench.write(ONE_ENTRY_BYTES)
    assert bench.thread.waiting == [checkpoint]


def test_what_is_found_corrects_the_estimate(bench: Bench) -> None:
    """Else a log of small entries that share their pages would begin anew far too often."""
    targets = []
    for found_bytes in (LIMITS.target // 4, LIMITS.target, 10 * LIMITS.target, 0, LIMITS.target):
        count = 0
        while checkpoint not in bench.thread.waiting:
            bench.write(LIMITS.target // 100)
            count += 1
            if bench.thread.waiting == [sync_log]:
                bench.thread.end(True)
        targets.append(count / 100)
        bench.thread.end(ALL_MOVED._replace(size_bytes=found_bytes))
        bench.thread.end(LogRestart(True, LIMITS.kept))
    assert targets == pytest.approx([1, 4, 4, 1, 16], rel=0.05)


def test_entries_wait_for_the_restart_and_for_nothing_else(bench: Bench) -> None:
    bench.write(LIMITS.target)
    assert (bench.holds, bench.log.restarting) == ([], False)
    bench.thread.end(ALL_MOVED)
    assert (bench.holds, bench.log.restarting) == ([True], True)
    assert bench.thread.jobs[0][:2] == (restart_log, ("state.db", LIMITS.kept))
    bench.clock.now += 0.002
    bench.thread.end(LogRestart(True, LIMITS.kept))
    assert (bench.holds, bench.log.restarting) == ([True, False], False)
    assert bench.pauses.seconds == [pytest.approx(0.002)]
    bench.later(60)
    assert bench.thread.waiting == [], "nothing is left to do"


@pytest.mark.parametrize(
    "passes",
    [
        ALL_MOVED._replace(moved=99),
        ALL_MOVED._replace(seconds=state_log.RESTART_SECONDS_MAX + 0.001),
    ],
    ids=["a reader is in the way", "the disk is slow"],
)
def test_no_restart_is_tried_that_would_not_come_off_quickly(bench: Bench, passes: LogPasses) -> None:
    bench.write(LIMITS.target)
    bench.thread.end(passes)
    assert (bench.holds, bench.thread.waiting) == ([], [])
    bench.later(0.9)
    assert bench.thread.waiting == []
    bench.later(0.2)
    assert bench.thread.waiting == [checkpoint], "also when nothing is written any more"


def test_a_log_that_has_become_long_is_begun_anew_on_a_slow_disk_too(bench: Bench) -> None:
    bench.write(LIMITS.target)
    size_bytes = state_log.URGENT_FACTOR * LIMITS.target
    bench.thread.end(ALL_MOVED._replace(seconds=state_log.RESTART_SECONDS_MAX + 1, size_bytes=size_bytes))
    assert bench.holds == [True]


def test_a_reader_that_comes_in_between_delays_the_restart(bench: Bench) -> None:
    bench.write(LIMITS.target)
    bench.thread.end(ALL_MOVED)
    bench.thread.end(LogRestart(False, 500_000))
    assert bench.holds == [True, False]
    bench.later(1.1)
    assert bench.thread.waiting == [checkpoint]


def test_a_long_file_is_shortened_while_nothing_is_written(bench: Bench) -> None:
    bench.write(LIMITS.target)
    for _ in range(3):
        bench.thread.end(ALL_MOVED)
        bench.thread.end(LogRestart(True, LIMITS.kept + 1))
        assert bench.thread.waiting == []
        bench.later(0.11)
        assert bench.thread.waiting == [checkpoint]
    bench.thread.end(ALL_MOVED)
    bench.thread.end(LogRestart(True, LIMITS.kept))
    bench.later(60)
    assert bench.thread.waiting == []


def test_a_log_that_is_cut_for_an_operator_keeps_what_a_new_one_begins_with(bench: Bench) -> None:
    bench.log.move_soon(cut=True)
    assert bench.log.is_moving
    bench.later(0.01)
    for size_bytes in (LIMITS.kept, state_log.LOG_SIZE_BYTES_MIN):
        bench.thread.end(ALL_MOVED)
        assert bench.thread.jobs[0][:2] == (restart_log, ("state.db", state_log.LOG_SIZE_BYTES_MIN))
        bench.thread.end(LogRestart(True, size_bytes))
        bench.later(0.11)
    assert not bench.log.is_moving
    bench.write(LIMITS.target)
    bench.thread.end(ALL_MOVED)
    assert bench.thread.jobs[0][:2] == (restart_log, ("state.db", LIMITS.kept)), "once"


@pytest.mark.parametrize("over", [0, 1])
def test_a_long_file_of_an_earlier_run_is_seen_to_at_the_start(over: int) -> None:
    bench = Bench(log_bytes=LIMITS.target + over)
    bench.log.consider()
    assert len(bench.thread.waiting) == over


# ----------------------------------------------------------------------------- views


@pytest.mark.parametrize("over", [0, 1])
def test_views_are_lost_when_the_log_is_larger_than_its_limit(
    bench: Bench, caplog: pytest.LogCaptureFixture, over: int
) -> None:
    view = View()
    bench.machine.views.opened(view)
    limit = LIMITS.pinned_max + bench.machine.database_bytes
    bench.machine.log_bytes = limit + over
    bench.write(ONE_ENTRY_BYTES)
    assert bench.machine.views.hurry
    assert len(view.reasons) == over
    if over:
        assert f"grew to {size_text(limit + 1)} meanwhile; the limit is {size_text(limit)}. Read again" in view.reasons[0]
        assert "1 large reads are ended" in caplog.text
        bench.thread.end(ALL_MOVED._replace(moved=1))
        bench.later(1.1)
        assert len(view.reasons) == 2, "it was in the middle of a read, and has not let go"


@pytest.mark.parametrize("over", [0, 1])
def test_patient_readers_hurry_half_way_to_the_limit(bench: Bench, over: int) -> None:
    bench.machine.log_bytes = (LIMITS.pinned_max + bench.machine.database_bytes) // 2 + over
    bench.write(ONE_ENTRY_BYTES)
    assert bench.machine.views.hurry is bool(over)


# ----------------------------------------------------------------------------- ends


@pytest.mark.parametrize("done", [0, 1])
def test_a_disk_that_refuses_stops_the_node(bench: Bench, done: int) -> None:
    bench.write(LIMITS.target)
    if done:
        bench.thread.end(ALL_MOVED)
    bench.thread.end(None, DataDamagedError("state.db", "page 7", "gone", "restore it"))
    assert [type(error) for error in bench.failures] == [DataDamagedError]
    assert bench.holds == [True] * done, "what is left of the state must not be written to"


def test_a_fault_without_a_name_stops_the_node_as_well(bench: Bench) -> None:
    bench.write(LIMITS.target)
    bench.thread.end(None, OSError("gone"))
    assert [type(error) for error in bench.failures] == [StorageError]


def test_nothing_is_begun_after_the_end(bench: Bench) -> None:
    bench.write(LIMITS.target)
    bench.log.close()
    bench.thread.end(ALL_MOVED)
    assert (bench.holds, bench.thread.waiting) == ([], [])


def test_the_limits_of_a_node() -> None:
    assert StateLogLimits() == StateLogLimits(2 * MIB, 16 * MIB, 32 * MIB, 256 * MIB, MIB)
    assert STATE_LOG_UNSYNCED_SIZE_BYTES_MAX == 2 * MIB
    assert (STATE_LOG_SIZE_BYTES_TARGET, STATE_LOG_SIZE_BYTES_KEPT) == (16 * MIB, 32 * MIB)
    assert STATE_LOG_PINNED_SIZE_BYTES_MAX == 256 * MIB

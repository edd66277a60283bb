"""When applied entries are committed: after some time, and once they have written enough."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from metasrv.metrics.registry import MetricsRegistry
from metasrv.model.limits import DISK_SLOW_SECONDS, STATE_UNCOMMITTED_SIZE_BYTES_MAX
from metasrv.raft.state_commits import COMMIT_SECONDS_MAX, StateCommits
from metasrv.raft.state_log import written_size_bytes
from metasrv.testing.hand_clock import HandClock


class Machine:
    def __init__(self) -> None:
        self.path = "/data/state.db"
        self.committed: Callable[[float], None]
        self.commits_later = False
        self.uncommitted = 0
        self.commits: list[int] = []
        """How many entries each commit had."""

    def commit(self) -> None:
        if self.uncommitted:
            self.commits.append(self.uncommitted)
            self.uncommitted = 0


class Bench:
    def __init__(self) -> None:
        self.machine, self.clock = Machine(), HandClock()
        self.metrics = MetricsRegistry("1.2.3", "abcdef0")
        parts: dict[str, Any] = {"machine": self.machine, "clock": self.clock, "observer": self.metrics}
        self.commits = StateCommits(**parts)

    def apply(self, size_bytes: int) -> None:
        """One entry that counts as so many bytes."""
        self.machine.uncommitted += 1
        self.commits.applied(size_bytes - written_size_bytes(0, 1), 1)
        self.commits.consider()


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_the_machine_is_told_that_somebody_commits(bench: Bench) -> None:
    assert bench.machine.commits_later


def test_a_lone_entry_is_committed_soon(bench: Bench) -> None:
    bench.apply(10_000)
    bench.clock.advance(COMMIT_SECONDS_MAX * 0.9)
    bench.commits.consider()
    assert bench.machine.commits == []
    bench.clock.advance(COMMIT_SECONDS_MAX * 0.11)
    bench.commits.consider()
    assert bench.machine.commits == [1]
    bench.clock.advance(1.0)
    bench.commits.consider()
    assert bench.machine.commits == [1], "there is nothing more"


def test_the_time_runs_from_the_first_entry_of_a_transaction(bench: Bench) -> None:
    for _ in range(3):
        bench.apply(10_000)
        bench.clock.advance(COMMIT_SECONDS_MAX * 0.4)
        bench.commits.consider()
    assert bench.machine.commits == [3]
    bench.apply(10_000)
    bench.clock.advance(COMMIT_SECONDS_MAX * 0.9)
    bench.commits.consider()
    assert bench.machine.commits == [3]


def test_entries_that_wrote_enough_are_committed_at_once(bench: Bench) -> None:
    bench.apply(STATE_UNCOMMITTED_SIZE_BYTES_MAX - 1)
    assert bench.machine.commits == []
    bench.machine.commit()
    bench.apply(STATE_UNCOMMITTED_SIZE_BYTES_MAX)
    assert bench.machine.commits == [1, 1]
    for _ in range(3):
        bench.apply(STATE_UNCOMMITTED_SIZE_BYTES_MAX // 2)
    assert bench.machine.commits == [1, 1, 2]


def test_the_size_is_counted_from_the_last_commit_whoever_made_it(bench: Bench) -> None:
    bench.apply(STATE_UNCOMMITTED_SIZE_BYTES_MAX - 10_000)
    bench.machine.commit()
    bench.apply(20_000)
    assert bench.machine.commits == [1]


def test_commits_are_measured_and_a_slow_one_names_the_file(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        bench.machine.committed(DISK_SLOW_SECONDS)
        assert caplog.messages == []
        bench.machine.committed(3.04)
    assert caplog.messages == ["a commit to /data/state.db took 3.0 s, and everything waited for it"]
    measured = bench.metrics.work.state_commit_seconds
    assert (measured.count, round(measured.sum, 3)) == (2, 4.04)
    assert bench.metrics.work.log_sync_seconds.count == 0

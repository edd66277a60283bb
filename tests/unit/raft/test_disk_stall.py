"""When a wait for the disk is a stall, and what does not look like one."""

from __future__ import annotations

import logging

import pytest

from metasrv.raft.disk_stall import DISK_STALL_MS, DiskStall, StalledPart
from metasrv.raft.observer import SilentObserver

LOOK_SECONDS = 0.025


class Stalls(SilentObserver):
    def __init__(self) -> None:
        self.parts: list[str] = []

    def disk_stalled(self, part: str) -> None:
        self.parts.append(part)


class Bench:
    def __init__(self) -> None:
        self.log: object = None
        self.state: object = None
        self.now = 100.0
        self.stalls = Stalls()
        self.disk = DiskStall(log=lambda: self.log, state=lambda: self.state, observer=self.stalls)
        self.disk.look(self.now)

    def wait(self, seconds: float, every_seconds: float = LOOK_SECONDS) -> None:
        for _ in range(round(seconds / every_seconds)):
            self.now += every_seconds
            self.disk.look(self.now)


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.mark.parametrize("part", list(StalledPart))
def test_a_wait_is_a_stall_at_the_bound(bench: Bench, part: StalledPart) -> None:
    setattr(bench, part.value, 1)
    bench.wait(DISK_STALL_MS / 1000)  # its first look only sees what is waited for
    assert bench.disk.part is None
    assert (bench.disk.seconds(), bench.disk.sentence()) == (0.0, None)
    bench.wait(2 * LOOK_SECONDS)
    assert bench.disk.part is part
    assert bench.disk.seconds() == pytest.approx(DISK_STALL_MS / 1000 + LOOK_SECONDS, abs=LOOK_SECONDS)
    assert bench.stalls.parts == [part.value]


def test_many_short_waits_are_no_stall(bench: Bench) -> None:
    for number in range(10):
        bench.log = number
        bench.wait(0.9)
    assert bench.stalls.parts == []


def test_a_stall_is_told_once_and_ends_with_the_wait(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    bench.state = 1
    bench.wait(5.0)
    bench.state = None
    bench.wait(1.0)
    assert bench.disk.part is None
    assert bench.stalls.parts == ["state"]
    first, last = (record.getMessage() for record in caplog.records)
    assert first.startswith("the disk stalls: the state has not taken committed entries for 1.0 s")
    assert last == "the disk answers again, after 5.0 s"


def test_the_log_comes_before_the_state(bench: Bench) -> None:
    bench.log, bench.state = 1, 1
    bench.wait(2.0)
    parts = [bench.disk.part]
    bench.log = None
    bench.wait(LOOK_SECONDS)
    assert [*parts, bench.disk.part] == [StalledPart.LOG, StalledPart.STATE]
    assert bench.stalls.parts == ["log", "state"]


def test_a_process_that_was_paused_does_not_look_like_a_disk_that_stalls(bench: Bench) -> None:
    bench.log = 1
    bench.wait(60.0, every_seconds=60.0)
    bench.wait(0.5)
    assert bench.disk.part is None

"""Log time never goes back and never stands still, whatever the wall clock does (docs/contract/grpc.md section d.3)."""

from __future__ import annotations

import random

from metasrv.raft.core.log_time import SLOW_SPEED, LogTime

HOUR_MS = 3_600_000


class _TwoClocks:
    """A monotonic clock, and a wall clock that a test sets."""

    def __init__(self, wall_ms: int = 1_000_000_000) -> None:
        self.now = 50.0
        self.wall = float(wall_ms)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.wall += seconds * 1000

    def monotonic(self) -> float:
        return self.now

    def wall_ms(self) -> int:
        return int(self.wall)


def test_it_is_the_wall_clock_while_that_goes_on() -> None:
    clock = _TwoClocks()
    log_time = LogTime(clock, 0)
    for seconds in (0.0, 0.001, 3.5, 86_400.0):
        clock.pass_time(seconds)
        assert log_time.now_ms() == clock.wall_ms()
    assert log_time.ahead_ms() == 0


def test_a_lease_ends_though_the_clock_is_set_back_an_hour() -> None:
    clock = _TwoClocks()
    log_time = LogTime(clock, 0)
    lease_ends_ms = log_time.now_ms() + 30_000
    clock.wall -= HOUR_MS
    clock.pass_time(29.0)
    assert log_time.now_ms() < lease_ends_ms, "half speed: no lease ends early"
    clock.pass_time(32.0)
    assert log_time.now_ms() >= lease_ends_ms, "it lives no longer than twice its time"
    assert log_time.ahead_ms() == HOUR_MS - round(61_000 * (1 - SLOW_SPEED))


def test_it_is_level_with_the_clock_again_after_twice_the_difference() -> None:
    clock = _TwoClocks()
    log_time = LogTime(clock, 0)
    ahead = log_time.now_ms() + 300_000
    log_time.saw(ahead)  # an earlier leader was 300 s ahead
    assert log_time.now_ms() == ahead
    clock.pass_time(10.0)
    assert log_time.now_ms() == ahead + 5_000, "it does not stand still for 300 s"
    clock.pass_time(590.0)
    assert log_time.now_ms() == clock.wall_ms()
    clock.pass_time(1.0)
    assert log_time.now_ms() == clock.wall_ms()


def test_a_start_goes_on_from_the_last_applied_time() -> None:
    clock = _TwoClocks()
    log_time = LogTime(clock, clock.wall_ms() + 7_000)
    assert log_time.now_ms() == clock.wall_ms() + 7_000
    clock.pass_time(20.0)
    assert log_time.now_ms() == clock.wall_ms()


def test_an_older_entry_changes_nothing() -> None:
    clock = _TwoClocks()
    log_time = LogTime(clock, 0)
    before = log_time.now_ms()
    log_time.saw(before - 5_000)
    log_time.saw(0)
    assert log_time.now_ms() == before


def test_a_follower_whose_clock_was_ahead_takes_nothing_of_it_along() -> None:
    """It applied entries and was asked for its status meanwhile, then its clock was corrected, then it was elected."""
    clock = _TwoClocks()
    log_time = LogTime(clock, 0)
    log_time.saw(clock.wall_ms())
    clock.wall += HOUR_MS
    for _ in range(10):
        clock.pass_time(1.0)
        log_time.saw(clock.wall_ms() - HOUR_MS)
        assert log_time.ahead_ms() == 0
    clock.wall -= HOUR_MS
    assert log_time.now_ms() == clock.wall_ms()


def test_many_looks_lose_no_time() -> None:
    clock = _TwoClocks()
    log_time = LogTime(clock, 0)
    start_ms = log_time.now_ms()
    clock.wall -= HOUR_MS
    for _ in range(100_000):
        clock.pass_time(0.0001)
        log_time.now_ms()
    assert abs(log_time.now_ms() - start_ms - 5_000) <= 1


def test_it_advances_at_half_speed_or_more_under_any_jumps() -> None:
    source = random.Random(7)
    clock = _TwoClocks()
    log_time = LogTime(clock, 0)
    last_ms = log_time.now_ms()
    for _ in range(5_000):
        clock.wall += source.choice((0, 0, -1, 1)) * source.choice((1, 1_000, 300_000, HOUR_MS))
        seconds = source.choice((0.0, 0.001, 0.5, 20.0))
        clock.pass_time(seconds)
        if source.random() < 0.1:
            log_time.saw(last_ms + source.choice((-10, 0, 10, 5_000)))
        now_ms = log_time.now_ms()
        assert now_ms - last_ms >= int(seconds * 1000 * SLOW_SPEED) - 1
        last_ms = now_ms

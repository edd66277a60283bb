"""Each step of the event loop is reported with the kind of work that took most of it; the tests look at slow ones."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

import pytest

from metasrv.model.limits import STEP_TIME_MS_MAX
from metasrv.model.loop_work import LoopWork
from metasrv.process import loop_steps
from metasrv.process.loop_steps import STEP_SECONDS_MAX, StepLaps, timed

LIMIT = STEP_TIME_MS_MAX / 1000
PAST = LIMIT + 0.001

T = TypeVar("T")


class Slow:
    """Hears of steps; `pass_time` is a hand on the clock that the module reads."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.heard: list[tuple[LoopWork, float]] = []
        self.short: list[tuple[LoopWork, float]] = []
        monkeypatch.setattr(loop_steps, "perf_counter", lambda: self.now)

    def __call__(self, work: LoopWork, seconds: float) -> None:
        (self.heard if seconds > STEP_SECONDS_MAX else self.short).append((work, round(seconds, 6)))

    def pass_time(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Slow:
    return Slow(monkeypatch)


def step(slow: Slow, laps: StepLaps, *parts: tuple[LoopWork, float]) -> None:
    laps.begin()
    for work, seconds in parts:
        slow.pass_time(seconds)
        laps.lap(work)
    laps.end()


def test_a_step_at_the_limit_is_not_slow_and_one_past_it_is(slow: Slow) -> None:
    laps = StepLaps(slow)
    step(slow, laps, (LoopWork.RAFT_SEND, LIMIT))
    assert (slow.heard, slow.short) == ([], [(LoopWork.RAFT_SEND, LIMIT)])
    slow.now = 0.0
    step(slow, laps, (LoopWork.RAFT_SEND, PAST))
    assert slow.heard == [(LoopWork.RAFT_SEND, PAST)]


def test_a_slow_step_is_counted_once_with_its_longest_part(slow: Slow) -> None:
    laps = StepLaps(slow)
    step(slow, laps, (LoopWork.RAFT_MESSAGES, 0.002), (LoopWork.RAFT_APPLY, 0.003), (LoopWork.RAFT_SEND, 0.001))
    step(slow, laps, (LoopWork.RAFT_TICK, 0.0001), (LoopWork.RAFT_SEND, 0.004))
    assert slow.heard == [(LoopWork.RAFT_APPLY, 0.006)]


async def test_what_a_coroutine_waits_for_does_not_count(slow: Slow) -> None:
    gate: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def work() -> str:
        slow.pass_time(PAST)
        said = await gate
        slow.pass_time(LIMIT / 2)
        return said

    task = asyncio.ensure_future(_awaited(timed(LoopWork.GRPC_CALL, slow, work())))
    await asyncio.sleep(0)
    assert slow.heard == [(LoopWork.GRPC_CALL, PAST)]
    slow.pass_time(3600)
    gate.set_result("over")
    assert await task == "over"
    assert slow.heard == [(LoopWork.GRPC_CALL, PAST)]


async def test_a_coroutine_that_fails_or_is_cancelled_is_timed_too(slow: Slow) -> None:
    ended = []

    async def fails() -> None:
        slow.pass_time(PAST)
        raise ValueError("as it would without the clock")

    async def waits() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            slow.pass_time(PAST)
            ended.append("cancelled")
            raise

    with pytest.raises(ValueError, match="as it would"):
        await timed(LoopWork.ADMIN_REQUEST, slow, fails())
    task = asyncio.ensure_future(_awaited(timed(LoopWork.PEER_REQUEST, slow, waits())))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == ["cancelled"]
    assert slow.heard == [(LoopWork.ADMIN_REQUEST, PAST), (LoopWork.PEER_REQUEST, PAST)]


async def test_an_error_is_caught_inside_as_without_the_clock(slow: Slow) -> None:
    failing: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def work() -> str:
        try:
            await failing
        except ValueError:
            await asyncio.sleep(0)
            return "caught"
        return "missed"

    task = asyncio.ensure_future(_awaited(timed(LoopWork.GRPC_CALL, slow, work())))
    await asyncio.sleep(0)
    failing.set_exception(ValueError())
    assert await task == "caught"
    assert slow.heard == []


async def _awaited(measured: Awaitable[T]) -> T:
    return await measured

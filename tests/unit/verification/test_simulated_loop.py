"""The event loop of a simulated process: how it dies, and the work of helper threads."""

from __future__ import annotations

import asyncio
import gc
import warnings

import pytest

from verification.simulation.loop import HELPER_SECONDS, SimulatedLoop, forget_running_loop
from verification.simulation.scheduler import Scheduler


def test_a_task_that_had_not_begun_dies_without_a_warning() -> None:
    loop = SimulatedLoop(Scheduler(), pytest.fail)

    async def work() -> None:
        pytest.fail("the process is dead")

    task = loop.enter(lambda: loop.create_task(work()))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loop.kill()
        del task
        gc.collect()
    assert [str(warning.message) for warning in caught] == []
    forget_running_loop()


def test_a_helper_thread_does_its_work_later_in_one_piece_and_hands_over_errors() -> None:
    scheduler = Scheduler()
    loop = SimulatedLoop(scheduler, pytest.fail)
    seen: list[object] = []

    async def work() -> None:
        started = scheduler.now
        seen.append(await asyncio.to_thread(lambda: "done"))
        seen.append(scheduler.now - started == HELPER_SECONDS)
        try:
            await asyncio.to_thread(int, "no number")
        except ValueError:
            seen.append("refused")

    task = loop.enter(lambda: loop.create_task(work()))
    assert scheduler.run(scheduler.now + 1.0, task.done)
    assert seen == ["done", True, "refused"]
    forget_running_loop()

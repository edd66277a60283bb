"""The event loop of a simulated process: how it dies."""

from __future__ import annotations

import gc
import warnings

import pytest

from verification.simulation.loop import SimulatedLoop, forget_running_loop
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

"""What holds for every unit test: no socket, no sleep, no process, and an event loop that never waits for a timer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping

import pytest

from tests.support.unit_guard import UnitGuard
from tests.support.virtual_time import RealTimeLoop, VirtualTimeLoop


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop of a unit test: on virtual time if it is marked so, otherwise one that remembers whether it slept."""
    del config
    if item.get_closest_marker("virtual_time") is not None:
        return {"virtual": VirtualTimeLoop}
    return {"real": RealTimeLoop}


@pytest.fixture(autouse=True)
def only_computes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        guard = UnitGuard(patch, may_start_programs=request.node.get_closest_marker("program") is not None)
        RealTimeLoop.slept_seconds = 0.0
        yield
    guard.fail_if_seen()
    slept = RealTimeLoop.slept_seconds
    assert slept == 0.0, (
        f"the event loop slept {slept:.3f} s until a timer: mark the test `virtual_time`, or wait for an event instead"
    )

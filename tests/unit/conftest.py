"""What holds for every unit test: no socket, no sleep, no process, and an event loop that never waits for a timer.

Files are in memory where the machine has a place for that: many of these tests sync files, none of them tests a disk.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path

import pytest

from metasrv.model.limits import MIB
from tests.support.unit_guard import UnitGuard, names_left
from tests.support.virtual_time import RealTimeLoop, VirtualTimeLoop

MEMORY = Path("/dev/shm")
MEMORY_SIZE_BYTES_MIN = 512 * MIB


def _memory_directory() -> str | None:
    """Where files are kept in memory; None where there is no room for them, as in most containers."""
    if not os.access(MEMORY, os.W_OK) or shutil.disk_usage(MEMORY).free < MEMORY_SIZE_BYTES_MIN:
        return None
    return str(MEMORY)


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop of a unit test: on virtual time if it is marked so, otherwise one that remembers whether it slept."""
    del config
    if item.get_closest_marker("virtual_time") is not None:
        return {"virtual": VirtualTimeLoop}
    return {"real": RealTimeLoop}


@pytest.fixture(autouse=True)
def only_computes(request: pytest.FixtureRequest) -> Iterator[None]:
    # Not on the fixture `monkeypatch`: that one is undone after the guard, and would put it back for later tests.
    with pytest.MonkeyPatch.context() as patch:
        if (memory := _memory_directory()) is not None:
            patch.setattr(tempfile, "tempdir", memory)
        guard = UnitGuard(patch, may_start_programs=request.node.get_closest_marker("program") is not None)
        RealTimeLoop.slept_seconds = 0.0
        yield
    guard.fail_if_seen()
    slept = RealTimeLoop.slept_seconds
    assert slept == 0.0, (
        f"the event loop slept {slept:.3f} s until a timer: mark the test `virtual_time`, or wait for an event instead"
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None]:
    """Whatever a test patched, nothing of the guard is left for the tests of other folders in this process."""
    del item
    yield
    left = names_left()
    assert not left, f"the guard of the unit tests is still in place of {', '.join(left)}"


@pytest.fixture
def tmp_path(only_computes: None) -> Iterator[Path]:
    """A directory of the test's own, removed behind it."""
    with tempfile.TemporaryDirectory(prefix="metasrv-unit-", ignore_cleanup_errors=True) as directory:
        yield Path(directory)

"""What is left of a heap profile when it has ended: no hook on calls, and the collector as it was."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from metasrv.profiling import memory
from metasrv.profiling.profile import ProfilingError


def hook(_frame: Any, _event: str, _argument: Any) -> None:
    """A hook on calls."""


class LeavingTracker:
    """As memray's, when it leaves its hook on the thread of the event loop."""

    def __init__(self) -> None:
        self.collecting: list[bool] = []

    def __exit__(self, *_error: object) -> None:
        self.collecting.append(gc.isenabled())


@pytest.fixture
def no_hook() -> Iterator[None]:
    before = sys.getprofile()
    yield
    sys.setprofile(before)
    gc.enable()


@pytest.mark.usefixtures("no_hook")
@pytest.mark.parametrize("crashes", [True, False])
async def test_no_hook_is_left_and_garbage_is_collected_again(monkeypatch: pytest.MonkeyPatch, crashes: bool) -> None:
    tracker = LeavingTracker()
    monkeypatch.setattr(memory, "COLLECTOR_CRASHES", crashes)
    monkeypatch.setattr(memory, "_start", lambda *_: tracker)
    watching = asyncio.ensure_future(memory._watch("capture", 0, False))
    await asyncio.sleep(0)
    sys.setprofile(hook)
    await watching
    assert sys.getprofile() is None
    assert tracker.collecting == [not crashes], "garbage is collected beside the hook only where that is safe"
    await asyncio.sleep(0)
    assert gc.isenabled()


@pytest.mark.usefixtures("no_hook")
async def test_garbage_is_collected_again_after_a_profile_that_could_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_arguments: object) -> None:
        raise ProfilingError("memray cannot write its capture")

    monkeypatch.setattr(memory, "COLLECTOR_CRASHES", True)
    monkeypatch.setattr(memory, "_start", fails)
    with pytest.raises(ProfilingError):
        await memory._watch("capture", 0, False)
    await asyncio.sleep(0)
    assert gc.isenabled()


@pytest.mark.usefixtures("no_hook")
async def test_a_collector_that_was_off_stays_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "COLLECTOR_CRASHES", True)
    monkeypatch.setattr(memory, "_start", lambda *_: LeavingTracker())
    gc.disable()
    await memory._watch("capture", 0, False)
    await asyncio.sleep(0)
    assert not gc.isenabled()

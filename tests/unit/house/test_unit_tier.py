"""The guard of the unit tests notices what it forbids, and the loop on virtual time does not wait."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest

from tests.support.paths import TESTS
from tests.support.unit_guard import PROCESS_FUNCTIONS, SOCKET_METHODS, UnitGuard, names_left
from tests.support.virtual_time import RealTimeLoop, VirtualTimeLoop


def _bind() -> None:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))


def _connect() -> None:
    with socket.socket() as opened:
        opened.connect(("127.0.0.1", 1))


async def _serve() -> None:
    await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)


FORBIDDEN: dict[str, Callable[[], object]] = {
    "socket.bind": _bind,
    "socket.connect": _connect,
    "socket.getaddrinfo": lambda: socket.create_connection(("localhost", 1)),
    "socket.bind by asyncio": lambda: asyncio.run(_serve()),
    "time.sleep": lambda: time.sleep(0.001),
    "subprocess": lambda: subprocess.run([sys.executable, "-V"], check=True),
    "os.fork": lambda: os.fork(),  # looked up when it is called, as everybody does
}


@pytest.mark.parametrize("name", FORBIDDEN)
def test_the_guard_refuses_with_a_sentence(name: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        guard = UnitGuard(patch, may_start_programs=False)
        with pytest.raises(pytest.fail.Exception, match="a unit test"):
            FORBIDDEN[name]()
        assert len(guard.seen) == 1
        assert guard.seen[0].startswith(name.partition(" ")[0])
        with pytest.raises(pytest.fail.Exception, match="a unit test"):
            guard.fail_if_seen()


def test_a_test_that_patches_what_the_guard_replaced_leaves_no_guard_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is seen after its end is checked for every unit test; the fixture undoes this patch then."""
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)
    assert "sleep" not in names_left()


def test_the_names_that_a_guard_replaces_are_seen() -> None:
    with pytest.MonkeyPatch.context() as patch:
        UnitGuard(patch, may_start_programs=False)
        assert set(names_left()) == {*SOCKET_METHODS, "getaddrinfo", "sleep", "__init__", *PROCESS_FUNCTIONS}


def test_a_pause_for_other_threads_is_no_sleep() -> None:
    with pytest.MonkeyPatch.context() as patch:
        guard = UnitGuard(patch, may_start_programs=False)
        time.sleep(0)
        assert guard.seen == []


def test_a_loop_that_slept_until_a_timer_is_noticed() -> None:
    with asyncio.Runner(loop_factory=RealTimeLoop) as runner:
        runner.run(asyncio.sleep(0))
        assert RealTimeLoop.slept_seconds == 0.0
        runner.run(asyncio.sleep(0.005))
        assert RealTimeLoop.slept_seconds > 0.004
    RealTimeLoop.slept_seconds = 0.0


def test_an_answer_of_another_thread_may_be_waited_for() -> None:
    async def ask() -> str:
        async with asyncio.timeout(60):
            return await asyncio.to_thread(lambda: "done")

    with asyncio.Runner(loop_factory=RealTimeLoop) as runner:
        assert runner.run(ask()) == "done"
    assert RealTimeLoop.slept_seconds == 0.0


@pytest.mark.virtual_time
async def test_virtual_time_jumps_from_timer_to_timer_in_order() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    woken: list[str] = []

    async def wake(name: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        woken.append(f"{name} at {loop.time():g}")

    began = time.monotonic()
    await asyncio.gather(wake("last", 7200.0), wake("first", 0.5), wake("second", 3600.0))
    assert woken == ["first at 0.5", "second at 3600", "last at 7200"]
    assert time.monotonic() - began < 60


def test_the_loop_on_virtual_time_ends_with_its_threads() -> None:
    """Python 3.13 gives them 300 seconds, which the loop would jump over."""
    released = threading.Event()

    async def keep_a_thread_busy() -> None:
        asyncio.get_running_loop().run_in_executor(None, released.wait, 60)

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(keep_a_thread_busy())
        threading.Timer(0.05, released.set).start()
    assert released.is_set()


def test_unit_tests_read_no_clock_of_the_machine() -> None:
    """What a step does may depend on how long it takes: on a busy machine such a test fails now and then."""
    modules = [*(TESTS / "unit").rglob("*.py"), *(TESTS / "support").glob("raft_*.py")]
    name = "System" + "Clock()"
    assert [path.name for path in modules if name in path.read_text(encoding="utf-8")] == []

"""The loop of the blocking client: results, errors, interrupts and its end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import pytest

from metasrv.client.boot_clock import boot_seconds
from metasrv.client.loop_thread import LoopThread


@pytest.fixture
def loop() -> Iterator[LoopThread]:
    thread = LoopThread()
    yield thread
    thread.close()
    thread.close()
    assert thread.is_closed


async def fail() -> None:
    raise ZeroDivisionError


def test_results_and_errors_come_back_to_the_caller(loop: LoopThread) -> None:
    assert loop.run(asyncio.sleep(0, "result")) == "result"
    with pytest.raises(ZeroDivisionError):
        loop.run(fail())


def test_any_thread_may_call(loop: LoopThread) -> None:
    results: list[int] = []
    threads = [threading.Thread(target=lambda: results.append(loop.run(asyncio.sleep(0, 1)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [1] * 4


def test_an_interrupt_cancels_the_call(loop: LoopThread, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Ctrl-C does in the thread that waits."""
    ended = threading.Event()

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    schedule: Any = asyncio.run_coroutine_threadsafe

    def interrupted(coroutine: object, on: asyncio.AbstractEventLoop) -> Any:
        future = schedule(coroutine, on)

        def interrupt() -> object:
            monkeypatch.undo()
            schedule(asyncio.sleep(0), on).result()  # the call has begun
            raise KeyboardInterrupt

        future.result = interrupt
        return future

    monkeypatch.setattr(asyncio, "run_coroutine_threadsafe", interrupted)
    with pytest.raises(KeyboardInterrupt):
        loop.run(wait())
    assert ended.wait(10)


def test_a_generator_ends_with_its_iterator(loop: LoopThread) -> None:
    ended: list[bool] = []

    async def numbers() -> AsyncGenerator[int, None]:
        try:
            for number in range(3):
                yield number
        finally:
            ended.append(True)

    assert list(loop.iterate(numbers())) == [0, 1, 2]
    iterator = loop.iterate(numbers())
    assert next(iterator) == 0
    del iterator
    assert ended == [True, True]


async def test_a_running_loop_is_not_blocked(loop: LoopThread) -> None:
    with pytest.raises(RuntimeError, match="AsyncClient"):
        loop.run(asyncio.sleep(0))


def test_the_end_ends_what_is_left() -> None:
    loop = LoopThread()
    cancelled: list[bool] = []

    async def stay() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    async def start() -> asyncio.Task[None]:
        return asyncio.create_task(stay())

    loop.run(start())
    loop.close()
    assert cancelled == [True]
    with pytest.raises(RuntimeError, match="closed"):
        loop.run(asyncio.sleep(0))


def test_the_clock_of_sessions_goes_on() -> None:
    first = boot_seconds()
    assert first <= boot_seconds() < first + 60

"""The helper thread and its inline twin: order, results, faults and the end."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable

import pytest

from metasrv.model.errors import InvariantError, StorageError
from metasrv.raft.log.storage_thread import InlineStorage, Storage, StorageThread


class Results:
    """Collects what `on_done` is told, and on which thread."""

    def __init__(self, expected: int) -> None:
        self.items: list[tuple[object, BaseException | None]] = []
        self.threads: set[int] = set()
        self._expected = expected
        self._complete = asyncio.Event()

    def on_done(self, result: object, error: BaseException | None) -> None:
        self.items.append((result, error))
        self.threads.add(threading.get_ident())
        if len(self.items) == self._expected:
            self._complete.set()

    async def wait_complete(self) -> None:
        await asyncio.wait_for(self._complete.wait(), 10)


def fail(text: str) -> None:
    raise StorageError(text)


async def test_results_come_back_in_order_on_the_loop() -> None:
    storage = StorageThread("test")
    results = Results(500)
    workers: set[int] = set()

    def work(number: int) -> int:
        workers.add(threading.get_ident())
        return number * 2

    for number in range(500):
        storage.submit(work, number, on_done=results.on_done)
    await results.wait_complete()
    assert [result for result, _ in results.items] == [number * 2 for number in range(500)]
    assert results.threads == {threading.get_ident()}
    assert len(workers) == 1
    assert workers != results.threads
    await storage.stop()


async def test_fault_is_handed_over_and_the_thread_goes_on() -> None:
    storage = StorageThread("test")
    results = Results(2)
    storage.submit(fail, "disk full", on_done=results.on_done)
    storage.submit(len, "abc", on_done=results.on_done)
    await results.wait_complete()
    (nothing, error), (length, no_error) = results.items
    assert nothing is None
    assert isinstance(error, StorageError)
    assert (length, no_error) == (3, None)
    await storage.stop()


async def test_run_awaits_the_result_or_raises_the_fault() -> None:
    storage = StorageThread("test")
    assert await storage.run(max, 3, 7) == 7
    with pytest.raises(StorageError, match="read-only"):
        await storage.run(fail, "read-only")
    await storage.stop()


async def test_caller_that_gave_up_does_not_disturb_the_next() -> None:
    storage = StorageThread("test")
    gate = threading.Event()
    waiting = asyncio.ensure_future(storage.run(gate.wait, 10))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    gate.set()
    assert await storage.run(len, "ab") == 2
    await storage.stop()


async def test_stop_finishes_what_was_submitted_and_takes_nothing_more() -> None:
    storage = StorageThread("test")
    results = Results(100)
    for number in range(100):
        storage.submit(abs, -number, on_done=results.on_done)
    await storage.stop()
    assert len(results.items) == 100
    with pytest.raises(InvariantError, match="after its end"):
        storage.submit(abs, 1, on_done=results.on_done)
    await storage.stop()


async def test_after_each_runs_in_the_thread_once_the_result_was_handed_over() -> None:
    seen: list[int] = []
    gate = threading.Event()

    def after_each() -> None:
        gate.wait(10)  # the result must not wait for this
        seen.append(threading.get_ident())

    storage = StorageThread("test", after_each=after_each)
    assert await storage.run(len, "abc") == 3
    assert seen == []
    gate.set()
    await storage.run(len, "abc")
    await storage.stop()
    assert len(seen) == 2
    assert threading.get_ident() not in seen


async def test_an_idle_thread_does_what_it_is_given_until_that_is_done_and_again_after_a_job() -> None:
    left = [3]
    done = asyncio.Event()
    loop = asyncio.get_running_loop()
    threads: set[int] = set()

    def when_idle() -> bool:
        threads.add(threading.get_ident())
        left[0] -= 1
        if left[0] == 0:
            loop.call_soon_threadsafe(done.set)
        return left[0] > 0

    storage = StorageThread("test", when_idle=when_idle)
    await storage.run(len, "abc")
    async with asyncio.timeout(10):
        await done.wait()
    done.clear()
    left[0] = 1
    await storage.run(len, "abc")
    async with asyncio.timeout(10):
        await done.wait()
    await storage.stop()
    assert left == [0], "once more after the job, and no more"
    assert threading.get_ident() not in threads


async def test_a_fault_of_idle_work_is_logged_and_the_thread_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    failed = asyncio.Event()
    loop = asyncio.get_running_loop()

    def when_idle() -> bool:
        loop.call_soon_threadsafe(failed.set)
        raise StorageError("no space")

    storage = StorageThread("test", when_idle=when_idle)
    with caplog.at_level(logging.ERROR):
        async with asyncio.timeout(10):
            await failed.wait()
        assert await storage.run(len, "abc") == 3
        await storage.stop()
    assert "background work of thread test failed" in caplog.text


async def test_fault_of_after_each_is_logged_and_the_thread_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    storage = StorageThread("test", after_each=lambda: fail("no space"))
    with caplog.at_level(logging.ERROR):
        assert await storage.run(len, "abc") == 3
        assert await storage.run(len, "abcd") == 4
        await storage.stop()
    assert "background work of thread test failed" in caplog.text
    assert "no space" in caplog.text


def test_result_after_the_end_of_the_loop_is_reported_not_raised(caplog: pytest.LogCaptureFixture) -> None:
    gate = threading.Event()
    holder: list[StorageThread] = []

    async def leave_without_stopping() -> None:
        storage = StorageThread("test")
        storage.submit(gate.wait, 10, on_done=lambda result, error: None)
        holder.append(storage)

    asyncio.run(leave_without_stopping())
    with caplog.at_level(logging.WARNING):
        gate.set()
        holder[0]._queue.put(None)
        holder[0]._thread.join(10)
    assert not holder[0]._thread.is_alive()
    assert "after the end of the event loop" in caplog.text


async def test_inline_twin_runs_at_once_and_answers_through_the_scheduler() -> None:
    scheduled: list[Callable[[], None]] = []
    after: list[str] = []
    storage: Storage = InlineStorage(scheduled.append, after_each=lambda: after.append("each"))
    results = Results(2)
    ran: list[int] = []

    def work(number: int) -> int:
        ran.append(number)
        return number + 1

    storage.submit(work, 1, on_done=results.on_done)
    storage.submit(fail, "full", on_done=results.on_done)
    assert ran == [1]
    assert after == ["each", "each"]
    assert results.items == []
    for callback in reversed(scheduled):
        callback()
    assert isinstance(results.items[0][1], StorageError)
    assert results.items[1] == (2, None)
    assert await storage.run(len, "abc") == 3
    await storage.stop()
    with pytest.raises(InvariantError):
        storage.submit(work, 2, on_done=results.on_done)
    with pytest.raises(InvariantError):
        await storage.run(len, "")

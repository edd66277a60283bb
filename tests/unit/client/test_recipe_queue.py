"""The queue on a cluster in memory: order, one consumer for each item, and items that come back."""

from __future__ import annotations

import asyncio

import pytest

from metasrv.client.loss import SessionLostError
from metasrv.client.recipes.queue import LOOK_AHEAD, AsyncQueue
from metasrv.client.recipes.waiting import FencedError
from metasrv.client.sessions import AsyncSession
from metasrv.client.transaction import Transaction
from tests.support.memory_cluster import Fate, MemoryCluster, RefusedByTestError, any_fate
from tests.unit.client.test_recipes import TTL_MS, open_session

pytestmark = pytest.mark.virtual_time


async def test_items_come_by_priority_and_age() -> None:
    cluster = MemoryCluster()
    async with open_session(cluster) as (_, session):
        queue = AsyncQueue(session, "q")
        for value, priority in ((b"c", 100), (b"d", 100), (b"e", 200), (b"a", 0), (b"b", 0)):
            await queue.put(value, priority=priority)
        assert await queue.size() == 5
        taken = [await queue.take() for _ in range(5)]
        assert [item.value for item in taken] == [b"a", b"b", b"c", b"d", b"e"]
        assert [item.priority for item in taken] == [0, 0, 100, 100, 200]
        with pytest.raises(TimeoutError):
            await queue.take(timeout_ms=100)
        for item in taken:
            await item.done()
        assert await queue.size() == 0
        assert [key for key in cluster.present("q/") if key != "q/queue-last"] == []
        with pytest.raises(ValueError, match="between 0"):
            await queue.put(b"", priority=-1)


async def test_an_item_given_back_is_taken_again_and_a_waiting_consumer_wakes() -> None:
    cluster = MemoryCluster()
    async with open_session(cluster) as (_, one), open_session(cluster) as (_, two):
        waiting = asyncio.create_task(AsyncQueue(two, "q").take())
        await asyncio.sleep(1)
        queue = AsyncQueue(one, "q")
        await queue.put(b"a")
        item = await asyncio.wait_for(waiting, 0.2)
        again = asyncio.create_task(queue.take())
        await asyncio.sleep(1)
        assert not again.done()
        with pytest.raises(ZeroDivisionError):
            async with item:
                raise ZeroDivisionError
        second = await asyncio.wait_for(again, 0.2)
        assert second.token.seq > item.token.seq
        with pytest.raises(FencedError):
            await item.done()
        await item.release()  # not his any more
        async with second:
            assert second.value == b"a"
        assert await queue.size() == 0


async def test_a_consumer_who_is_gone_loses_the_item_and_cannot_finish_it() -> None:
    cluster = MemoryCluster()
    async with open_session(cluster) as (gone, one), open_session(cluster) as (client, two):
        await AsyncQueue(one, "q").put(b"a")
        item = await AsyncQueue(one, "q").take()
        gone.cut_off = True
        other = await AsyncQueue(two, "q").take(timeout_ms=2 * TTL_MS)
        assert one.lost.is_set()
        gone.cut_off = False
        with pytest.raises(SessionLostError):
            await item.done(Transaction().put("result", b"late"))
        fenced = Transaction().fenced_by(item.token).put("result", b"late")
        assert not (await gone.transaction(fenced)).success
        await other.done(Transaction().put("result", b"a"))
        assert cluster.model.records["result"].data == b"a"
        assert await client.get(item.token.key) is None
        with pytest.raises(ValueError, match="no conditions"):
            await other.done(Transaction().when_absent("x").put("x", b""))


async def test_an_item_of_one_who_is_gone_goes_to_one_of_those_who_ask_at_once() -> None:
    cluster = MemoryCluster()
    async with (
        open_session(cluster) as (gone, one),
        open_session(cluster) as (_, two),
        open_session(cluster) as (_, three),
    ):
        await AsyncQueue(one, "q").put(b"a")
        await AsyncQueue(one, "q").take()
        gone.cut_off = True
        asking = [AsyncQueue(session, "q").take(timeout_ms=3 * TTL_MS) for session in (two, three)]
        results = await asyncio.gather(*asking, return_exceptions=True)
        assert sorted(isinstance(result, TimeoutError) for result in results) == [False, True]
        gone.cut_off = False


async def test_a_consumer_sees_past_items_that_others_have() -> None:
    cluster = MemoryCluster()
    async with open_session(cluster) as (_, session):
        queue = AsyncQueue(session, "q")
        for number in range(3 * LOOK_AHEAD):
            await queue.put(b"%d" % number)
        values = [(await queue.take(timeout_ms=1_000)).value for _ in range(3 * LOOK_AHEAD)]
        assert values == [b"%d" % number for number in range(3 * LOOK_AHEAD)]


@pytest.mark.parametrize("fate", [Fate.DONE, Fate.LATE, Fate.ANSWER_LOST])
async def test_a_consumer_cancelled_at_any_moment_leaves_the_item_to_others(fate: Fate) -> None:
    for steps in range(1, 14):
        await assert_the_item_is_left(steps, fate)


async def assert_the_item_is_left(steps: int, fate: Fate) -> None:
    cluster = MemoryCluster()
    async with open_session(cluster) as (client, session):
        queue = AsyncQueue(session, "q")
        await queue.put(b"a")
        client.fate = lambda request: fate if any("/claims/" in each.put.key for each in request.if_then) else Fate.DONE
        task = asyncio.create_task(queue.take())
        await asyncio.sleep(steps * 0.0005)
        task.cancel()
        (result,) = await asyncio.gather(task, return_exceptions=True)
        client.fate = lambda _: Fate.DONE
        if isinstance(result, BaseException):
            await asyncio.sleep(30)
            assert (await queue.take(timeout_ms=1_000)).value == b"a"


@pytest.mark.parametrize("seed", range(4))
async def test_every_item_is_finished_once_whatever_becomes_of_writes(seed: int) -> None:
    cluster = MemoryCluster()
    count = 12

    async def produce() -> None:
        async with open_session(cluster, seed) as (client, session):
            queue = AsyncQueue(session, "q")
            client.fate = any_fate(client, 0.3)
            for number in range(count):
                while True:
                    try:
                        await queue.put(b"%d" % number)
                    except RefusedByTestError:
                        continue
                    break
            client.fate = lambda _: Fate.DONE

    async def consume(number: int) -> None:
        client = cluster.client(seed * 100 + number)
        while True:
            session = AsyncSession(client, ttl_ms=1_500, clock=asyncio.get_running_loop().time)
            await session.open()
            client.fate = any_fate(client, 0.2)
            try:
                item = await AsyncQueue(session, "q").take(timeout_ms=8_000)
                if client.random.random() < 0.2:
                    client.cut_off = True
                    await asyncio.sleep(4)
                    client.cut_off = False
                await item.done(Transaction().fetch_increase(f"done/{item.value.decode()}", 1))
            except TimeoutError:
                return
            except (SessionLostError, FencedError, RefusedByTestError):
                continue
            finally:
                client.fate = lambda _: Fate.DONE
                await session.close()

    await asyncio.gather(produce(), *map(consume, range(3)))
    done = {key: record.data for key, record in cluster.model.records.items() if key.startswith("done/")}
    assert done == {f"done/{number}": b"1" for number in range(count)}

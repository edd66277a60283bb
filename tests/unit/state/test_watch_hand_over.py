"""Changes that a waiting reader takes in one call: in order, each once, and no other watcher suffers from a reader."""

from __future__ import annotations

import asyncio
import random
from functools import partial

import pytest

from metasrv.model.limits import WATCH_QUEUE_EVENTS_MAX
from metasrv.model.types import SeqV
from metasrv.state import watch
from metasrv.state.watch import Watcher, WatcherOverflow, WatchFilter, WatchHub, WatchItem


def hub() -> WatchHub:
    return WatchHub(lambda start, end, after, limit: ([], True))


def put(watches: WatchHub, number: int, key: str = "k") -> None:
    watches.publish([(key, None, SeqV(number, b"v", None))])


class Reader:
    """Takes changes while it may, and reads the others."""

    def __init__(self, watcher: Watcher) -> None:
        self.watcher = watcher
        self.takes = True
        self.broken = False
        self.offered = 0
        self.taken: list[int] = []
        self.batches: list[list[int]] = []
        self.all: list[int] = []
        self.task = asyncio.create_task(self._read())

    def take(self, item: WatchItem) -> bool:
        self.offered += 1
        if self.broken:
            raise ValueError("a broken reader")
        if self.takes:
            self.taken.append(seq_of(item))
            self.all.append(seq_of(item))
        return self.takes

    async def _read(self) -> None:
        while items := await self.watcher.next_batch(self.take):
            self.batches.append([seq_of(item) for item in items])
            self.all += self.batches[-1]

    async def end(self) -> None:
        self.watcher.close()
        await self.task


def taken_by(items: list[WatchItem], item: WatchItem) -> bool:
    items.append(item)
    return True


def seq_of(item: WatchItem) -> int:
    assert item.current is not None
    return item.current.seq


async def turns(count: int = 4) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_waiting_reader_takes_a_change_and_goes_on_waiting() -> None:
    watches = hub()
    reader = Reader(watches.subscribe("k"))
    await turns()
    waits_for = reader.watcher._wakeup
    for number in range(3):
        put(watches, number)
        await turns()
    assert (reader.taken, reader.batches) == ([0, 1, 2], [])
    assert reader.watcher._wakeup is waits_for, "its task did not run"
    await reader.end()


async def test_what_is_not_taken_is_read() -> None:
    watches = hub()
    reader = Reader(watches.subscribe("k"))
    reader.takes = False
    await turns()
    put(watches, 1)
    await turns()
    reader.takes = True
    put(watches, 2)
    await turns()
    assert (reader.batches, reader.taken) == ([[1]], [2])
    await reader.end()


async def test_changes_of_one_turn_are_read_together() -> None:
    watches = hub()
    reader = Reader(watches.subscribe("k"))
    await turns()
    put(watches, 1)
    put(watches, 2)
    await turns()
    assert (reader.batches, reader.offered) == ([[1, 2]], 0)
    await reader.end()


async def test_a_change_that_the_filter_hides_is_not_offered() -> None:
    watches = hub()
    reader = Reader(watches.subscribe("k", None, WatchFilter.DELETE))
    await turns()
    put(watches, 1)
    await turns()
    assert reader.offered == 0
    assert not watches._handed_over
    await reader.end()


async def test_all_watchers_of_a_change_are_given_one_item() -> None:
    watches = hub()
    items: list[WatchItem] = []
    watchers = [watches.subscribe("k"), watches.subscribe("a", "z"), watches.subscribe("k")]
    tasks = [asyncio.create_task(one.next_batch(partial(taken_by, items))) for one in watchers]
    await turns()
    put(watches, 1)
    await turns()
    assert len(items) == 3
    assert len({id(item) for item in items}) == 1
    for one in watchers:
        one.close()
    await asyncio.gather(*tasks)


async def test_a_reader_that_fails_ends_alone() -> None:
    watches = hub()
    readers = [Reader(watches.subscribe("k")) for _ in range(3)]
    readers[0].broken = True
    await turns()
    put(watches, 1)
    await turns()
    assert [reader.taken for reader in readers] == [[], [1], [1]]
    with pytest.raises(ValueError, match="a broken reader"):
        await readers[0].task
    for reader in readers[1:]:
        await reader.end()


async def test_a_reader_that_is_being_cancelled_is_offered_nothing() -> None:
    """Its user may no longer read the key."""
    watches = hub()
    reader = Reader(watches.subscribe("k"))
    await turns()
    put(watches, 1)
    reader.task.cancel()
    put(watches, 2)
    await turns()
    assert reader.offered == 0
    reader.watcher.close()
    assert watches.count == 0


async def test_the_loop_turns_between_many_watchers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "HANDED_OVER_AT_ONCE", 10)
    watches = hub()
    readers = [Reader(watches.subscribe("k")) for _ in range(25)]
    await turns()
    put(watches, 1)
    told: list[int] = []
    for _ in range(4):
        told.append(sum(bool(reader.taken) for reader in readers))
        await asyncio.sleep(0)
    assert told == [0, 10, 20, 25]
    for reader in readers:
        await reader.end()


async def test_a_reader_that_takes_nothing_overflows_as_ever() -> None:
    watches = hub()
    reader = Reader(watches.subscribe("k"))
    reader.takes = False
    await turns()
    for number in range(WATCH_QUEUE_EVENTS_MAX + 1):
        put(watches, number)
    await turns()
    with pytest.raises(WatcherOverflow):
        await reader.task


@pytest.mark.parametrize("seed", range(8))
async def test_every_change_comes_once_and_in_order(seed: int) -> None:
    chosen = random.Random(seed)
    watches = hub()
    ranges = [("k", None), ("a", "z"), ("k", None), ("k", "l")]
    readers = [Reader(watches.subscribe(*chosen.choice(ranges))) for _ in range(8)]
    expected = []
    for number in range(600):
        for reader in readers:
            reader.takes = chosen.random() < 0.7
        if chosen.random() < 0.6:
            put(watches, number)
            expected.append(number)
        if chosen.random() < 0.6:
            await asyncio.sleep(0)
    await turns()
    for reader in readers:
        assert reader.all == expected
        assert reader.taken, "some were taken"
        assert reader.batches, "some were read"
        assert reader.watcher._queue_size_bytes == 0
        await reader.end()

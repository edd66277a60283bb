"""Watch streams: ranges, filters, order, the atomic first flush, slow readers, ends."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from metasrv.model import commands as c
from metasrv.model.errors import InvalidRequestError, OverloadedError
from metasrv.model.limits import WATCH_QUEUE_EVENTS_MAX
from metasrv.model.types import KVMeta, SeqV
from metasrv.state import watch
from metasrv.state.store import Store
from metasrv.state.watch import WatcherOverflow, WatchFilter, WatchHub, WatchItem, WatchReset
from metasrv.state.watch_index import RangeIndex
from tests.support.state_bench import NOW_MS, Bench, everything_of

ALL_KEYS = ("", "\U0010ffff\U0010ffff")


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.machine.close()


def short(items: list[WatchItem]) -> list[tuple[str, int | None, int | None]]:
    return [(item.key, item.prev and item.prev.seq, item.current and item.current.seq) for item in items]


# ----------------------------------------------------------------------------- ranges, filters, order


async def test_one_key_or_a_range(bench: Bench) -> None:
    hub = bench.machine.watches
    exact, ranged = hub.subscribe("b"), hub.subscribe("b", "c")
    for key in ("a", "b", "b\0", "bz", "c"):
        bench.put(key)
    assert [item.key for item in await everything_of(exact)] == ["b"]
    assert [item.key for item in await everything_of(ranged)] == ["b", "b\0", "bz"]


@pytest.mark.parametrize(("key", "key_end"), [("a", "a"), ("b", "a"), ("", ""), ("a", "")])
def test_an_empty_range_is_refused(bench: Bench, key: str, key_end: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"^empty range$"):
        bench.machine.watches.subscribe(key, key_end)
    assert bench.machine.watches.count == 0


async def test_filters(bench: Bench) -> None:
    hub = bench.machine.watches
    streams = {kind: hub.subscribe(*ALL_KEYS, kind) for kind in WatchFilter}
    bench.run(c.Put("a", b"1"), c.Put("a", b"2"), c.Delete("a"))
    insert, update, delete = ("a", None, 1), ("a", 1, 2), ("a", 2, None)
    assert short(await everything_of(streams[WatchFilter.ALL])) == [insert, update, delete]
    assert short(await everything_of(streams[WatchFilter.UPDATE])) == [insert, update]
    assert short(await everything_of(streams[WatchFilter.DELETE])) == [delete]


async def test_sweep_first_then_operations_in_order_each_once(bench: Bench) -> None:
    bench.put("z", ttl_ms=5)
    bench.put("y", ttl_ms=3)
    bench.put("p/b")
    bench.put("p/a")
    stream = bench.machine.watches.subscribe(*ALL_KEYS)
    bench.run(c.Put("m", b"1"), c.DeleteByPrefix("p/"), c.PutSequential("s/", "n", b"x"), c.Delete("m"), at_ms=NOW_MS + 9)
    assert short(await everything_of(stream)) == [
        ("y", 2, None),
        ("z", 1, None),
        ("m", None, 5),
        ("p/a", 4, None),
        ("p/b", 3, None),
        ("n", None, 6),
        ("s/000_000_000_000_000_000_000", None, 7),
        ("m", 5, None),
    ]


@pytest.mark.parametrize(
    ("key", "key_end", "told"),
    [
        ("p", None, []),
        ("p/", None, ["p/"]),
        ("p/5", None, ["p/5"]),
        ("p0", None, []),
        ("a", "p/", []),
        ("a", "p/\0", ["p/"]),
        ("p/8", "q", ["p/8", "p/9"]),
        ("p0", "q", []),
        ("a", "z", ["p/", *(f"p/{digit}" for digit in range(10))]),
    ],
)
async def test_a_prefix_deletion_reads_records_only_for_those_who_follow_some(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, key: str, key_end: str | None, told: list[str]
) -> None:
    reads: list[str] = []
    real = Store.scan

    def scan(self: Store, start: str, *others: Any) -> Any:
        reads.append(start)
        return real(self, start, *others)

    monkeypatch.setattr(Store, "scan", scan)
    bench.run(*(c.Put(key, b"v") for key in ("o", "p", "p/", *(f"p/{digit}" for digit in range(10)), "p0")))
    passing = bench.machine.watches.subscribe("p/3")
    passing.close()
    watcher = bench.machine.watches.subscribe(key, key_end)
    bench.run(c.DeleteByPrefix("p/"))
    assert [item.key for item in await everything_of(watcher)] == told
    assert reads == (["p/"] if told else [])
    with bench.machine.open_instant() as instant:
        bench.run(c.DeleteByPrefix(""))
        assert instant.get("o", NOW_MS) is not None
    assert bench.machine.key_count == 0


async def test_what_changes_nothing_is_silent(bench: Bench) -> None:
    bench.put("a")
    stream = bench.machine.watches.subscribe(*ALL_KEYS)
    bench.run(c.Get("a"), c.Put("a", b"x", match_seq=7), c.Delete("absent"), c.Put("b", b"x", expire_at=1))
    assert await everything_of(stream) == []
    bench.put("a", expire_at=1)
    assert short(await everything_of(stream)) == [("a", 1, None)], "an insert in the past of a key that was there"


async def test_a_failed_entry_publishes_nothing(bench: Bench) -> None:
    deep = c.Expression(c.Combine.AND, (), ())
    for _ in range(100):
        deep = c.Expression(c.Combine.AND, (deep,), ())
    stream = bench.machine.watches.subscribe(*ALL_KEYS)
    put = c.Transaction((), (), (c.Put("a", b"x"),), ())
    bench.apply(put, c.BranchTransaction((c.Branch(deep, ()),)))
    assert short(await everything_of(stream)) == [("a", None, 1)], "once, although the entry was applied twice"


# ----------------------------------------------------------------------------- the first flush


async def test_flush_then_marker_then_changes(bench: Bench) -> None:
    for key in ("b", "a", "other"):
        bench.put(key)
    bench.put("c", ttl_ms=0)
    bench.machine.watches.subscribe("unrelated")
    stream = bench.machine.watches.subscribe("a", "d", WatchFilter.DELETE, initial_flush=True)
    bench.put("after", at_ms=NOW_MS)
    bench.run(c.Delete("a"))
    items = await everything_of(stream)
    assert [(item.key, item.is_initialization, item.marker) for item in items] == [
        ("a", True, False),
        ("b", True, False),
        ("c", True, False),
        ("", False, True),
        ("a", False, False),
    ]
    assert items[0].current is not None
    assert items[0].current.seq == 2
    assert items[4].current is None


async def test_a_flush_of_one_key_and_of_nothing(bench: Bench) -> None:
    bench.put("a")
    hub = bench.machine.watches
    marker = WatchItem("", None, None, marker=True)
    assert [item.key for item in await everything_of(hub.subscribe("a", initial_flush=True))] == ["a", ""]
    assert await everything_of(hub.subscribe("b", initial_flush=True)) == [marker]
    assert await everything_of(hub.subscribe("b", "c", initial_flush=True)) == [marker]
    assert await everything_of(hub.subscribe("a")) == [], "no flush asked, no marker"


async def test_a_long_flush_is_the_state_at_registration_whatever_happens_meanwhile(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "FLUSH_PAGE_RECORDS", 7)
    chance = random.Random(5)
    keys = [f"k{at:03d}" for at in range(200)]
    for round_ in range(10):
        bench.run(*(c.Put(key, b"start") for key in keys if chance.random() < 0.6))
        expected = bench.machine.list_prefix("", None, NOW_MS)
        stream = bench.machine.watches.subscribe(*ALL_KEYS, initial_flush=True)
        mirror: dict[str, SeqV | None] = {}
        flushed: list[tuple[str, SeqV | None]] = []
        initialized = False
        while not initialized or stream._queue:
            for item in await stream.next_batch():
                if item.marker:
                    initialized = True
                    assert flushed == expected, f"round {round_}"
                elif item.is_initialization:
                    flushed.append((item.key, item.current))
                    mirror[item.key] = item.current
                else:
                    assert initialized
                    assert mirror.get(item.key) == item.prev
                    mirror[item.key] = item.current
                    if item.current is None:
                        del mirror[item.key]
            if not initialized:
                key = chance.choice(keys)
                bench.run(c.Put(key, b"new") if chance.random() < 0.5 else c.DeleteByPrefix(key[:3]))
        assert sorted(mirror.items()) == bench.machine.list_prefix("", None, NOW_MS)
        stream.close()


async def test_a_flush_of_large_records_comes_in_small_pages(bench: Bench) -> None:
    bench.run(*(c.Put(f"{at}", bytes(700_000)) for at in range(5)))
    stream = bench.machine.watches.subscribe(*ALL_KEYS, initial_flush=True)
    assert [len(await stream.next_batch()) for _ in range(3)] == [2, 2, 2]


async def test_a_cancelled_reader_loses_nothing(bench: Bench) -> None:
    bench.put("a")
    stream = bench.machine.watches.subscribe(*ALL_KEYS, initial_flush=True)
    for _ in range(2):
        read = asyncio.ensure_future(stream.next_batch())
        await asyncio.sleep(0)
        read.cancel()
        await asyncio.sleep(0)
    assert [item.key for item in await everything_of(stream)] == ["a", ""]
    read = asyncio.ensure_future(stream.next_batch())
    await asyncio.sleep(0)
    bench.put("b")
    read.cancel()
    await asyncio.sleep(0)
    assert [item.key for item in await everything_of(stream)] == ["b"]


# ----------------------------------------------------------------------------- limits and ends


async def test_a_slow_watcher_ends_alone_at_its_limit(bench: Bench) -> None:
    hub = bench.machine.watches
    slow, quick = hub.subscribe("k"), hub.subscribe("k")
    record = SeqV(1, b"", KVMeta())
    hub.publish([("k", None, record)] * WATCH_QUEUE_EVENTS_MAX)
    assert hub.count == 2
    assert len(await everything_of(quick)) == WATCH_QUEUE_EVENTS_MAX
    hub.publish([("k", None, record)])
    assert hub.count == 1
    with pytest.raises(WatcherOverflow, match=f"more than {WATCH_QUEUE_EVENTS_MAX} changes"):
        await slow.next_batch()
    with pytest.raises(WatcherOverflow):
        await slow.next_batch()
    assert len(await everything_of(quick)) == 1


async def test_bytes_are_limited_too_but_one_change_always_fits(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "WATCH_QUEUE_SIZE_BYTES_MAX", 1000)
    hub = bench.machine.watches
    stream = hub.subscribe("k")
    hub.publish([("k", None, SeqV(1, bytes(5000)))])
    assert len(await everything_of(stream)) == 1
    hub.publish([("k", None, SeqV(1, bytes(499)))] * 2)
    assert len(await everything_of(stream)) == 2
    hub.publish([("k", None, SeqV(1, bytes(499))), ("k", None, SeqV(1, bytes(500)))])
    with pytest.raises(WatcherOverflow, match="1000 bytes"):
        await stream.next_batch()


async def test_changes_that_only_the_flush_must_remember_are_limited(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "WATCH_QUEUE_EVENTS_MAX", 10)
    bench.run(*(c.Put(f"{at:03d}", b"x") for at in range(50)))
    stream = bench.machine.watches.subscribe(*ALL_KEYS, WatchFilter.UPDATE, initial_flush=True)
    bench.run(*(c.Delete(f"{at:03d}") for at in range(10)))
    assert bench.machine.watches.count == 1
    bench.run(c.Delete("040"))
    with pytest.raises(WatcherOverflow):
        await stream.next_batch()


async def test_the_number_of_watchers_is_limited(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "WATCHERS_MAX", 2)
    hub = bench.machine.watches
    first = hub.subscribe("a")
    hub.subscribe("a", "b")
    with pytest.raises(OverloadedError, match="2 watch streams"):
        hub.subscribe("c")
    first.close()
    assert hub.subscribe("c") is not None


async def test_close_ends_a_waiting_reader_and_the_registration(bench: Bench) -> None:
    hub = bench.machine.watches
    streams = [hub.subscribe("a"), hub.subscribe("a"), hub.subscribe("a", "b"), hub.subscribe("a", "b")]
    read = asyncio.ensure_future(streams[0].next_batch())
    await asyncio.sleep(0)
    for count, stream in enumerate(streams, 1):
        stream.close()
        stream.close()
        assert hub.count == 4 - count
    assert await read == []
    assert [item async for item in streams[1]] == []
    bench.put("a")
    assert (hub._exact, hub._ranges._root) == ({}, None)


async def test_iteration_gives_single_items(bench: Bench) -> None:
    stream = bench.machine.watches.subscribe(*ALL_KEYS)
    bench.run(c.Put("a", b""), c.Put("b", b""))
    found = []
    async for item in stream:
        found.append(item.key)
        if item.key == "b":
            stream.close()
    assert found == ["a", "b"]


async def test_reset_and_close_of_the_machine_end_every_stream(bench: Bench) -> None:
    hub = bench.machine.watches
    first, second = hub.subscribe("a"), hub.subscribe("a", "b", initial_flush=True)
    read = asyncio.ensure_future(first.next_batch())
    await asyncio.sleep(0)
    hub.reset("the reason")
    assert hub.count == 0
    for reader in (read, second.next_batch()):
        with pytest.raises(WatchReset, match="the reason"):
            await reader
    third = hub.subscribe("a")
    bench.machine.close()
    with pytest.raises(WatchReset, match="shutting down"):
        await third.next_batch()


# ----------------------------------------------------------------------------- the index


def test_the_range_index_agrees_with_a_plain_list() -> None:
    chance = random.Random(9)
    index: RangeIndex[int] = RangeIndex()
    plain: dict[int, tuple[str, str]] = {}
    letters = "abcdef"
    for number in range(1500):
        if plain and chance.random() < 0.45:
            gone = chance.choice(list(plain))
            index.remove(*plain.pop(gone), gone)
        else:
            ends = sorted({"".join(chance.choices(letters, k=chance.randrange(4))) for _ in range(5)})
            if len(ends) < 2:
                continue
            plain[number] = (ends[0], ends[-1])
            index.add(*plain[number], number)
        probe = "".join(chance.choices(letters, k=chance.randrange(5)))
        assert sorted(index.find(probe)) == sorted(at for at, (start, end) in plain.items() if start <= probe < end)
        probe_end = chance.choice((None, probe + chance.choice(letters), chr(ord(probe[0]) + 1) if probe else "c"))
        overlapping = any(probe < end and (probe_end is None or start < probe_end) for start, end in plain.values())
        assert index.overlaps(probe, probe_end) is overlapping, (probe, probe_end)
    for number, (start, end) in plain.items():
        index.remove(start, end, number)
    assert index._root is None


def test_idle_watchers_do_not_slow_a_change() -> None:
    """10,000 of each kind beside the key: a publication looks at a few dozen of them."""
    hub = WatchHub(lambda *_: ([], True))
    for number in range(10_000):
        hub.subscribe(f"idle/{number}")
        hub.subscribe(f"range/{number:05d}", f"range/{number:05d}0")
    visits = 0

    class Counting(str):
        """A key that counts how often it is compared."""

        __slots__ = ()

        def __ge__(self, other: str) -> bool:
            nonlocal visits
            visits += 1
            return str(self) >= other

        __hash__ = str.__hash__

    for key in ("range/05000x", "zzz", "", "idle/77x"):
        visits = 0
        hub.publish([(Counting(key), None, SeqV(1, b""))])
        assert 0 < visits < 100, key
    started = time.process_time()
    hub.publish([("elsewhere", None, SeqV(1, b""))] * 1000)
    assert time.process_time() - started < 0.5

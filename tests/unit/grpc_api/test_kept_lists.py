"""Lists that are kept for the next client: never of another instant, never more than there is room for."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from metasrv.grpc_api import kept_lists, long_lists
from metasrv.grpc_api.batches import Batch
from metasrv.grpc_api.kept_lists import KeptList, KeptLists
from metasrv.grpc_api.row_items import row_batches
from metasrv.model.limits import KEPT_LISTS_SIZE_BYTES_MAX
from metasrv.model.types import LogId
from metasrv.protocol import methods as m
from metasrv.protocol.proto import meta_pb2 as pb
from metasrv.state.raw_rows import RawRow
from tests.support.grpc_bench import MethodBench

AT_5, AT_6 = LogId(1, 5, 1), LogId(1, 6, 1)
PAGE = [Batch(bytes(10), 1)]


def whole(lists: KeptLists, applied: LogId, prefix: str, pages: int) -> KeptList:
    growing = lists.take(applied, prefix)
    for _ in range(pages):
        lists.add(growing, PAGE)
    lists.finish(growing)
    lists.give_back(growing)
    return growing


async def test_a_list_is_kept_for_its_entry_and_its_prefix() -> None:
    lists = KeptLists()
    kept = whole(lists, AT_5, "a", 3)
    assert lists.take(AT_5, "a") is kept
    assert kept.is_whole
    assert kept.pages == [PAGE] * 3
    assert not lists.take(AT_5, "b").is_whole
    assert not lists.take(AT_6, "a").is_whole
    assert not lists.take(LogId(2, 5, 1), "a").is_whole


async def test_lists_of_earlier_entries_go_with_the_first_of_a_later_one() -> None:
    lists = KeptLists()
    whole(lists, AT_5, "a", 3)
    whole(lists, AT_5, "b", 3)
    whole(lists, AT_6, "b", 2)
    assert lists.size_bytes == 20
    assert not lists.take(AT_5, "a").is_whole


async def test_an_unfinished_list_is_not_kept() -> None:
    lists = KeptLists()
    growing = lists.take(AT_5, "a")
    lists.add(growing, PAGE)
    assert not lists.take(AT_5, "a").is_whole
    assert lists.size_bytes == 10
    lists.give_back(growing)
    assert lists.size_bytes == 0


async def test_the_oldest_makes_room_and_what_does_not_fit_is_not_kept() -> None:
    lists = KeptLists(45)
    whole(lists, AT_5, "a", 2)
    whole(lists, AT_5, "b", 2)
    whole(lists, AT_5, "c", 2)
    assert [lists.take(AT_5, prefix).is_whole for prefix in "abc"] == [False, True, True]
    lists = KeptLists(45)
    whole(lists, AT_5, "large", 5)
    assert lists.size_bytes == 0
    assert not lists.take(AT_5, "large").is_whole


async def test_the_limit_itself_is_kept_and_one_byte_more_is_not() -> None:
    for size_bytes, is_kept in ((KEPT_LISTS_SIZE_BYTES_MAX, True), (KEPT_LISTS_SIZE_BYTES_MAX + 1, False)):
        lists = KeptLists()
        growing = lists.take(AT_5, "a")
        lists.add(growing, [Batch(bytes(size_bytes), 1)])
        lists.finish(growing)
        assert (growing.is_kept, lists.size_bytes) == (is_kept, size_bytes if is_kept else 0)


async def test_a_list_that_is_being_sent_counts_until_it_is_sent() -> None:
    lists = KeptLists(45)
    whole(lists, AT_5, "a", 4)
    sent = lists.take(AT_5, "a")
    assert not whole(lists, AT_6, "b", 1).is_kept, "there was no room beside the one that is being sent"
    assert (lists.size_bytes, sent.pages) == (40, [PAGE] * 4)
    lists.give_back(sent)
    assert lists.size_bytes == 0


async def test_kept_lists_go_after_some_seconds() -> None:
    lists = KeptLists()
    whole(lists, AT_5, "a", 4)
    assert lists._timer is not None
    lists._drop_all()
    assert lists.size_bytes == 0
    assert not lists.take(AT_5, "a").is_whole
    assert kept_lists.KEPT_SECONDS <= 10


async def test_whatever_happens_the_bytes_are_those_of_the_lists() -> None:
    chosen = random.Random(5)
    lists = KeptLists(200)
    in_use: list[KeptList] = []
    for _ in range(3_000):
        what = chosen.randrange(6)
        if what == 0 or not in_use:
            in_use.append(lists.take(LogId(1, chosen.randrange(3), 1), chosen.choice("abcd")))
        elif what < 4:
            one = chosen.choice(in_use)
            if not one.is_whole:
                lists.add(one, PAGE)
        elif what == 4:
            one = chosen.choice(in_use)
            if not one.is_whole:
                lists.finish(one)
        else:
            lists.give_back(in_use.pop(chosen.randrange(len(in_use))))
        alive = {id(one): one for one in [*in_use, *lists._kept.values()]}
        assert lists.size_bytes == sum(one.size_bytes for one in alive.values()) <= 200
        assert all(one.is_whole and len(one.pages) * 10 == one.size_bytes for one in lists._kept.values())
    for one in in_use:
        lists.give_back(one)
    lists._drop_all()
    assert lists.size_bytes == 0


# ----------------------------------------------------------------------------- with the methods


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[MethodBench]:
    made = MethodBench(tmp_path)
    await made.handshake()
    yield made
    await made.close()


async def fill(bench: MethodBench, count: int) -> list[str]:
    keys = [f"p/{number:05}" for number in range(count)]
    await bench.transact(*(pb.TxnOp(put=pb.TxnPutRequest(key=key, value=b"v")) for key in keys))
    return keys


async def test_the_second_list_of_an_instant_reads_nothing(bench: MethodBench, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = await fill(bench, 600)
    encoded: list[int] = []

    def counted(rows: Sequence[RawRow]) -> list[Batch]:
        encoded.append(len(rows))
        return row_batches(rows)

    monkeypatch.setattr(long_lists, "row_batches", counted)
    first = await bench.read({"ListKV": {"prefix": "p/"}})
    assert encoded == [512, 88]
    assert await bench.read({"ListKV": {"prefix": "p/"}}) == first
    call = await bench.call(m.KV_LIST, pb.KvListRequest(prefix="p/"))
    assert [pb.StreamItem.FromString(data).key for data in call.sent] == keys
    assert encoded == [512, 88]
    assert bench.service._readers.open_count == 0


async def test_a_list_after_a_write_shows_it(bench: MethodBench) -> None:
    keys = await fill(bench, 300)
    for number in range(5):
        assert [item.key for item in await bench.read({"ListKV": {"prefix": "p/"}})] == keys
        await bench.put(f"p/{number:05}", b"changed")
        items = await bench.read({"ListKV": {"prefix": "p/"}})
        assert [item.value.data for item in items].count(b"changed") == number + 1


async def test_lists_with_a_limit_and_stale_ones_are_not_kept(bench: MethodBench) -> None:
    keys = await fill(bench, 300)
    assert len((await bench.call(m.KV_LIST, pb.KvListRequest(prefix="p/", limit=200))).sent) == 200
    stale = await bench.read({"ListKV": {"prefix": "p/"}}, ("x-metasrv-read", "stale"))
    assert [item.key for item in stale] == keys
    methods: Any = bench._bodies[m.KV_LIST]
    assert methods.__self__._kept_lists.size_bytes == 0

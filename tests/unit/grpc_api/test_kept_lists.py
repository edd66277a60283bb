"""Lists that are kept for the next client: never of another instant, never more than there is room for."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from metasrv.grpc_api import kept_lists, kv, long_lists
from metasrv.grpc_api.batches import Batch
from metasrv.grpc_api.kept_lists import KEPT_COUNT_MAX, KeptList, KeptLists
from metasrv.grpc_api.row_items import row_batches
from metasrv.model import commands as c
from metasrv.model.entries import RegularEntry
from metasrv.model.errors import StorageError
from metasrv.model.limits import KEPT_LISTS_SIZE_BYTES_MAX
from metasrv.model.types import LogId
from metasrv.protocol import methods as m
from metasrv.protocol.proto import meta_pb2 as pb
from metasrv.state.raw_rows import RawRow
from metasrv.state.reader import StateReader
from metasrv.state.snapshot import SnapshotTail, SnapshotWriter
from metasrv.state.touched import Touched
from tests.support.grpc_bench import AbortedCall, FakeCall, MethodBench
from tests.support.state_histories import Drawn

AT_5, AT_6 = LogId(1, 5, 1), LogId(1, 6, 1)
PAGE = [Batch(bytes(10), 1)]


class Lists(KeptLists):
    """Kept lists beside the ranges that they hold."""

    def __init__(self, size_bytes_max: int = KEPT_LISTS_SIZE_BYTES_MAX) -> None:
        self.ranges = Touched()
        super().__init__(self.ranges, size_bytes_max)

    def begun(self, prefix: str) -> KeptList:
        taken = self.take_now(prefix)
        assert taken is not None
        return taken

    def has(self, prefix: str) -> bool:
        found = self.has_now(prefix)
        taken = self.begun(prefix)
        self.give_back(taken)
        assert taken.is_whole is found
        return found

    def touch(self, *keys: str) -> None:
        self.ranges.tell([(key, None, None) for key in keys], ())


def fill_up(lists: KeptLists, growing: KeptList, pages: int) -> KeptList:
    for _ in range(pages):
        lists.add(growing, PAGE)
    lists.finish(growing)
    lists.give_back(growing)
    return growing


def whole(lists: Lists, prefix: str, pages: int) -> KeptList:
    return fill_up(lists, lists.begun(prefix), pages)


async def test_a_list_is_kept_until_its_prefix_is_touched() -> None:
    lists = Lists()
    kept = whole(lists, "a", 3)
    lists.touch("b", "`", "")
    assert lists.take_now("a") is kept
    assert kept.is_whole
    assert kept.pages == [PAGE] * 3
    assert not lists.has("b")
    lists.touch("a/1")
    assert not lists.has("a")
    lists.give_back(kept)
    assert (lists.size_bytes, len(lists.ranges)) == (0, 0)


async def test_a_list_that_is_touched_while_it_grows_is_not_kept() -> None:
    lists = Lists()
    growing = lists.begun("a")
    lists.add(growing, PAGE)
    lists.touch("a")
    fill_up(lists, growing, 2)
    assert not growing.is_kept
    assert not lists.has("a")
    assert lists.size_bytes == 0


async def test_a_gateway_keeps_a_list_for_its_entry() -> None:
    lists = KeptLists(None)
    assert lists.take_now("a") is None, "only the view tells what it shows"
    kept = fill_up(lists, lists.take("a", AT_5), 3)
    fill_up(lists, lists.take("b", AT_5), 3)
    assert lists.take("a", AT_5) is kept
    assert not lists.has_now("a")
    lists.give_back(kept)
    for other in (AT_6, LogId(2, 5, 1)):
        assert not lists.take("a", other).is_whole
    assert not lists.take("c", AT_5).is_whole
    fill_up(lists, lists.take("b", AT_6), 2)
    assert lists.size_bytes == 20, "those of earlier entries go with the first of a later one"
    assert not lists.take("a", AT_5).is_whole


async def test_an_unfinished_list_is_not_kept() -> None:
    lists = Lists()
    growing = lists.begun("a")
    lists.add(growing, PAGE)
    assert not lists.has("a")
    assert (lists.size_bytes, len(lists.ranges)) == (10, 1)
    lists.give_back(growing)
    assert (lists.size_bytes, len(lists.ranges)) == (0, 0)


async def test_of_two_that_read_the_same_list_one_is_kept() -> None:
    lists = Lists()
    first, second = lists.begun("a"), lists.begun("a")
    fill_up(lists, first, 2)
    fill_up(lists, second, 2)
    assert (first.is_kept, second.is_kept) == (True, False)
    assert (lists.size_bytes, len(lists.ranges)) == (20, 1)


async def test_the_oldest_makes_room_and_what_does_not_fit_is_not_kept() -> None:
    lists = Lists(45)
    for prefix in "abc":
        whole(lists, prefix, 2)
    assert [lists.has(prefix) for prefix in "abc"] == [False, True, True]
    assert len(lists.ranges) == 2
    lists = Lists(45)
    whole(lists, "large", 5)
    assert (lists.size_bytes, len(lists.ranges)) == (0, 0)
    assert not lists.has("large")


async def test_no_more_lists_are_kept_than_an_entry_can_look_at() -> None:
    lists = Lists()
    for number in range(KEPT_COUNT_MAX + 1):
        whole(lists, f"{number:03}", 1)
    assert len(lists.ranges) == KEPT_COUNT_MAX
    assert [lists.has(prefix) for prefix in ("000", "001")] == [False, True]


async def test_the_limit_itself_is_kept_and_one_byte_more_is_not() -> None:
    for size_bytes, is_kept in ((KEPT_LISTS_SIZE_BYTES_MAX, True), (KEPT_LISTS_SIZE_BYTES_MAX + 1, False)):
        lists = Lists()
        growing = lists.begun("a")
        lists.add(growing, [Batch(bytes(size_bytes), 1)])
        lists.finish(growing)
        assert (growing.is_kept, lists.size_bytes) == (is_kept, size_bytes if is_kept else 0)


async def test_a_list_that_is_being_sent_counts_until_it_is_sent() -> None:
    lists = Lists(45)
    whole(lists, "a", 4)
    sent = lists.begun("a")
    lists.touch("a")
    assert not whole(lists, "b", 1).is_kept, "there was no room beside the one that is being sent"
    assert (lists.size_bytes, sent.pages) == (40, [PAGE] * 4)
    lists.give_back(sent)
    assert lists.size_bytes == 0


async def test_lists_that_nobody_asks_for_go_after_some_seconds() -> None:
    lists = Lists()
    whole(lists, "a", 4)
    whole(lists, "b", 4)
    for _ in range(3):
        lists._drop_unused()
        assert lists._timer is not None
        assert lists.has("a")
    assert list(lists._kept) == ["a"]
    lists._drop_unused()
    lists._drop_unused()
    assert lists._timer is None
    assert (lists.size_bytes, len(lists.ranges)) == (0, 0)
    assert not lists.has("a")
    assert kept_lists.KEPT_SECONDS <= 10


@pytest.mark.parametrize("in_gateway", [False, True])
async def test_whatever_happens_the_bytes_and_ranges_are_those_of_the_lists(in_gateway: bool) -> None:
    chosen = random.Random(5)
    ranges = Touched()
    lists = KeptLists(None if in_gateway else ranges, 200)
    in_use: list[KeptList] = []
    for _ in range(3_000):
        what = chosen.randrange(7)
        if what == 0 or not in_use:
            prefix = chosen.choice("abcd")
            in_use.append(lists.take_now(prefix) or lists.take(prefix, LogId(1, chosen.randrange(3), 1)))
        elif what < 4:
            one = chosen.choice(in_use)
            if not one.is_whole:
                lists.add(one, PAGE)
        elif what == 4:
            one = chosen.choice(in_use)
            if not one.is_whole:
                lists.finish(one)
        elif what == 5:
            ranges.tell([(chosen.choice("abcdefgh"), None, None)], ())
        else:
            lists.give_back(in_use.pop(chosen.randrange(len(in_use))))
        alive = {id(one): one for one in [*in_use, *lists._kept.values()]}
        assert lists.size_bytes == sum(one.size_bytes for one in alive.values()) <= 200
        assert all(one.is_whole and len(one.pages) * 10 == one.size_bytes for one in lists._kept.values())
        assert len(ranges) == sum(one.held is not None and one.held.untouched for one in alive.values())
    for one in in_use:
        lists.give_back(one)
    lists._drop_unused()
    lists._drop_unused()
    assert (lists.size_bytes, len(ranges)) == (0, 0)


# ----------------------------------------------------------------------------- with the methods


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[MethodBench]:
    made = MethodBench(tmp_path)
    await made.handshake()
    yield made
    await made.close()


def kept_of(bench: MethodBench) -> KeptLists:
    methods: Any = bench._bodies[m.KV_LIST]
    assert isinstance(methods.__self__._kept_lists, KeptLists)
    return methods.__self__._kept_lists


def apply(bench: MethodBench, time_ms: int, *commands: c.Command) -> None:
    last = bench.machine.last_applied
    bench.machine.apply_entry(LogId(1, last.index + 1, 1), RegularEntry(time_ms, 1, commands))


async def go_back(bench: MethodBench) -> None:
    """Put a snapshot in place that has not got what was written and listed since it was taken."""
    machine = bench.machine
    term, index, _ = machine.last_applied
    writer = SnapshotWriter(machine.path)
    machine.commit()
    writer.pin()
    info = writer.write(f"{machine.path}.snap", SnapshotTail((b"before", index - 1, term), (b"last", index, term)))
    puts = c.Transaction((), (), tuple([c.Put(f"a/{number}", b"v") for number in range(3)]), ())
    apply(bench, machine.last_time_ms, c.SetReadOnly(None), c.SetQuota(0), puts)
    for prefix in ("", "a", "a/"):
        await bench.read({"ListKV": {"prefix": prefix}})
    assert len(machine.touched) > 0
    machine.install(info.path)


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


async def test_a_list_stays_in_memory_while_others_write_elsewhere(
    bench: MethodBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(bench, 300)
    first = await bench.read({"ListKV": {"prefix": "p/"}})
    monkeypatch.setattr(bench.machine, "open_reader", lambda: pytest.fail("a view was opened"))
    for key in ("o", "p", "p.", "p0", "q/1"):
        await bench.put(key)
        assert await bench.read({"ListKV": {"prefix": "p/"}}) == first
    await bench.transact(pb.TxnOp(delete_by_prefix=pb.TxnDeleteByPrefixRequest(prefix="q")))
    assert await bench.read({"ListKV": {"prefix": "p/"}}) == first
    assert bench.service._readers.open_count == 0


async def test_an_entry_between_the_pages_keeps_a_list_out(bench: MethodBench) -> None:
    keys = await fill(bench, 600)

    class Between(FakeCall):
        async def write_prefixed(self, messages: bytes) -> None:
            if not self.sent:
                await bench.put("p/00000", b"changed")
            await super().write_prefixed(messages)

    kept = kept_of(bench)
    call = Between(((m.TOKEN_METADATA_KEY, bench.token),))
    await bench.service._dispatcher.route(m.KV_LIST, bench._bodies[m.KV_LIST]).function(
        pb.KvListRequest(prefix="p/").SerializeToString(), call
    )
    assert [pb.StreamItem.FromString(data).key for data in call.sent] == keys
    assert b"changed" not in [pb.StreamItem.FromString(data).value.data for data in call.sent]
    assert (kept.size_bytes, len(bench.machine.touched)) == (0, 0)
    assert (await bench.read({"ListKV": {"prefix": "p/"}}))[0].value.data == b"changed"


async def test_a_list_that_gets_no_view_holds_nothing(bench: MethodBench, monkeypatch: pytest.MonkeyPatch) -> None:
    await fill(bench, 300)

    def refuse() -> StateReader:
        raise StorageError("no view")

    with monkeypatch.context() as patch:
        patch.setattr(bench.machine, "open_reader", refuse)
        with pytest.raises(AbortedCall):
            await bench.read({"ListKV": {"prefix": "p/"}})
    assert (kept_of(bench).size_bytes, len(bench.machine.touched)) == (0, 0)
    await bench.read({"ListKV": {"prefix": "p/"}})
    assert len(bench.machine.touched) == 1


@pytest.mark.parametrize("seed", range(6))
async def test_whatever_is_applied_a_list_shows_what_is_there(
    bench: MethodBench, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random entries, with lists in between, each beside a direct read of the state."""
    monkeypatch.setattr(kv, "INLINE_PROBE_RECORDS", 1)
    monkeypatch.setattr(kv, "INLINE_RECORDS_MAX", 1)
    chosen, drawn = random.Random(seed), Drawn(seed)
    views: list[StateReader] = []
    open_reader = bench.machine.open_reader

    def counted() -> StateReader:
        views.append(open_reader())
        return views[-1]

    monkeypatch.setattr(bench.machine, "open_reader", counted)
    served_from_memory = 0
    for action in drawn.limited_history(entries=300):
        if action != "reopen" and action != "snapshot":
            time_ms, commands = action
            apply(bench, time_ms, *commands)
        elif bench.machine.last_applied.index:
            await go_back(bench)
        for _ in range(chosen.randrange(5)):
            if not chosen.randrange(6):  # nothing but what expires
                apply(bench, bench.machine.last_time_ms + 9, c.TICK)
            prefix = chosen.choice(["", "a", "a/", "a/b", "b", "\U0010ffff"])
            views.clear()
            items = await bench.read({"ListKV": {"prefix": prefix}})
            found = [(item.key, item.value.seq, item.value.data) for item in items]
            there = bench.machine.list_prefix(prefix, None, 0)
            assert found == [(key, record.seq, record.data) for key, record in there], (prefix, action)
            served_from_memory += len(there) > 1 and not views
    assert served_from_memory > 30
    assert len(bench.machine.touched) <= len(kept_of(bench)._kept), "nothing else is held"


async def test_lists_with_a_limit_and_stale_ones_are_not_kept(bench: MethodBench) -> None:
    keys = await fill(bench, 300)
    assert len((await bench.call(m.KV_LIST, pb.KvListRequest(prefix="p/", limit=200))).sent) == 200
    stale = await bench.read({"ListKV": {"prefix": "p/"}}, ("x-metasrv-read", "stale"))
    assert [item.key for item in stale] == keys
    assert (kept_of(bench).size_bytes, len(bench.machine.touched)) == (0, 0)

"""A followed prefix ends with every key's latest value, whatever becomes of the watches below it."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metasrv.client.answers import WatchEvent
from metasrv.client.following import EventKind, Known, PrefixEvent, end_of_prefix, follow, wait_until
from metasrv.client.outcomes import ClientClosedError
from metasrv.model.errors import NotDoneError
from metasrv.model.types import SeqV
from tests.support.memory_cluster import MemoryCluster

MARKER = WatchEvent("", None, None, False, True)
PUT, DELETE, SYNCED = EventKind.PUT, EventKind.DELETE, EventKind.SYNCED


def flushed(key: str, seq: int) -> WatchEvent:
    return WatchEvent(key, None, SeqV(seq, b""), True)


def changed(key: str, seq: int) -> WatchEvent:
    return WatchEvent(key, None, SeqV(seq, b""), False)


def deleted(key: str, seq: int) -> WatchEvent:
    return WatchEvent(key, SeqV(seq, b""), None, False)


def play(known: Known, *events: WatchEvent) -> list[tuple[EventKind, str, int]]:
    found = [event for each in events for event in known.take(each)]
    return [(event.kind, event.key, event.prev_seq) for event in found]


def test_a_second_reading_tells_only_the_difference() -> None:
    known = Known()
    known.begin()
    first = play(known, flushed("a", 1), flushed("b", 2), flushed("c", 3), MARKER)
    assert first == [(PUT, "a", 0), (PUT, "b", 0), (PUT, "c", 0), (SYNCED, "", 0)]
    assert play(known, changed("a", 4), deleted("c", 3)) == [(PUT, "a", 1), (DELETE, "c", 3)]
    known.begin()
    second = play(known, flushed("a", 4), flushed("d", 9), MARKER)
    assert second == [(PUT, "d", 0), (DELETE, "b", 2), (SYNCED, "", 0)]


def test_a_reading_that_broke_off_deletes_nothing() -> None:
    known = Known()
    known.begin()
    play(known, flushed("a", 1), flushed("b", 2), MARKER)
    known.begin()
    assert play(known, flushed("a", 1)) == []
    known.begin()
    assert play(known, flushed("a", 1), flushed("b", 2), MARKER) == [(SYNCED, "", 0)]


def test_an_older_state_than_before_is_refused() -> None:
    known = Known()
    known.begin()
    play(known, flushed("a", 5), MARKER)
    known.begin()
    with pytest.raises(NotDoneError, match="older value of 'a'"):
        known.take(flushed("a", 4))


@settings(max_examples=50)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("put"), st.sampled_from("abcd")),
            st.tuples(st.just("delete"), st.sampled_from("abcd")),
            st.tuples(st.just("reset"), st.integers(0, 3)),
        ),
        max_size=40,
    )
)
def test_a_view_of_the_events_is_the_state_whenever_it_is_level(steps: list[tuple[str, str | int]]) -> None:
    """Changes during a gap are not heard; a reading may break off after some records."""
    state: dict[str, int] = {}
    view: dict[str, int] = {}
    known = Known()
    heard = False
    seq = 0

    def take(event: WatchEvent) -> None:
        for told in known.take(event):
            if told.kind is PUT:
                assert told.record is not None
                assert told.prev_seq == view.get(told.key, 0)
                view[told.key] = told.record.seq
            elif told.kind is DELETE:
                assert view.pop(told.key) == told.prev_seq

    def read(count: int | None = None) -> bool:
        known.begin()
        for key in sorted(state)[:count]:
            take(flushed(key, state[key]))
        if count is None:
            take(MARKER)
        return count is None

    for kind, argument in steps:
        if kind == "reset":
            heard = read(int(argument)) if argument else read()
        elif kind == "put":
            seq += 1
            state[str(argument)] = seq
            if heard:
                take(changed(str(argument), seq))
        elif str(argument) in state:
            before = state.pop(str(argument))
            if heard:
                take(deleted(str(argument), before))
        if heard:
            assert view == state
    read()
    assert view == state


@pytest.mark.parametrize("prefix", ["", "a", "config/", "é", "a\ud7ff", "\U0010ffff", "a\U0010ffff\U0010ffff"])
def test_the_end_of_a_prefix_stands_behind_its_keys_and_before_the_others(prefix: str) -> None:
    end = end_of_prefix(prefix)
    end.encode()
    for more in ("", "a", "\U0010ffff" * 5):
        assert prefix + more < end
    if prefix.rstrip("\U0010ffff"):
        assert not end.startswith(prefix)
        assert all(prefix + "\U0010ffff" * 9 < key for key in (end, end + "x"))


@pytest.mark.virtual_time
async def test_changes_in_a_gap_are_told_after_it() -> None:
    cluster = MemoryCluster()
    client = cluster.client()
    cluster.put("p/a", b"1")
    cluster.put("p/b", b"1")
    cluster.put("q", b"other")
    told: list[PrefixEvent] = []

    async def read() -> None:
        async with aclosing(follow(client, "p/", end_of_prefix("p/"))) as events:
            async for event in events:
                told.append(event)

    task = asyncio.create_task(read())
    await asyncio.sleep(1)
    assert [(event.kind, event.key) for event in told] == [(PUT, "p/a"), (PUT, "p/b"), (SYNCED, "")]
    client.cut_off = True
    cluster.reset_watches()
    cluster.delete("p/a")
    cluster.put("p/b", b"2")
    cluster.put("p/b", b"3")
    cluster.put("p/c", b"1")
    await asyncio.sleep(60)
    del told[:]
    client.cut_off = False
    await asyncio.sleep(10)
    assert [(event.kind, event.key) for event in told] == [(PUT, "p/b"), (PUT, "p/c"), (DELETE, "p/a"), (SYNCED, "")]
    assert told[0].record is not None
    assert told[0].record.data == b"3"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.virtual_time
async def test_the_first_reading_fails_where_nobody_answers_and_later_ones_wait() -> None:
    cluster = MemoryCluster()
    client = cluster.client()
    client.cut_off = True
    with pytest.raises(NotDoneError, match="nobody answers"):
        await anext(follow(client, "a", None))


async def test_a_closed_client_ends_the_following() -> None:
    class Closing(type(MemoryCluster().client())):  # type: ignore[misc]
        async def _reach(self, seconds: float = 0) -> None:
            raise ClientClosedError

    with pytest.raises(ClientClosedError):
        await anext(follow(Closing(MemoryCluster(), 0), "a", None))


@pytest.mark.virtual_time
async def test_waiting_returns_when_the_records_are_as_wished() -> None:
    cluster = MemoryCluster()
    task = asyncio.create_task(wait_until(cluster.client(), "a", None, lambda records: "a" in records))
    await asyncio.sleep(100)
    assert not task.done()
    cluster.put("a", b"")
    await asyncio.wait_for(task, 1)

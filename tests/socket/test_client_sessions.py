"""Followed prefixes, sessions and recipes over the real wire, from asyncio and from threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import aclosing

import pytest

from metasrv.client import (
    AsyncClient,
    AsyncLock,
    Barrier,
    Client,
    Counter,
    DoubleBarrier,
    Election,
    EventKind,
    FencedError,
    FencingToken,
    Leader,
    Lock,
    NotDoneError,
    PrefixEvent,
    Queue,
    Session,
    SessionLostError,
    Transaction,
)
from metasrv.client import level_watch as level_watch_module
from metasrv.client.connection import Connection
from metasrv.model.errors import NoLeaderError
from metasrv.model.limits import CLIENT_WATCH_BUFFER_MESSAGES_MAX
from tests.support.grpc_node import RunningNode, StartNode
from tests.support.waiting import until

PUT, DELETE, SYNCED = EventKind.PUT, EventKind.DELETE, EventKind.SYNCED


def told(events: list[PrefixEvent]) -> list[tuple[EventKind, str, bytes | None]]:
    return [(event.kind, event.key, event.record and event.record.data) for event in events]


async def test_a_followed_prefix_outlives_a_reset_and_a_slow_reader(start_node: StartNode) -> None:
    node = await start_node()
    async with AsyncClient([node.address]) as client:
        count = 3 * CLIENT_WATCH_BUFFER_MESSAGES_MAX
        for number in range(count):
            await client.upsert(f"p/{number:04d}", b"1")
        events: list[PrefixEvent] = []
        async with aclosing(client.watch_prefix("p/")) as following:
            async for event in following:  # more than is held for a reader at once
                events.append(event)
                if event.kind is SYNCED:
                    break
            assert [event.key for event in events[:-1]] == [f"p/{number:04d}" for number in range(count)]
            await client.upsert("p/0001", b"2")
            assert told([await anext(following)]) == [(PUT, "p/0001", b"2")]
            node.context.machine.watches.reset("the test put a snapshot in place")
            await client.delete("p/0000")
            await client.upsert("p/0001", b"3")
            after = [await anext(following)]
            while after[-1].kind is not SYNCED:
                after.append(await anext(following))
            assert sorted(told(after)) == sorted([(PUT, "p/0001", b"3"), (DELETE, "p/0000", None), (SYNCED, "", None)])


async def test_a_watch_ends_when_its_node_hears_no_leader(start_node: StartNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(level_watch_module, "CHECK_SECONDS", 0.05)
    node = await start_node()
    async with AsyncClient([node.address], timeout_ms=1_000) as client:
        async with aclosing(client.watch("a", initial_flush=True, require_leader=True)) as watch:
            assert (await anext(watch)).is_marker
            barriers = node.consensus.barriers
            assert barriers >= 1, "the node showed that it is level before the watch began"
            await until(lambda: node.consensus.barriers >= barriers + 2)
            node.consensus.failure = NoLeaderError("no leader")
            with pytest.raises(NotDoneError, match="no leader"):
                await anext(watch)
        with pytest.raises(NotDoneError, match="no leader"):
            await anext(client.watch("a", require_leader=True))
        node.consensus.failure = None
        async with aclosing(client.watch("a", initial_flush=True)) as watch:
            assert (await anext(watch)).is_marker
        left = [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("watch-")]
        assert left == []


async def test_a_watch_does_not_begin_on_another_connection_than_the_proof(
    start_node: StartNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that restarted in between may have an older state."""
    prove = level_watch_module._prove

    async def prove_and_connect_anew(connection: Connection, seconds: float) -> None:
        await prove(connection, seconds)
        if not again:
            again.append(True)
            asyncio.get_running_loop().call_soon(setattr, connection, "handshakes", connection.handshakes + 1)

    again: list[bool] = []
    monkeypatch.setattr(level_watch_module, "_prove", prove_and_connect_anew)
    node = await start_node()
    async with AsyncClient([node.address]) as client, aclosing(client.watch_prefix("a")) as following:
        barriers = node.consensus.barriers
        assert (await anext(following)).kind is SYNCED
        assert node.consensus.barriers >= barriers + 2, "the first watch was given up"


async def test_a_transaction_has_a_deadline_of_its_own(start_node: StartNode) -> None:
    node = await start_node()
    async with AsyncClient([node.address], timeout_ms=60_000) as client:
        await client.get("a")
        node.consensus.failure = NoLeaderError("no leader")
        with pytest.raises(NotDoneError):
            await asyncio.wait_for(client.transaction(Transaction().put("a", b""), timeout_ms=300), 10)


async def test_a_lock_of_asyncio(start_node: StartNode) -> None:
    node = await start_node()
    async with AsyncClient([node.address]) as client, client.session(name="me") as session:
        async with AsyncLock(session, "x", b"me") as token:
            assert (await client.transaction(Transaction().fenced_by(token).put("a", b"1"))).success
        assert not (await client.transaction(Transaction().fenced_by(token).put("a", b"2"))).success
        assert [key for key, _ in await client.list_prefix("")] == ["a", session.key]


# ----------------------------------------------------------------------------- threads


def in_threads(node: RunningNode) -> None:
    """Everything that blocks, with two clients in two threads."""
    with Client([node.address]) as client, client.session(name="one") as session:
        assert client.get(session.key) is not None
        assert not session.lost.is_set()
        assert not session.lost.wait(0.01)
        with Client([node.address]) as other, other.session() as second:
            lock_goes_round(client, session, second)
            office_goes_round(session, second)
            work_is_done(client, session, second)
            barriers_hold(session, second)
            count_is_right(session, second)
            following_ends_with_its_reader(client, other)
            other.delete(second.key)
            assert second.lost.wait(10), "a renewal finds it gone"
            with pytest.raises(SessionLostError):
                second.execute_once(Transaction().put("late", b""))
            with pytest.raises(RuntimeError, match="use AsyncClient"):
                asyncio.run(inside_a_loop(other))
        assert second.lost.is_set()
        second.close()  # after its client: nothing is left to do
    with pytest.raises(RuntimeError, match="closed"):
        client.get("a")
    client.close()


async def inside_a_loop(client: Client) -> None:
    client.get("a")


def lock_goes_round(client: Client, session: Session, second: Session) -> None:
    tokens: list[FencingToken] = []
    held, waiting = Lock(session, "x", b"one"), Lock(second, "x", b"two")
    with held as token:
        assert held.is_acquired
        assert held.token == token
        assert waiting.try_acquire() is None
        with pytest.raises(TimeoutError):
            waiting.acquire(timeout_ms=50)
        thread = threading.Thread(target=lambda: tokens.append(waiting.acquire()))
        thread.start()
        while held.contenders() != [b"one", b"two"]:
            pass
        assert client.transaction(Transaction().fenced_by(token).put("a", b"1")).success
    thread.join(10)
    assert tokens[0].seq > token.seq
    assert not client.transaction(Transaction().fenced_by(token).put("a", b"2")).success
    waiting.release()


def office_goes_round(session: Session, second: Session) -> None:
    first, other = Election(session, "e"), Election(second, "e")
    token = first.campaign(b"one", timeout_ms=5_000)
    observing: Iterator[Leader | None] = other.observe()
    assert next(observing) == Leader(b"one", token) == other.leader()
    first.proclaim(b"ready")
    assert next(observing) == Leader(b"ready", token)
    assert first.is_leader
    assert first.token == token
    first.resign()
    assert next(observing) is None
    assert other.campaign().seq > token.seq
    other.resign()


def work_is_done(client: Client, session: Session, second: Session) -> None:
    queue, consumer = Queue(session, "q"), Queue(second, "q")
    queue.put(b"later")
    queue.put(b"now", priority=1)
    with consumer.take() as item:
        assert (item.value, item.priority) == (b"now", 1)
    item = consumer.take()
    item.release()
    item = consumer.take(timeout_ms=5_000)
    item.done(Transaction().put("result", item.value))
    with pytest.raises(FencedError):
        item.done()
    record = client.get("result")
    assert record is not None
    assert record.data == b"later"
    assert item.token.seq > 0
    assert queue.size() == 0


def barriers_hold(session: Session, second: Session) -> None:
    barrier = Barrier(session, "b")
    barrier.create()
    with pytest.raises(TimeoutError):
        Barrier(second, "b").wait(timeout_ms=50)
    barrier.remove()
    Barrier(second, "b").wait()
    tokens: list[FencingToken] = []

    def take_part() -> None:
        with DoubleBarrier(second, "d", 2) as token:
            tokens.append(token)

    thread = threading.Thread(target=take_part)
    thread.start()
    member = DoubleBarrier(session, "d", 2)
    token = member.enter(timeout_ms=10_000)
    member.leave(timeout_ms=10_000)
    thread.join(10)
    assert tokens == [token]


def count_is_right(session: Session, second: Session) -> None:
    first, other = Counter(session, "c"), Counter(second, "c")
    assert first.add(2).value == 2
    assert other.add().value == 3
    assert first.get().value == 3


def following_ends_with_its_reader(client: Client, other: Client) -> None:
    events = client.watch_prefix("w/")
    assert next(events).kind is SYNCED
    other.upsert("w/a", b"1")
    assert told([next(events)]) == [(PUT, "w/a", b"1")]
    del events
    key = client.watch_key("w/a")
    assert told([next(key), next(key)]) == [(PUT, "w/a", b"1"), (SYNCED, "", None)]


async def test_recipes_from_threads(start_node: StartNode) -> None:
    node = await start_node()
    await asyncio.to_thread(in_threads, node)
    assert [task for task in threading.enumerate() if task.name == "metasrv-client"] == []

"""What `metasrv.client` offers: its names, its types as a type checker sees them, and blocking forms like the async ones.

The functions of `UseOfTheLibrary` are never called: mypy checks them, with every other file of the tests.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Iterator
from typing import assert_type

import pytest

import metasrv.client as library
from metasrv.client import (
    AsyncBarrier,
    AsyncClient,
    AsyncCounter,
    AsyncDoubleBarrier,
    AsyncElection,
    AsyncLock,
    AsyncQueue,
    AsyncQueueItem,
    AsyncSession,
    Barrier,
    Client,
    Count,
    Counter,
    DoubleBarrier,
    Election,
    EventKind,
    Executed,
    FencingToken,
    Leader,
    Lock,
    PrefixEvent,
    Queue,
    QueueItem,
    SeqV,
    Session,
    Transaction,
    WatchEvent,
)
from metasrv.client.interface import KeyValueClient
from metasrv.model.commands import TransactionReply, UpsertReply

PAIRS: list[tuple[type, type]] = [
    (Client, AsyncClient),
    (Session, AsyncSession),
    (Lock, AsyncLock),
    (Election, AsyncElection),
    (Counter, AsyncCounter),
    (Barrier, AsyncBarrier),
    (DoubleBarrier, AsyncDoubleBarrier),
    (Queue, AsyncQueue),
    (QueueItem, AsyncQueueItem),
]
ASYNC_ONLY = {
    AsyncClient: {"archive_messages", "cluster_id", "endpoints", "export_messages", "migrate"},
    AsyncSession: {"attach", "detach", "detach_later", "execute_later", "while_alive"},
    AsyncQueueItem: {"release_later"},
}
"""What only asynchronous code has a use for, or what tools of this repository use."""


class UseOfTheLibrary:
    async def of_the_async_client(self, client: AsyncClient) -> None:
        assert_type(await client.get("a"), SeqV | None)
        assert_type(await client.list_prefix("a"), list[tuple[str, SeqV]])
        assert_type(await client.upsert("a", b""), UpsertReply)
        assert_type(await client.transaction(Transaction().put("a", b"")), TransactionReply)
        assert_type(client.watch("a"), AsyncGenerator[WatchEvent, None])
        assert_type(client.watch_prefix("a"), AsyncGenerator[PrefixEvent, None])
        async for event in client.watch_key("a"):
            assert_type(event.kind, EventKind)
            assert_type(event.record, SeqV | None)
        as_the_recipes_see_it: KeyValueClient = client
        del as_the_recipes_see_it

    async def of_async_recipes(self, client: AsyncClient) -> None:
        async with client.session(ttl_ms=5_000, name="me") as session:
            assert_type(session, AsyncSession)
            assert_type(session.lost.is_set(), bool)
            assert_type(await session.execute_once(Transaction()), Executed)
            assert_type(await session.while_alive(client.get("a")), SeqV | None)
            async with AsyncLock(session, "a") as token:
                assert_type(token, FencingToken)
                assert_type(Transaction().fenced_by(token), Transaction)
            assert_type(await AsyncLock(session, "a").try_acquire(), FencingToken | None)
            assert_type(await AsyncElection(session, "a").campaign(b""), FencingToken)
            assert_type(AsyncElection(session, "a").observe(), AsyncGenerator[Leader | None, None])
            assert_type(await AsyncCounter(session, "a").add(2), Count)
            assert_type(await AsyncBarrier(session, "a").create(), FencingToken)
            async with AsyncDoubleBarrier(session, "a", 2) as beginning:
                assert_type(beginning, FencingToken)
            async with await AsyncQueue(session, "a").take(timeout_ms=1) as item:
                assert_type(item, AsyncQueueItem)
                assert_type(item.value, bytes)

    def of_the_blocking_client(self, client: Client) -> None:
        assert_type(client.get("a"), SeqV | None)
        assert_type(client.transaction(Transaction(), timeout_ms=5), TransactionReply)
        assert_type(client.watch_prefix("a"), Iterator[PrefixEvent])
        with client.session() as session:
            assert_type(session, Session)
            assert_type(session.lost.wait(1.5), bool)
            assert_type(session.execute_once(Transaction()), Executed)
            with Lock(session, "a") as token:
                assert_type(token, FencingToken)
            assert_type(Election(session, "a").leader(), Leader | None)
            assert_type(Election(session, "a").observe(), Iterator[Leader | None])
            assert_type(Counter(session, "a").get().value, int)
            assert_type(Barrier(session, "a").create(), FencingToken)
            assert_type(DoubleBarrier(session, "a", 2).enter(), FencingToken)
            assert_type(Queue(session, "a").take(), QueueItem)


def public(kind: type) -> dict[str, object]:
    return {name: value for name, value in vars(kind).items() if not name.startswith("_")}


def parameters(function: object) -> list[tuple[str, object, object]]:
    assert callable(function)
    return [(each.name, each.default, each.annotation) for each in inspect.signature(function).parameters.values()][1:]


def test_every_name_is_there_once_and_documented() -> None:
    assert sorted(library.__all__) == library.__all__ == sorted(set(library.__all__))
    silent = [name for name in library.__all__ if not inspect.getdoc(getattr(library, name))]
    assert silent == []


@pytest.mark.parametrize(("blocking", "asynchronous"), PAIRS, ids=lambda kind: kind.__name__)
def test_a_blocking_class_has_the_methods_of_the_async_one(blocking: type, asynchronous: type) -> None:
    offered = public(asynchronous)
    missing = offered.keys() - public(blocking).keys() - ASYNC_ONLY.get(asynchronous, set())
    instance_attributes = {"client", "id", "key", "lost", "ttl_ms", "priority", "value"}
    assert missing - instance_attributes == set()
    for name, function in public(blocking).items():
        if name in offered and inspect.isfunction(function) and inspect.isfunction(offered[name]):
            assert parameters(function) == parameters(offered[name]), f"{blocking.__name__}.{name}"


def test_a_difference_would_be_noticed() -> None:
    assert parameters(Lock.acquire) != parameters(Queue.put)
    assert "watch_prefix" in public(Client)

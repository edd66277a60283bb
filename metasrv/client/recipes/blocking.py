"""The blocking form of each recipe, for threads: the same code on the client's loop thread.

    with client.session() as session, Lock(session, "reports/daily") as token:
        client.transaction(Transaction().fenced_by(token).put("reports/last", b"..."))

The async classes document what each call means and raises. Any thread may call; one object is one contender.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Self

from metasrv.client.blocking_sessions import Session
from metasrv.client.recipes.barrier import AsyncBarrier, AsyncDoubleBarrier
from metasrv.client.recipes.counter import AsyncCounter, Count
from metasrv.client.recipes.election import AsyncElection, Leader
from metasrv.client.recipes.lock import AsyncLock
from metasrv.client.recipes.queue import PRIORITY_DEFAULT, AsyncQueue, AsyncQueueItem
from metasrv.client.transaction import FencingToken, Transaction


class Lock:
    """The blocking form of `AsyncLock`."""

    def __init__(self, session: Session, name: str, value: bytes = b"") -> None:
        self._session = session
        self._lock = AsyncLock(session.asynchronous, name, value)

    def __enter__(self) -> FencingToken:
        return self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    @property
    def token(self) -> FencingToken | None:
        return self._lock.token

    @property
    def is_acquired(self) -> bool:
        return self._lock.token is not None and not self._session.lost.is_set()

    def acquire(self, *, timeout_ms: int | None = None) -> FencingToken:
        return self._session.run(self._lock.acquire(timeout_ms=timeout_ms))

    def try_acquire(self) -> FencingToken | None:
        return self._session.run(self._lock.try_acquire())

    def release(self) -> None:
        self._session.run(self._lock.release())

    def contenders(self) -> list[bytes]:
        return self._session.run(self._lock.contenders())


class Election:
    """The blocking form of `AsyncElection`."""

    def __init__(self, session: Session, name: str) -> None:
        self._session = session
        self._election = AsyncElection(session.asynchronous, name)

    @property
    def token(self) -> FencingToken | None:
        return self._election.token

    @property
    def is_leader(self) -> bool:
        return self._election.token is not None and not self._session.lost.is_set()

    def campaign(self, value: bytes = b"", *, timeout_ms: int | None = None) -> FencingToken:
        return self._session.run(self._election.campaign(value, timeout_ms=timeout_ms))

    def proclaim(self, value: bytes) -> None:
        self._session.run(self._election.proclaim(value))

    def resign(self) -> None:
        self._session.run(self._election.resign())

    def leader(self) -> Leader | None:
        return self._session.run(self._election.leader())

    def observe(self) -> Iterator[Leader | None]:
        return self._session.iterate(self._election.observe())


class Counter:
    """The blocking form of `AsyncCounter`."""

    def __init__(self, session: Session, name: str, default: int = 0) -> None:
        self._session = session
        self._counter = AsyncCounter(session.asynchronous, name, default)

    def get(self) -> Count:
        return self._session.run(self._counter.get())

    def add(self, delta: int = 1) -> Count:
        return self._session.run(self._counter.add(delta))


class Barrier:
    """The blocking form of `AsyncBarrier`."""

    def __init__(self, session: Session, name: str) -> None:
        self._session = session
        self._barrier = AsyncBarrier(session.asynchronous, name)

    def create(self) -> FencingToken:
        return self._session.run(self._barrier.create())

    def remove(self) -> None:
        self._session.run(self._barrier.remove())

    def wait(self, *, timeout_ms: int | None = None) -> None:
        self._session.run(self._barrier.wait(timeout_ms=timeout_ms))


class DoubleBarrier:
    """The blocking form of `AsyncDoubleBarrier`."""

    def __init__(self, session: Session, name: str, count: int) -> None:
        self._session = session
        self._barrier = AsyncDoubleBarrier(session.asynchronous, name, count)

    def __enter__(self) -> FencingToken:
        return self.enter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()

    def enter(self, *, timeout_ms: int | None = None) -> FencingToken:
        return self._session.run(self._barrier.enter(timeout_ms=timeout_ms))

    def leave(self, *, timeout_ms: int | None = None) -> None:
        self._session.run(self._barrier.leave(timeout_ms=timeout_ms))


class Queue:
    """The blocking form of `AsyncQueue`."""

    def __init__(self, session: Session, name: str) -> None:
        self._session = session
        self._queue = AsyncQueue(session.asynchronous, name)

    def put(self, value: bytes, *, priority: int = PRIORITY_DEFAULT) -> None:
        self._session.run(self._queue.put(value, priority=priority))

    def take(self, *, timeout_ms: int | None = None) -> QueueItem:
        return QueueItem(self._session, self._session.run(self._queue.take(timeout_ms=timeout_ms)))

    def size(self) -> int:
        return self._session.run(self._queue.size())


class QueueItem:
    """The blocking form of `AsyncQueueItem`."""

    def __init__(self, session: Session, item: AsyncQueueItem) -> None:
        self._session = session
        self._item = item

    @property
    def value(self) -> bytes:
        return self._item.value

    @property
    def priority(self) -> int:
        return self._item.priority

    @property
    def token(self) -> FencingToken:
        return self._item.token

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.done()
        else:
            self.release()

    def done(self, writes: Transaction | None = None) -> None:
        self._session.run(self._item.done(writes))

    def release(self) -> None:
        self._session.run(self._item.release())

"""A queue of work that outlives its programs: each item has one consumer at a time, until one of them is done with it.

    queue = AsyncQueue(session, "thumbnails")
    await queue.put(b"picture-17")
    async with await queue.take() as item:
        ...

An item whose consumer loses its session goes to another one, so work may be begun more than once. Its results are
written once: `item.done(writes)` writes them and removes the item in one transaction, and only for the consumer who
still has the item. Runs on the client's event loop.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import NamedTuple, Self
from uuid import uuid4

from metasrv.client.recipes.waiting import (
    FencedError,
    Held,
    first_of,
    held_of,
    held_value,
    living,
    seconds_of,
    seq_of_put,
    seqs_of,
    until_changed,
)
from metasrv.client.sessions import AsyncSession
from metasrv.client.transaction import FencingToken, Transaction
from metasrv.model.types import SeqV

PRIORITY_DEFAULT = 100
PRIORITY_MAX = 99_999
LOOK_AHEAD = 16
"""Items that a consumer reads at first; more when all of them are taken."""


class AsyncQueue:
    """The queue `name`: items of a smaller `priority` first, the earliest of those first."""

    def __init__(self, session: AsyncSession, name: str) -> None:
        self._session = session
        self._client = session.client
        self._prefix = f"{name}/queue/"
        self._items = f"{self._prefix}items/"
        self._claims = f"{self._prefix}claims/"
        self._sequence_key = f"{name}/queue-last"

    async def put(self, value: bytes, *, priority: int = PRIORITY_DEFAULT) -> None:
        """Add an item, exactly once. Raises as `AsyncSession.execute_once`."""
        if not 0 <= priority <= PRIORITY_MAX:
            raise ValueError(f"priority is {priority}, between 0 and {PRIORITY_MAX} is possible")
        item = Transaction().put_sequential(f"{self._items}{priority:05d}/", self._sequence_key, value)
        await self._session.execute_once(item)

    async def take(self, *, timeout_ms: int | None = None) -> AsyncQueueItem:
        """Wait for an item that nobody has. Raises TimeoutError, SessionLostError, or what the client's calls raise."""
        taken: list[AsyncQueueItem] = []
        try:
            async with asyncio.timeout(seconds_of(timeout_ms)):
                await self._session.while_alive(self._take(taken))
        except BaseException:
            for item in taken:  # the caller was cancelled just then
                item.release_later()
            raise
        return taken[0]

    async def size(self) -> int:
        """Items that nobody is done with."""
        return len(await self._client.list_prefix(self._items))

    # ------------------------------------------------------------------------- taking

    async def _take(self, found: list[AsyncQueueItem]) -> None:
        """Put the item into `found`, where it is seen whatever happens to the caller."""
        count = LOOK_AHEAD
        while True:
            items = await self._client.list_prefix(self._items, limit=count)
            claims = await self._client.list_prefix(self._claims)
            present = {key: held for key, record in claims if (held := held_of(key, record)) is not None}
            alive = await living(self._client, [held.session_key for held in present.values()])
            for key, record in items:
                claim = present.get(self._claim_of(key))
                if claim is None or claim.session_key not in alive:
                    taken = await self._claim(key, record, claim)
                    if taken is not None:
                        found.append(taken)
                        return
            if len(items) == count:
                count *= 2
                continue
            count = LOOK_AHEAD
            seen = seqs_of([*claims, *items])
            pause = asyncio.sleep(self._session.ttl_ms / 2000)  # then it is time to look for sessions that are over
            await first_of(until_changed(self._client, self._prefix, seen), pause)

    def _claim_of(self, item_key: str) -> str:
        return self._claims + item_key[len(self._items) :]

    async def _claim(self, key: str, record: SeqV, before: Held | None) -> AsyncQueueItem | None:
        """The item, unless it is done or another consumer was faster."""
        claim_key = self._claim_of(key)
        data = held_value(self._session, uuid4().hex.encode())
        claim = Transaction().when_seq(key, "==", record.seq)
        if before is None:
            claim.when_absent(claim_key)
        else:
            claim.fenced_by(before.token).when_absent(before.session_key)
        try:
            executed = await self._session.execute_once(claim.put(claim_key, data))
            if not executed.success:
                return None
            seq = seq_of_put(executed)
            if seq is None:
                present = await self._client.get(claim_key)
                seq = present.seq if present is not None and present.data == data else None
        except BaseException:
            self._session.execute_later(Transaction().when_value(claim_key, "==", data).delete(claim_key))
            raise
        if seq is None:
            return None  # the session was taken for over, and another consumer has it
        item_id = key[len(self._items) :]
        priority = int(item_id.partition("/")[0])
        place = _Place(key, record.seq, FencingToken(claim_key, seq))
        return AsyncQueueItem(self._session, place, record.data, priority)


class _Place(NamedTuple):
    key: str
    seq: int
    token: FencingToken


class AsyncQueueItem:
    """An item that this consumer has. In `async with` it is done at the end, or given back when that raises."""

    def __init__(self, session: AsyncSession, place: _Place, value: bytes, priority: int) -> None:
        self._session = session
        self._place = place
        self.value = value
        self.priority = priority

    @property
    def token(self) -> FencingToken:
        """Holds while this consumer has the item."""
        return self._place.token

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            await self.done()
        else:
            self.release_later()

    async def done(self, writes: Transaction | None = None) -> None:
        """Remove the item, and execute `writes`, which has no conditions, in the same instant.

        Raises FencedError when another consumer has it, or it was done or given back before: nothing was written then.
        """
        transaction = Transaction()
        if writes is not None:
            request = writes.request
            if request.condition or request.operations or request.else_then:
                raise ValueError("what is written with the end of an item has no conditions")
            transaction.request.if_then.extend(request.if_then)
        transaction.fenced_by(self.token).delete(self._place.key).delete(self.token.key)
        if not (await self._session.execute_once(transaction)).success:
            raise FencedError("this consumer does not have the item any more")

    async def release(self) -> None:
        """Give the item back, for any consumer; nothing happens if this one does not have it any more."""
        await asyncio.wait([self.release_later()])

    def release_later(self) -> asyncio.Task[None]:
        """The same in the background."""
        return self._session.execute_later(Transaction().fenced_by(self.token).delete(self.token.key))

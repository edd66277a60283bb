"""Barriers: a gate that somebody closes and opens, and a round that begins and ends with all of its members.

    barrier = AsyncBarrier(session, "maintenance")
    await barrier.create()   # from now on others wait
    await barrier.remove()

    async with AsyncDoubleBarrier(session, "shuffle", count=3) as token: ...

Runs on the client's event loop.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

from metasrv.client.following import wait_until
from metasrv.client.loss import SessionLostError
from metasrv.client.recipes.waiting import (
    Held,
    directly_under,
    first_of,
    held_of,
    held_value,
    living,
    removal_of_dead,
    seconds_of,
    seqs_of,
    unique_key,
    until_absent,
    until_changed,
    until_gone,
)
from metasrv.client.sessions import AsyncSession
from metasrv.client.transaction import FencingToken, Transaction
from metasrv.model.errors import NotDoneError, UnknownOutcomeError
from metasrv.model.types import SeqV

MEMBERS_MAX = 4_000
"""Members of a round: each takes two conditions of one transaction, which has room for 10,000."""


class AsyncBarrier:
    """The barrier `name`. It stays when the program that made it ends: what it waits for may not have happened."""

    def __init__(self, session: AsyncSession, name: str) -> None:
        self._session = session
        self._client = session.client
        self._key = f"{name}/barrier"

    async def create(self) -> FencingToken:
        """Close the barrier, if it is open; the token holds until it is removed."""
        record: SeqV | None = None
        while record is None:
            await self._session.execute_once(Transaction().when_absent(self._key).put(self._key, b""))
            record = await self._client.get(self._key)
        return FencingToken(self._key, record.seq)

    async def remove(self) -> None:
        """Open it; all who wait go on."""
        await self._session.execute_once(Transaction().delete(self._key))

    async def wait(self, *, timeout_ms: int | None = None) -> None:
        """Return when the barrier is open. Raises TimeoutError, or what the client's calls raise."""
        async with asyncio.timeout(seconds_of(timeout_ms)):
            await until_absent(self._client, self._key)


class AsyncDoubleBarrier:
    """A place in rounds of `count` members each. A member whose session ends has left."""

    def __init__(self, session: AsyncSession, name: str, count: int) -> None:
        if not 1 <= count <= MEMBERS_MAX:
            raise ValueError(f"a round has between 1 and {MEMBERS_MAX} members")
        self._session = session
        self._client = session.client
        self._count = count
        self._round_key = f"{name}/double-barrier/round"
        self._prefix = f"{name}/double-barrier/members/"
        self._own_key: str | None = None
        self._round: FencingToken | None = None

    async def __aenter__(self) -> FencingToken:
        return await self.enter()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.leave()

    async def enter(self, *, timeout_ms: int | None = None) -> FencingToken:
        """Wait until `count` members are there; the token, the same for all, holds until all of them have left.

        Raises TimeoutError, SessionLostError, or what the client's calls raise; then this member has not entered.
        """
        if self._own_key is not None:
            raise RuntimeError("this object has entered or waits already: one object for each member")
        self._own_key = unique_key(self._prefix)
        self._session.attach(self._own_key)
        try:
            async with asyncio.timeout(seconds_of(timeout_ms)):
                self._round = await self._session.while_alive(self._enter(self._own_key))
        except BaseException:
            self._session.detach_later(self._own_key)
            self._own_key = None
            raise
        return self._round

    async def leave(self, *, timeout_ms: int | None = None) -> None:
        """Leave, and wait until all members of the round have left or lost their sessions.

        Raises as `enter`; this member has left in any case, at the latest with its session.
        """
        if self._own_key is None or self._round is None:
            raise RuntimeError("this object has not entered")
        own_key, began = self._own_key, self._round
        self._own_key = self._round = None
        left = self._session.detach_later(own_key)
        async with asyncio.timeout(seconds_of(timeout_ms)):
            await asyncio.wait([left])
            await self._session.while_alive(self._until_over(began))

    # ------------------------------------------------------------------------- a round

    async def _enter(self, own_key: str) -> FencingToken:
        own = Transaction().when_absent(self._round_key).put(own_key, held_value(self._session))
        while not (await self._session.execute_once(own)).success:
            round_record = await self._client.get(self._round_key)
            if round_record is not None:
                await self._until_over(FencingToken(self._round_key, round_record.seq))
        while True:
            round_record = await self._client.get(self._round_key)
            if round_record is not None:
                began = FencingToken(self._round_key, round_record.seq)
                if own_key in _members(round_record):
                    return began
                await self._until_over(began)  # more came than a round has place for: the next one is theirs
                continue
            items = await self._client.list_prefix(self._prefix)
            waiting = directly_under(self._prefix, items)
            alive = await living(self._client, [held.session_key for held in waiting])
            if own_key not in {held.token.key for held in waiting}:
                raise SessionLostError("another member found the session over")
            present = [held for held in waiting if held.session_key in alive]
            for held in waiting:
                if held.session_key not in alive:
                    await self._try(removal_of_dead(held))
            if len(present) >= self._count:
                await self._begin(present[: self._count])
            else:
                changed = until_changed(self._client, self._prefix, seqs_of(items))
                round_began = wait_until(self._client, self._round_key, None, bool)
                await first_of(changed, round_began, self._pause())

    async def _begin(self, members: list[Held]) -> None:
        """Begin a round of these, unless one of them has gone or another one has begun it."""
        beginning = Transaction().when_absent(self._round_key)
        for held in members:
            beginning.fenced_by(held.token)
        for session_key in sorted({held.session_key for held in members}):
            beginning.when_present(session_key)
        text = "\n".join(held.token.key for held in members)
        await self._session.execute_once(beginning.put(self._round_key, text.encode()))

    async def _until_over(self, began: FencingToken) -> None:
        """Until the round has ended; ends it when all its members have left."""
        while True:
            record = await self._client.get(began.key)
            if record is None or record.seq != began.seq:
                return
            members = _members(record)
            present = [
                held
                for key, found in zip(members, await self._client.get_many(members), strict=True)
                if found is not None and (held := held_of(key, found)) is not None
            ]
            alive = await living(self._client, [held.session_key for held in present])
            for held in present:
                if held.session_key not in alive:
                    await self._try(removal_of_dead(held))
            if not present:
                await self._end(began, members)
                continue
            seen = seqs_of(await self._client.list_prefix(self._prefix))
            if any(held.token.key not in seen for held in present):
                continue
            await first_of(
                until_gone(self._client, began), until_changed(self._client, self._prefix, seen), self._pause()
            )

    async def _end(self, began: FencingToken, members: list[str]) -> None:
        ending = Transaction().fenced_by(began)
        for key in members:
            ending.when_absent(key)
        await self._try(ending.delete(began.key))

    async def _try(self, transaction: Transaction) -> None:
        """Send what is safe at any time and again; the next look shows whether it was done."""
        try:
            await self._client.transaction(transaction)
        except (NotDoneError, UnknownOutcomeError):
            self._session.lost.check()

    async def _pause(self) -> None:
        """Until it is time to look for sessions that are over."""
        await asyncio.sleep(self._session.ttl_ms / 2000)


def _members(round_record: SeqV) -> list[str]:
    return round_record.data.decode().split("\n")

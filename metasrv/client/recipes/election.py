"""An election: one leader at a time among those who campaign, and a value that the leader proclaims.

    election = AsyncElection(session, "scheduler")
    token = await election.campaign(b"host-1:8080")

The leader's writes belong behind `Transaction().fenced_by(token)`. Runs on the client's event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from functools import partial
from typing import NamedTuple

from metasrv.client.recipes.line import Line
from metasrv.client.recipes.waiting import (
    FencedError,
    directly_under,
    first_of,
    patiently,
    seconds_of,
    seqs_of,
    until_absent,
    until_changed,
)
from metasrv.client.sessions import AsyncSession
from metasrv.client.transaction import FencingToken, Transaction


class Leader(NamedTuple):
    """Who leads: what it proclaims, and the token that its writes are fenced by."""

    value: bytes
    token: FencingToken


class AsyncElection:
    """One candidate, or an observer, of the election `name`."""

    def __init__(self, session: AsyncSession, name: str) -> None:
        self._session = session
        self._client = session.client
        self._line = Line(session, f"{name}/election/")
        self._proclaimed_key = f"{name}/election/proclaimed"
        self._token: FencingToken | None = None
        self._busy = False

    @property
    def token(self) -> FencingToken | None:
        """The token of this candidate's term of office."""
        return self._token

    @property
    def is_leader(self) -> bool:
        """Whether this candidate leads by the rule of `session.lost`."""
        return self._token is not None and not self._session.lost.is_set()

    async def campaign(self, value: bytes = b"", *, timeout_ms: int | None = None) -> FencingToken:
        """Wait until elected. Raises TimeoutError, SessionLostError, or what the client's calls raise.

        Whoever is cancelled or times out does not stand any more.
        """
        if self._busy:
            raise RuntimeError("this object campaigns or leads already: one object for each candidate")
        self._busy = True
        token: FencingToken | None = None
        try:
            token = await self._line.join(value)
            async with asyncio.timeout(seconds_of(timeout_ms)):
                await self._line.wait_turn(token)
        except BaseException:
            self._busy = False
            if token is not None:
                self._line.leave_later(token)
            raise
        self._token = token
        return token

    async def proclaim(self, value: bytes) -> None:
        """Replace the leader's value. Raises FencedError when this candidate does not lead any more."""
        if self._token is None:
            raise RuntimeError("only a leader proclaims")
        data = f"{self._token.seq}\n".encode() + value
        done = await self._session.execute_once(Transaction().fenced_by(self._token).put(self._proclaimed_key, data))
        if not done.success:
            raise FencedError("this candidate does not lead any more")

    async def resign(self) -> None:
        """Stop leading, so that the next candidate does. Cancelled meanwhile, it goes on in the background."""
        if self._token is None:
            raise RuntimeError("this candidate does not lead")
        token, self._token = self._token, None
        self._busy = False
        await self._line.leave(token)

    async def leader(self) -> Leader | None:
        """Who leads now; None between two leaders."""
        return (await self._look())[0]

    async def observe(self) -> AsyncGenerator[Leader | None, None]:
        """The present leader, then each change of leader or value; None while nobody leads.

        Leaders and values that lasted only for a moment may be left out, the present one never is.
        """
        yielded: list[Leader | None] = []
        while True:
            look = patiently(self._session, self._look)
            leader, seen, session_key = await self._session.while_alive(look)
            if yielded != [leader]:
                yielded = [leader]
                yield leader
            change = patiently(self._session, partial(self._until_changed, seen, session_key))
            await self._session.while_alive(change)

    async def _until_changed(self, seen: dict[str, int], session_key: str | None) -> None:
        waits = [until_changed(self._client, self._line.prefix, seen)]
        if session_key is not None:
            waits.append(until_absent(self._client, session_key))
        await first_of(*waits)

    async def _look(self) -> tuple[Leader | None, dict[str, int], str | None]:
        """The leader, the sequence numbers that this was read from, and the key of the leader's session."""
        items = await self._client.list_prefix(self._line.prefix)
        seen = seqs_of(items)
        contenders = directly_under(self._line.prefix, [item for item in items if item[0] != self._proclaimed_key])
        if not contenders:
            return None, seen, None
        first = contenders[0]
        if await self._client.get(first.session_key) is None:
            return None, seen, None
        value = first.value
        proclaimed = dict(items).get(self._proclaimed_key)
        if proclaimed is not None:
            seq, _, text = proclaimed.data.partition(b"\n")
            if seq == str(first.token.seq).encode():
                value = text
        return Leader(value, first.token), seen, first.session_key

"""A line of contenders, served in the order in which they came: what a lock and an election share.

Each contender has a record under the line's prefix, written once in its session. Its sequence number is its place and,
later, its fencing token. Whoever sees nobody before it is served: nobody can come before it any more. Each contender
watches only the one before it, and removes it if that one's session is over. Runs on the client's event loop.
"""

from __future__ import annotations

from functools import partial

from metasrv.client.loss import SessionLostError
from metasrv.client.recipes.waiting import (
    Held,
    directly_under,
    first_of,
    held_value,
    patiently,
    removal_of_dead,
    seq_of_put,
    unique_key,
    until_absent,
    until_gone,
)
from metasrv.client.sessions import AsyncSession
from metasrv.client.transaction import FencingToken, Transaction
from metasrv.model.errors import NotDoneError, UnknownOutcomeError


class Line:
    """The line under `prefix`, which ends in a slash."""

    def __init__(self, session: AsyncSession, prefix: str) -> None:
        self._session = session
        self._client = session.client
        self.prefix = prefix

    async def contenders(self) -> list[Held]:
        """Everybody in the line, the first one first; also those whose session is over and who were not yet removed."""
        return directly_under(self.prefix, await self._client.list_prefix(self.prefix))

    async def join(self, value: bytes) -> FencingToken:
        """Stand at the end of the line."""
        key = unique_key(self.prefix)
        self._session.attach(key)
        try:
            data = held_value(self._session, value)
            seq = seq_of_put(await self._session.execute_once(Transaction().when_absent(key).put(key, data)))
            if seq is None:
                record = await patiently(self._session, lambda: self._client.get(key))
                seq = 0 if record is None else record.seq
        except BaseException:
            self._session.detach_later(key)
            raise
        if not seq:
            raise SessionLostError("another contender found the session over")
        return FencingToken(key, seq)

    async def wait_turn(self, token: FencingToken) -> None:
        """Return when nobody is before `token`; raises SessionLostError as soon as the session is over."""
        await self._session.while_alive(self._wait_turn(token))
        self._session.lost.check()

    async def is_turn(self, token: FencingToken) -> bool:
        """Whether nobody is before it now, once those were removed whose session is over."""
        while (ahead := await self._ahead(token)) is not None:
            if await self._client.get(ahead.session_key) is not None:
                return False
            await self._remove_dead(ahead)
        return True

    async def leave(self, token: FencingToken) -> None:
        await self._session.detach(token.key)

    def leave_later(self, token: FencingToken) -> None:
        """For a contender who is cancelled."""
        self._session.detach_later(token.key)

    async def _wait_turn(self, token: FencingToken) -> None:
        while (ahead := await self._ahead(token)) is not None:
            await patiently(self._session, partial(self._until_over, ahead))
            await self._remove_dead(ahead)

    async def _until_over(self, held: Held) -> None:
        gone = until_gone(self._client, held.token)
        await first_of(gone, until_absent(self._client, held.session_key))

    async def _ahead(self, token: FencingToken) -> Held | None:
        """The contender right before `token`."""
        contenders = await patiently(self._session, self.contenders)
        if all(held.token != token for held in contenders):
            raise SessionLostError("another contender found the session over")
        earlier = [held for held in contenders if held.token.seq < token.seq]
        return earlier[-1] if earlier else None

    async def _remove_dead(self, held: Held) -> None:
        """Changes nothing if its session lives. Unheard answers do not matter: the line is read again."""
        try:
            await self._client.transaction(removal_of_dead(held))
        except (NotDoneError, UnknownOutcomeError):
            self._session.lost.check()

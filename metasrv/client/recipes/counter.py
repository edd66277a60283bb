"""A counter that several programs change, each change exactly once.

    counter = AsyncCounter(session, "orders/count")
    print((await counter.add(3)).value)

A change compares and sets: it is refused when another one came between, and then made again. When an answer is lost,
the session finds out whether the change was made (`AsyncSession.execute_once`), so none is made twice. The value is its
decimal text. Runs on the client's event loop.
"""

from __future__ import annotations

import asyncio
import random
from typing import NamedTuple

from metasrv.client.recipes.waiting import seq_of_put
from metasrv.client.sessions import AsyncSession
from metasrv.client.transaction import FencingToken, Transaction
from metasrv.model import commands as c
from metasrv.model.types import SeqV

PAUSE_SECONDS_MAX = 0.2
_BACKOFF_SECONDS = 0.005


class Count(NamedTuple):
    """A value, and the token that holds until the counter changes again; after a lost answer it may not hold at all."""

    value: int
    token: FencingToken


class AsyncCounter:
    """The counter at the key `name`; `default` is its value while the key is absent."""

    def __init__(self, session: AsyncSession, name: str, default: int = 0) -> None:
        self._session = session
        self._client = session.client
        self._key = name
        self._default = default

    async def get(self) -> Count:
        """The present value. Raises ValueError when the key holds something else."""
        return self._count(await self._client.get(self._key))

    async def add(self, delta: int = 1) -> Count:
        """Change the value by `delta`, which may be negative; returns what it is then.

        Raises SessionLostError when the session ends before the outcome is known, or what a write of the client raises
        when nothing was changed.
        """
        present = await self.get()
        pause = _BACKOFF_SECONDS
        while True:
            after = present.value + delta
            change = Transaction().fenced_by(present.token).put(self._key, str(after).encode())
            executed = await self._session.execute_once(change.otherwise().get(self._key))
            if executed.success:
                # After a lost answer a number that no other change has: a fence that may refuse.
                seq = seq_of_put(executed) or present.token.seq + 1
                return Count(after, FencingToken(self._key, seq))
            response = executed.responses[0] if executed.responses else None
            present = self._count(response.value) if isinstance(response, c.GetResponse) else await self.get()
            await asyncio.sleep(random.uniform(0, pause))  # noqa: S311 - spreads contenders, keeps no secret
            pause = min(2 * pause, PAUSE_SECONDS_MAX)

    def _count(self, record: SeqV | None) -> Count:
        if record is None:
            return Count(self._default, FencingToken(self._key, 0))
        return Count(int(record.data.decode()), FencingToken(self._key, record.seq))

"""A program that competes for a lock and writes under its fence, until its time is over; prints one JSON object a line.

    python -m tests.support.lock_worker NUMBER SECONDS HOST:PORT ...

Its parent stops and continues it with signals. Times are of the machine's monotonic clock, so that the lines of several
workers make one history.
"""

from __future__ import annotations

import asyncio
import json
import sys
from time import monotonic

from metasrv.client import (
    AsyncClient,
    AsyncCounter,
    AsyncLock,
    AsyncSession,
    FencingToken,
    NotDoneError,
    SessionLostError,
    Transaction,
    UnknownOutcomeError,
)

LOCK = "protected"
KEY = "protected/value"
COUNTER = "protected/count"
TTL_MS = 1_500
WRITES_PER_HOLD = 4


def say(**fields: object) -> None:
    print(json.dumps(fields), flush=True)


async def main(number: int, seconds: float, endpoints: list[str]) -> None:
    until = monotonic() + seconds
    serial = 0
    async with AsyncClient(endpoints, timeout_ms=3_000) as client:
        while monotonic() < until:
            session = AsyncSession(client, ttl_ms=TTL_MS, name=f"worker {number}")
            try:
                await session.open()
                token = await AsyncLock(session, LOCK).acquire(timeout_ms=max(1, round((until - monotonic()) * 1000)))
                say(kind="acquired", seq=token.seq, at=monotonic())
                for _ in range(WRITES_PER_HOLD):
                    serial += 1
                    await write(client, token, f"{number}-{serial}")
                await AsyncCounter(session, COUNTER).add(1)
                say(kind="counted")
            except (SessionLostError, NotDoneError, UnknownOutcomeError, TimeoutError) as error:
                say(kind="lost", why=str(error))
            finally:
                await session.close()


async def write(client: AsyncClient, token: FencingToken, value: str) -> None:
    """One write under the fence; goes on without asking whether the session lives, as a careless holder does."""
    called_at = monotonic()
    say(kind="calls", value=value, seq=token.seq, called_at=called_at)
    try:
        reply = await client.transaction(Transaction().fenced_by(token).put(KEY, value.encode()))
    except UnknownOutcomeError:
        say(kind="write", value=value, seq=token.seq, outcome="unknown", called_at=called_at, returned_at=None)
        return
    outcome = "done" if reply.success else "refused"
    say(kind="write", value=value, seq=token.seq, outcome=outcome, called_at=called_at, returned_at=monotonic())


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))

"""The same lock on asyncio: three workers, one at a time, and a work of theirs that stops when the session is lost.

python examples/lock_with_fencing_async.py [HOST:PORT ...]
"""

import asyncio
import sys

from metasrv.client import AsyncClient, AsyncLock, FencingToken, SessionLostError, Transaction


async def main(endpoints: list[str]) -> None:
    async with AsyncClient(endpoints) as client:
        await client.upsert("lock-async/total", b"0")
        await asyncio.gather(*(worker(endpoints) for _ in range(3)))
        record = await client.get("lock-async/total")
        print("total:", record and record.data.decode())


async def worker(endpoints: list[str]) -> None:
    async with (
        AsyncClient(endpoints) as client,
        client.session() as session,
        AsyncLock(session, "lock-async") as token,
    ):
        try:
            await session.while_alive(add_one(client, token))
        except SessionLostError as error:
            print("stopped in time:", error)


async def add_one(client: AsyncClient, token: FencingToken) -> None:
    record = await client.get("lock-async/total")
    assert record is not None
    after = str(int(record.data) + 1).encode()
    reply = await client.transaction(Transaction().fenced_by(token).put("lock-async/total", after))
    print("added one:", reply.success)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:] or ["127.0.0.1:9191", "127.0.0.1:9192", "127.0.0.1:9193"]))

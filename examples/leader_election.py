"""Leader election: two candidates, one leader, an observer who sees each change.

python examples/leader_election.py [HOST:PORT ...]
"""

import asyncio
import sys
from contextlib import aclosing

from metasrv.client import AsyncClient, AsyncElection, Transaction


async def main(endpoints: list[str]) -> None:
    async with AsyncClient(endpoints) as client, client.session(name="candidates") as session:
        observing = asyncio.create_task(observe(endpoints))
        first, second = AsyncElection(session, "scheduler"), AsyncElection(session, "scheduler")
        token = await first.campaign(b"host-1")
        waiting = asyncio.create_task(second.campaign(b"host-2"))

        # Whatever a leader does is fenced, so that a leader who was deposed does nothing.
        plan = Transaction().fenced_by(token).put("scheduler/plan", b"by host-1")
        print("the leader's write is taken:", (await client.transaction(plan)).success)
        await asyncio.sleep(0.5)
        await first.proclaim(b"host-1, ready")
        await asyncio.sleep(0.5)
        await first.resign()
        await waiting
        print("a deposed leader's write is taken:", (await client.transaction(plan)).success)
        await observing
        await second.resign()


async def observe(endpoints: list[str]) -> None:
    async with (
        AsyncClient(endpoints) as client,
        client.session(name="observer") as session,
        aclosing(AsyncElection(session, "scheduler").observe()) as leaders,
    ):
        async for leader in leaders:
            if leader is not None:
                print("leader:", leader.value.decode())
                if leader.value == b"host-2":
                    return


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:] or ["127.0.0.1:9191", "127.0.0.1:9192", "127.0.0.1:9193"]))

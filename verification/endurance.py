"""`make soak`: a cluster of three local nodes under a mixed load, and whether anything of it grows without bound.

    python -m verification.endurance --minutes 10

The load works on a bounded set of keys: puts, transactions, leases that expire, values of 64 KiB, prefixes that are
deleted, reads, lists, exports, watches that come and go, snapshots. Every file, the descriptors, the threads and the
memory of each node are watched. Prints a table; exit code 1 when something grows. Knows the nodes from outside only.
(`soak.py` is another thing: it checks the answers of a cluster that somebody else runs.)
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing

from metasrv.client import AsyncClient, Transaction
from metasrv.model.errors import RequestError
from metasrv.model.limits import MIB
from metasrv.testing.processes import ProcessCluster
from verification.footprint import Footprint, Growth, footprint_of, growths, table

SAMPLE_SECONDS = 0.5
WRITERS = 12
READERS = 4
KEYS = 800
VALUE_SIZE_BYTES = 256
LARGE_KEYS = 16
LARGE_VALUE_SIZE_BYTES = 64 * 1024
LEASE_MS = 1_000
RARE_SECONDS = 2.0
"""Between two exports, and two watches; a snapshot is asked for five times as rarely."""
LIMITS = {"state.db-wal": 96 * MIB, "raft.db-wal": 16 * MIB, "raft.db": 64 * MIB, "state.db": 64 * MIB}
"""Well above what this load needs, far below what a minute of it would write."""


class Endurance:
    """The load on one cluster, and the samples of its nodes."""

    def __init__(self, cluster: ProcessCluster) -> None:
        self._cluster = cluster
        self.samples: dict[int, list[Footprint]] = {node_id: [] for node_id in cluster.nodes}
        self.done: Counter[str] = Counter()
        """Calls that succeeded, by kind; `refused` are those that did not."""

    async def run(self, seconds: float) -> None:
        """Load the cluster and watch it for that time."""
        workers = [self._write(number) for number in range(WRITERS)]
        workers += [self._read(number) for number in range(READERS)]
        workers += [self._export(), self._watch(), self._snapshot()]
        tasks = [asyncio.create_task(worker) for worker in workers]
        sampling = asyncio.create_task(self._sample())
        ended, _ = await asyncio.wait([*tasks, sampling], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in (*tasks, sampling):
            task.cancel()
        await asyncio.gather(*tasks, sampling, return_exceptions=True)
        for task in ended:
            task.result()  # none ends by itself but with an error

    def verdicts(self) -> dict[int, list[Growth]]:
        """What became of each node."""
        return {node_id: growths(samples, LIMITS) for node_id, samples in self.samples.items()}

    async def _sample(self) -> None:
        while True:
            await asyncio.sleep(SAMPLE_SECONDS)
            for node_id, samples in self.samples.items():
                node = self._cluster.nodes[node_id]
                if node.process is None or not node.is_running:
                    raise AssertionError(f"node {node_id} has ended\n{self._cluster.logs(node_id)}")
                samples.append(await asyncio.to_thread(footprint_of, node.process.pid, node.raft_dir))

    # ------------------------------------------------------------------ the load

    async def _repeat(self, kind: Callable[[], str], call: Callable[[str], Awaitable[object]]) -> None:
        """One call after the other, forever; what a busy cluster refuses is counted."""
        while True:
            name = kind()
            try:
                await call(name)
                self.done[name] += 1
            except RequestError:
                self.done["refused"] += 1
                await asyncio.sleep(0.05)

    async def _write(self, number: int) -> None:
        chance = random.Random(number)
        kinds = ["put"] * 80 + ["transaction"] * 12 + ["lease"] * 6 + ["large"] + ["delete"]

        async def call(kind: str) -> None:
            key = f"key/{chance.randrange(KEYS):04}"
            if kind == "put":
                await client.upsert(key, chance.randbytes(VALUE_SIZE_BYTES))
                return
            transaction = Transaction()
            if kind == "transaction":
                for _ in range(10):
                    transaction.put(f"group/{number}/{chance.randrange(50)}", chance.randbytes(VALUE_SIZE_BYTES))
            elif kind == "lease":
                transaction.put(f"lease/{chance.randrange(KEYS)}", b"x", ttl_ms=LEASE_MS)
            elif kind == "large":
                large = f"large/{chance.randrange(LARGE_KEYS)}"
                transaction.put(large, chance.randbytes(LARGE_VALUE_SIZE_BYTES))
            else:
                transaction.delete_by_prefix(f"group/{number}/")
            await client.transaction(transaction)

        async with self._client() as client:
            await self._repeat(lambda: chance.choice(kinds), call)

    async def _read(self, number: int) -> None:
        chance = random.Random(f"reader {number}")

        async def call(kind: str) -> None:
            if kind == "get":
                await client.get(f"key/{chance.randrange(KEYS):04}")
            else:
                await client.list_prefix("key/")
            await asyncio.sleep(0.005)

        async with self._client() as client:
            await self._repeat(lambda: chance.choice(["get"] * 20 + ["list"]), call)

    async def _export(self) -> None:
        async def call(_kind: str) -> None:
            async with self._client() as client:
                async for _line in client.export():
                    pass
            await asyncio.sleep(RARE_SECONDS)

        await self._repeat(lambda: "export", call)

    async def _watch(self) -> None:
        async def call(_kind: str) -> None:
            async with self._client() as client, aclosing(client.watch("key/", "key0")) as changes:
                seen = 0
                async for _change in changes:
                    seen += 1
                    if seen == 100:
                        break
            await asyncio.sleep(RARE_SECONDS)

        await self._repeat(lambda: "watch", call)

    async def _snapshot(self) -> None:
        async def call(_kind: str) -> None:
            for node_id in self._cluster.running():
                await self._cluster.admin(node_id, "/v1/ctrl/trigger_snapshot")
            await asyncio.sleep(5 * RARE_SECONDS)

        await self._repeat(lambda: "snapshot", call)

    def _client(self) -> AsyncClient:
        return self._cluster.client(timeout_ms=10_000)


def report(endurance: Endurance) -> tuple[list[str], list[str]]:
    """The table, and what is wrong."""
    lines = [", ".join(f"{count:,} {kind}" for kind, count in sorted(endurance.done.items()))]
    problems = []
    for node_id, verdicts in endurance.verdicts().items():
        lines += table(node_id, verdicts)
        problems += [f"{one.what} of node {node_id} {one.problem}" for one in verdicts if one.problem]
    return lines, problems


async def run(seconds: float) -> int:
    async with ProcessCluster(3) as cluster:
        await cluster.boot()
        endurance = Endurance(cluster)
        await endurance.run(seconds)
        lines, problems = report(endurance)
    lines += problems or ["nothing grows"]
    sys.stdout.write("\n".join(lines) + "\n")
    return 1 if problems else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m verification.endurance", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    return asyncio.run(run(parser.parse_args(arguments).minutes * 60))


if __name__ == "__main__":
    sys.exit(main())

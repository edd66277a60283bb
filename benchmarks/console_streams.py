"""What ten open consoles cost the node that serves them: its processor time with ten streams and without, in turns.

Three nodes on this machine, idle but for what they say to each other; the streams are those of `/v1/console/stream`, as
the page opens them, all at one node. The other members are asked because somebody looks, so their cost is told as well.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import sys
from collections.abc import AsyncIterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.process_usage import UsageMeter
from metasrv.model.types import Endpoint
from metasrv.testing.processes import ProcessCluster

SETTLING_SECONDS = 12.0
"""After the last stream has ended, a node asks the others for ten seconds more."""


@contextlib.asynccontextmanager
async def streams(address: Endpoint, count: int) -> AsyncIterator[list[int]]:
    """So many open streams; the bytes that each has brought."""
    brought = [0] * count

    async def follow(number: int) -> None:
        reader, writer = await asyncio.open_connection(address.addr, address.port)
        try:
            writer.write(f"GET /v1/console/stream HTTP/1.1\r\nHost: {address}\r\n\r\n".encode())
            while data := await reader.read(65_536):
                brought[number] += len(data)
        finally:
            writer.close()

    tasks = [asyncio.create_task(follow(number)) for number in range(count)]
    try:
        yield brought
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def used(cluster: ProcessCluster, node_id: int, others: list[int], seconds: float) -> tuple[float, float]:
    """Percent of a core that the node uses, and the mean of the others."""
    processes = [cluster.nodes[each].process for each in (node_id, *others)]
    meters = [UsageMeter.start(process.pid) for process in processes if process is not None]
    await asyncio.sleep(seconds)
    own, *rest = [meter.percent_of_a_core() for meter in meters]
    return own, statistics.mean(rest)


async def run(options: argparse.Namespace) -> int:
    async with ProcessCluster(3) as cluster:
        leader = await cluster.boot()
        await cluster.wait_for_ready()
        asked = leader if options.leader else next(each for each in cluster.nodes if each != leader)
        others = [each for each in cluster.nodes if each != asked]
        added, added_elsewhere = [], []
        for turn in range(options.turns):
            await asyncio.sleep(SETTLING_SECONDS)
            without, without_elsewhere = await used(cluster, asked, others, options.seconds)
            async with streams(cluster.nodes[asked].admin, options.streams) as brought:
                await asyncio.sleep(2)
                begun = sum(brought)
                with_them, with_elsewhere = await used(cluster, asked, others, options.seconds)
                kib = (sum(brought) - begun) / options.seconds / options.streams / 1024
            added.append(with_them - without)
            added_elsewhere.append(with_elsewhere - without_elsewhere)
            print(
                f"turn {turn + 1}: {without:.2f} % of a core without, {with_them:.2f} % with {options.streams} streams "
                f"of {kib:.1f} KiB/s; the others {without_elsewhere:.2f} % and {with_elsewhere:.2f} %",
                flush=True,
            )
    elsewhere = statistics.median(added_elsewhere)
    print(f"median: {statistics.median(added):+.2f} % of a core at this node, {elsewhere:+.2f} % at the others")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--leader", action="store_true", help="stream from the leader instead of a follower")
    return asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())

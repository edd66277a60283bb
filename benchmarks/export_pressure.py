"""What an export of a large state costs the writers beside it: p99 of concurrent writes with and without one.

Three nodes on this machine hold `--keys` records. A few clients write to the leader in a closed loop, first alone, then
while another process exports everything from the leader (its worst place) and throws the lines away. The same is done
with a follower as the source. Prints the latencies, the ratio of the p99s and the longest step of the leader's loop.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from metasrv.client import Transaction
from metasrv.grpc_api.proto import meta_pb2 as pb
from metasrv.testing.processes import ProcessCluster

KEYS_PER_TRANSACTION = 1_000
RATIO_MAX = 2.0


@dataclass(frozen=True, slots=True)
class Latencies:
    """Of the writes of one phase, in milliseconds."""

    writes: int
    seconds: float
    p50_ms: float
    p99_ms: float
    max_ms: float

    def __str__(self) -> str:
        return (
            f"{self.writes / self.seconds:6.0f} writes/s   p50 {self.p50_ms:6.2f} ms   "
            f"p99 {self.p99_ms:6.2f} ms   max {self.max_ms:6.1f} ms"
        )


class Writers:
    """Clients that write in a closed loop until told to stop."""

    def __init__(self, cluster: ProcessCluster, leader: int, count: int) -> None:
        self._cluster = cluster
        self._leader = leader
        self._count = count

    async def during(self, condition: asyncio.Event) -> Latencies:
        """Write until the event is set."""
        took: list[float] = []
        started = time.perf_counter()
        await asyncio.gather(*(self._write(number, condition, took) for number in range(self._count)))
        seconds = time.perf_counter() - started
        percentiles = statistics.quantiles(took, n=100)
        return Latencies(len(took), seconds, percentiles[49] * 1000, percentiles[98] * 1000, max(took) * 1000)

    async def _write(self, number: int, condition: asyncio.Event, took: list[float]) -> None:
        put = pb.TxnPutRequest(key=f"writer/{number}", value=b"v" * 256)
        request = pb.TxnRequest(if_then=[pb.TxnOp(put=put)])
        async with self._cluster.node_client(self._leader, timeout_s=30) as client:
            while not condition.is_set():
                started = time.perf_counter()
                await client.transaction(request)
                took.append(time.perf_counter() - started)


async def fill(cluster: ProcessCluster, leader: int, keys: int, value_size_bytes: int) -> None:
    value = bytes(range(256)) * (value_size_bytes // 256 + 1)
    async with cluster.client(leader) as client:
        for start in range(0, keys, KEYS_PER_TRANSACTION):
            transaction = Transaction()
            for number in range(start, min(start + KEYS_PER_TRANSACTION, keys)):
                transaction.put(f"tenant/{number % 100:03}/table/{number:08}", value[:value_size_bytes])
            await client.transaction(transaction)


async def export(cluster: ProcessCluster, node_id: int) -> tuple[int, float]:
    """Lines and seconds of an export by `metactl` in its own process."""
    # The client's own work belongs to another machine: here it gets what the others leave.
    command = ["nice", "-n", "19", sys.executable, "-m", "metasrv.cli.ctl"]
    command += ["export", "--grpc-api-address", str(cluster.nodes[node_id].grpc)]
    started = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    if process.stdout is None:
        raise RuntimeError("no pipe")
    lines = 0
    while chunk := await process.stdout.read(1 << 20):
        lines += chunk.count(b"\n")
    if await process.wait() != 0:
        raise RuntimeError(f"the export ended with {process.returncode}")
    return lines, time.perf_counter() - started


async def phase(writers: Writers, work: Any) -> tuple[Latencies, Any]:
    ended = asyncio.Event()
    writing = asyncio.create_task(writers.during(ended))
    await asyncio.sleep(0.5)
    try:
        result = await work
    finally:
        ended.set()
    return await writing, result


async def run(options: argparse.Namespace) -> int:
    worst = 0.0
    async with ProcessCluster(3) as cluster:
        leader = await cluster.boot()
        follower = next(node_id for node_id in cluster.nodes if node_id != leader)
        started = time.perf_counter()
        await fill(cluster, leader, options.keys, options.value_size)
        print(f"{options.keys} keys of {options.value_size} bytes written in {time.perf_counter() - started:.0f} s")
        await cluster.wait_until_equal(timeout_s=120)
        writers = Writers(cluster, leader, options.writers)
        await phase(writers, asyncio.sleep(2))
        nodes = {"leader": leader, "follower": follower}
        for source in options.sources:
            node_id = nodes[source]
            alone, _ = await phase(writers, asyncio.sleep(options.seconds))
            beside, (lines, seconds) = await phase(writers, export(cluster, node_id))
            ratio = beside.p99_ms / alone.p99_ms
            worst = max(worst, ratio)
            print(f"alone                       {alone}")
            print(f"beside an export ({source + ')':9} {beside}")
            print(f"   {lines} lines in {seconds:.1f} s; p99 times {ratio:.2f}\n", flush=True)
    return 0 if worst <= RATIO_MAX else 1


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--value-size", type=int, default=100)
    parser.add_argument("--writers", type=int, default=8)
    parser.add_argument("--sources", nargs="+", choices=("leader", "follower"), default=["leader", "follower"])
    parser.add_argument("--seconds", type=float, default=15.0, help="length of a phase without an export")
    return asyncio.run(run(parser.parse_args(arguments)))


if __name__ == "__main__":
    sys.exit(main())

"""What an export of a large state costs the writers beside it: p99 of concurrent writes with and without one.

Three nodes on this machine hold `--keys` records. A few clients write to the leader, each at a fixed rate or, at rate 0,
as fast as they are answered, which alone keeps both cores busy. In each round they write alone for a while, then beside
an export from the leader (the worst case) or from a follower, whose lines are discarded. The rounds alternate because the
machine varies more than the export costs; the figure is the median of the rounds' ratios.
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

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from metasrv.client import Transaction
from metasrv.protocol.proto import meta_pb2 as pb
from metasrv.testing.processes import ProcessCluster

KEYS_PER_TRANSACTION = 1_000
RATIO_MAX = 2.0


@dataclass(frozen=True, slots=True)
class Latencies:
    """Number, duration and latencies of the writes of one phase."""

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
    """Clients that write until told to stop."""

    def __init__(self, cluster: ProcessCluster, leader: int, count: int, rate: float) -> None:
        self._cluster = cluster
        self._leader = leader
        self._count = count
        self._pause_seconds = 1 / rate if rate else 0.0

    async def during(self, seconds: float) -> Latencies:
        """Write for `seconds`."""
        took: list[float] = []
        started = time.perf_counter()
        await asyncio.gather(*(self._write(number, started + seconds, took) for number in range(self._count)))
        elapsed = time.perf_counter() - started
        percentiles = statistics.quantiles(took, n=100)
        return Latencies(len(took), elapsed, percentiles[49] * 1000, percentiles[98] * 1000, max(took) * 1000)

    async def _write(self, number: int, until: float, took: list[float]) -> None:
        put = pb.TxnPutRequest(key=f"writer/{number}", value=b"v" * 256)
        request = pb.TxnRequest(if_then=[pb.TxnOp(put=put)])
        async with self._cluster.node_client(self._leader, timeout_s=30) as client:
            await client.handshake()
            due = time.perf_counter() + self._pause_seconds * number / self._count
            while due < until:
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                started = time.perf_counter()
                await client.transaction(request)
                took.append(time.perf_counter() - started)
                due = max(due + self._pause_seconds, time.perf_counter() - 1.0) if self._pause_seconds else started


async def fill(cluster: ProcessCluster, leader: int, keys: int, value_size_bytes: int) -> None:
    value = bytes(range(256)) * (value_size_bytes // 256 + 1)
    async with cluster.client(leader) as client:
        for start in range(0, keys, KEYS_PER_TRANSACTION):
            transaction = Transaction()
            for number in range(start, min(start + KEYS_PER_TRANSACTION, keys)):
                transaction.put(f"tenant/{number % 100:03}/table/{number:08}", value[:value_size_bytes])
            await client.transaction(transaction)


class Export:
    """An export by `metactl` in its own process."""

    def __init__(self, cluster: ProcessCluster, node_id: int) -> None:
        # The client would normally run on another machine, so here it gets only what the others leave.
        self._command = ["nice", "-n", "19", sys.executable, "-m", "metasrv.cli.ctl", "export"]
        self._command += ["--grpc-api-address", str(cluster.nodes[node_id].grpc)]

    async def __aenter__(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *self._command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
        self._lines = 0
        self._reading = asyncio.create_task(self._read())
        while not self._lines:  # noqa: ASYNC110 - the first lines are there
            await asyncio.sleep(0.05)

    async def _read(self) -> None:
        if self._process.stdout is None:
            raise RuntimeError("no pipe")
        while chunk := await self._process.stdout.read(1 << 20):
            self._lines += chunk.count(b"\n")

    async def wait(self) -> int:
        """Wait for the export to end; returns the number of lines."""
        await self._reading
        if await self._process.wait() != 0:
            raise RuntimeError(f"the export ended with {self._process.returncode}")
        return self._lines

    @property
    def under_way(self) -> bool:
        return not self._reading.done()

    async def __aexit__(self, *_: object) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        await self._reading


async def measure(options: argparse.Namespace, writers: Writers, cluster: ProcessCluster, node_id: int) -> float:
    """The median ratio of the rounds."""
    ratios = []
    for _ in range(options.rounds):
        alone = await writers.during(options.seconds)
        export = Export(cluster, node_id)
        async with export:
            beside = await writers.during(options.seconds)
            if not export.under_way:
                print("the export ended before the round did: more --keys or fewer --seconds")
        ratios.append(beside.p99_ms / alone.p99_ms)
        print(f"  alone   {alone}\n  beside  {beside}   times {ratios[-1]:.2f}", flush=True)
    return statistics.median(ratios)


async def run(options: argparse.Namespace) -> int:
    worst = 0.0
    async with ProcessCluster(3) as cluster:
        leader = await cluster.boot()
        nodes = {"leader": leader, "follower": next(node_id for node_id in cluster.nodes if node_id != leader)}
        started = time.perf_counter()
        await fill(cluster, leader, options.keys, options.value_size)
        print(f"{options.keys} keys of {options.value_size} bytes written in {time.perf_counter() - started:.0f} s")
        await cluster.wait_until_equal(timeout_s=120)
        for rate in options.rates:
            writers = Writers(cluster, leader, options.writers, rate)
            await writers.during(2.0)
            for source in options.sources:
                how = f"{rate:g} writes/s each" if rate else "as fast as answered"
                print(f"{options.writers} writers, {how}; export from the {source}")
                ratio = await measure(options, writers, cluster, nodes[source])
                worst = max(worst, ratio)
                print(f"  median: p99 times {ratio:.2f}", flush=True)
        if options.whole:
            started = time.perf_counter()
            export = Export(cluster, leader)
            async with export:
                writing = asyncio.create_task(Writers(cluster, leader, 1, 20).during(3600))
                lines = await export.wait()
                writing.cancel()
                await asyncio.gather(writing, return_exceptions=True)
            print(f"a whole export while 20 writes/s go on: {lines} lines in {time.perf_counter() - started:.0f} s")
    return 0 if worst <= RATIO_MAX else 1


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--value-size", type=int, default=100)
    parser.add_argument("--writers", type=int, default=8)
    parser.add_argument("--rates", type=float, nargs="+", default=[25.0, 0.0], help="writes a second of each writer")
    parser.add_argument("--sources", nargs="+", choices=("leader", "follower"), default=["leader", "follower"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=30.0, help="length of each half of a round: several checkpoints")
    parser.add_argument("--whole", action="store_true", help="also time a whole export")
    return asyncio.run(run(parser.parse_args(arguments)))


if __name__ == "__main__":
    sys.exit(main())

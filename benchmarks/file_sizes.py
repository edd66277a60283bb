"""What steady writes leave on disk: the size of every file of a leader while 16 clients write to 800 keys.

Three nodes on this machine. The clients write as fast as they are answered, so that both cores are busy; the state holds
0.2 MB of records all the time, and whatever grows beyond that is overhead. Prints the largest and the last size of each
kind of file, the latencies of the writes, and how long the leader takes to start again afterwards.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from metasrv.protocol.proto import meta_pb2 as pb
from metasrv.testing.processes import ProcessCluster

SAMPLE_SECONDS = 0.2


def sizes_of(directory: Path) -> dict[str, int]:
    """Bytes by the name of the file, without its directory."""
    sizes: dict[str, int] = {}
    for path in directory.rglob("*"):
        try:
            if path.is_file():
                sizes[path.name] = path.stat().st_size
        except FileNotFoundError:
            continue  # removed since it was listed
    return sizes


async def write(
    cluster: ProcessCluster, leader: int, number: int, options: argparse.Namespace, took: list[float]
) -> None:
    """One client: its share of the keys, one after the other, until the time is over."""
    keys = range(number, options.keys, options.writers)
    until = time.perf_counter() + options.seconds
    value = bytes(range(256)) * (options.value_size // 256 + 1)
    async with cluster.node_client(leader, timeout_s=30) as client:
        await client.handshake()
        while True:
            for key in keys:
                put = pb.TxnPutRequest(key=f"key/{key:06}", value=value[: options.value_size])
                started = time.perf_counter()
                if started > until:
                    return
                await client.transaction(pb.TxnRequest(if_then=[pb.TxnOp(put=put)]))
                took.append(time.perf_counter() - started)


async def run(options: argparse.Namespace) -> int:
    largest: dict[str, int] = defaultdict(int)
    took: list[float] = []
    async with ProcessCluster(3) as cluster:
        leader = await cluster.boot()
        directory = cluster.nodes[leader].raft_dir
        writing = asyncio.gather(*(write(cluster, leader, n, options, took) for n in range(options.writers)))
        started = time.perf_counter()
        while not writing.done():
            await asyncio.sleep(SAMPLE_SECONDS)
            for name, size_bytes in sizes_of(directory).items():
                largest[name] = max(largest[name], size_bytes)
        await writing
        elapsed = time.perf_counter() - started
        last = sizes_of(directory)
        permille_ms = [seconds * 1000 for seconds in statistics.quantiles(took, n=1000)]
        print(
            f"{len(took) / elapsed:.0f} writes/s   p50 {permille_ms[499]:.2f} ms   p99 {permille_ms[989]:.2f} ms"
            f"   p99.9 {permille_ms[998]:.2f} ms   max {max(took) * 1000:.1f} ms"
        )
        _, page = await cluster.admin(leader, "/v1/metrics")
        for line in page.splitlines():
            if line.startswith(
                ("metasrv_raft_applying_paused_seconds_sum", "metasrv_raft_applying_paused_seconds_count")
            ):
                print(line)
            elif line.startswith("process_cpu_seconds_total"):
                print(f"processor of the leader: {float(line.split()[1]) / len(took) * 1e6:.0f} µs a write")
        for name in sorted(largest):
            print(f"{name:24} largest {largest[name] / 1e6:9.2f} MB   last {last.get(name, 0) / 1e6:9.2f} MB")
        await cluster.kill(leader)
        started = time.perf_counter()
        cluster.start(leader)
        while await cluster.status(leader) is None:  # noqa: ASYNC110 - another process begins to answer
            await asyncio.sleep(0.01)
        await cluster.wait_for_ready(leader)
        print(f"ready again after kill -9: {time.perf_counter() - started:.2f} s")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--writers", type=int, default=16)
    parser.add_argument("--keys", type=int, default=800)
    parser.add_argument("--value-size", type=int, default=256)
    return asyncio.run(run(parser.parse_args(arguments)))


if __name__ == "__main__":
    sys.exit(main())

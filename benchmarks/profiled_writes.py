"""What a profile costs the writes: their 99th percentile while the leader is profiled, against the same without.

Three nodes on this machine; a few clients write small values to the leader at a steady pace. Windows without and with a
profile of the leader take turns, so that what else the machine does falls on both. Prints each pair, and for each kind
of profile the median of the ratios. Exit code 1 when the 99th percentile more than doubled in the median of the pairs of
a kind.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.beside import write
from benchmarks.latencies import Latencies, latencies
from metasrv.testing.processes import ProcessCluster

KINDS = {
    "cpu": "/debug/pprof/profile?seconds={seconds}&format=folded",
    "memory": "/debug/mem/pprof/profile?seconds={seconds}&format=folded",
    "small-objects": "/debug/mem/pprof/profile?seconds={seconds}&format=folded&small_objects=true",
}
RATIO_MAX = 2.0
REPORT_SECONDS_MAX = 120
"""The answer to a memory profile takes this long at most after its seconds; writes go on beside it."""


async def window(cluster: ProcessCluster, leader: int, path: str | None, options: argparse.Namespace) -> Latencies:
    """The latency of the writes of one window; those of a profile last until its answer is there."""
    gc.collect()
    gc.disable()
    profiling = None
    if path is not None:
        address = path.format(seconds=options.seconds - 1)
        profiling = asyncio.create_task(cluster.admin(leader, address, options.seconds + REPORT_SECONDS_MAX))
    shares = await asyncio.gather(*(write(cluster, leader, number, options) for number in range(options.writers)))
    gc.enable()
    if profiling is not None:
        code, body = await profiling
        if code != 200 or not body:
            raise RuntimeError(f"the profile failed: {code} {body}")
        await asyncio.sleep(options.rest)
    return latencies([seconds for share in shares for seconds in share])


async def compare(cluster: ProcessCluster, kind: str, options: argparse.Namespace) -> bool:
    """Measure pairs of windows; returns whether the goal was reached."""
    ratios: dict[str, list[float]] = {"p50": [], "p99": []}
    for number in range(options.pairs):
        leader = await cluster.wait_for_leader()
        paths = [None, KINDS[kind]] if number % 2 == 0 else [KINDS[kind], None]
        measured = [await window(cluster, leader, path, options) for path in paths]
        alone, beside = measured if number % 2 == 0 else measured[::-1]
        ratios["p50"].append(beside.p50 / alone.p50)
        ratios["p99"].append(beside.p99 / alone.p99)
        print(
            f"{kind:13} p50 {alone.p50:6.2f} {beside.p50:6.2f}   p99 {alone.p99:6.2f} {beside.p99:6.2f}"
            f"   max {alone.longest:6.1f} {beside.longest:6.1f} ms   p99 x {ratios['p99'][-1]:.2f}"
            f"   load {os.getloadavg()[0]:.1f}",
            flush=True,
        )
    median = statistics.median(ratios["p99"])
    print(f"{kind:13} median of {options.pairs} pairs: p50 x {statistics.median(ratios['p50']):.2f}, p99 x {median:.2f}")
    return median <= RATIO_MAX


async def run(options: argparse.Namespace) -> int:
    async with ProcessCluster(3) as cluster:
        await cluster.boot()
        await window(cluster, await cluster.wait_for_leader(), None, options)
        reached = [await compare(cluster, kind, options) for kind in options.kinds]
    return 0 if all(reached) else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=["cpu", "memory"])
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--seconds", type=int, default=5, help="of one window")
    parser.add_argument("--rest", type=float, default=1.0, help="seconds after a profile")
    parser.add_argument("--writers", type=int, default=4)
    parser.add_argument("--rate", type=float, default=40.0, help="writes a second, of all together")
    return asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())

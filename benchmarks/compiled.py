"""What the compiled wheel brings: its nodes beside nodes from the sources, one taking its turn after the other.

Three nodes of each on this machine run all the time, and only one cluster is asked at a time. Prints for each work the
median of the ratios of neighbouring turns: requests a second, and processor time of the leader for each request, which
hardly depends on what else the machine does. Run as `python -m benchmarks.compiled dist/metasrv-...linux_x86_64.whl`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.compared.loads import LOADS, Load, Turn, measure
from benchmarks.compared.metasrv_cluster import MetasrvCluster
from metasrv.cli.node_process import NodeProgram

WORK = ("write", "read-leader", "transaction")
HEAD = """| work | clients | pure | compiled | ratio | leader, pure | leader, compiled | ratio |
|---|---|---|---|---|---|---|---|"""


def ratio(of: Sequence[float], to: Sequence[float]) -> float:
    """The median of the ratios of turns that were neighbours."""
    return statistics.median(one / other for one, other in zip(of, to, strict=True))


async def compare(
    pure: MetasrvCluster, compiled: MetasrvCluster, load: Load, clients: int, options: argparse.Namespace
) -> str:
    """One row of the table."""
    turns: dict[MetasrvCluster, list[Turn]] = {pure: [], compiled: []}
    for number in range(options.turns):
        # Whoever is first finds the machine as the other one has left it.
        for cluster in (pure, compiled) if number % 2 else (compiled, pure):
            turns[cluster].append(await measure(cluster, load, clients, options.seconds))
    rates = [[turn.per_second for turn in turns[cluster]] for cluster in (compiled, pure)]
    costs = [[turn.leader_microseconds for turn in turns[cluster]] for cluster in (compiled, pure)]
    spread = sorted(one / other for one, other in zip(*rates, strict=True))
    return (
        f"| {load.title} | {clients} | {statistics.median(rates[1]):,.0f}/s | {statistics.median(rates[0]):,.0f}/s"
        f" | {ratio(*rates):.2f} ({spread[0]:.2f} to {spread[-1]:.2f})"
        f" | {statistics.median(costs[1]):.0f} µs | {statistics.median(costs[0]):.0f} µs | {ratio(*costs):.2f} |"
    )


async def run(directory: Path, options: argparse.Namespace) -> None:
    print(f"load of the machine at the beginning: {os.getloadavg()[0]:.1f}")
    print(HEAD)
    program = NodeProgram.in_directory(directory)
    async with MetasrvCluster(3) as pure, MetasrvCluster(3, program) as compiled:
        for load in LOADS:
            if load.name in options.loads:
                for clients in options.clients:
                    print(await compare(pure, compiled, load, clients, options), flush=True)
    print(f"load of the machine at the end: {os.getloadavg()[0]:.1f}")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.compiled", description=__doc__)
    parser.add_argument("wheel", type=Path, help="the compiled wheel, of `make wheel-compiled`")
    parser.add_argument("--loads", nargs="+", choices=[load.name for load in LOADS], default=list(WORK))
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--turns", type=int, default=5, help="of each in each row")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one turn, about")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="metasrv-compiled-") as directory:
        with zipfile.ZipFile(options.wheel) as wheel:
            wheel.extractall(directory)
        asyncio.run(run(Path(directory), options))
    return 0


if __name__ == "__main__":
    sys.exit(main())

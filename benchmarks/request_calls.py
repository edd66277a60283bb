"""What one request costs the leader: calls of functions, counted by cProfile, and processor time, without the profiler.

Counts do not depend on what else the machine does, so they tell two commits apart where times cannot. Three nodes on this
machine; h2load asks the leader, with one request under way on each connection. The commits take turns, each with a
cluster of its own, and a time is the median of its turns.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import pstats
import signal
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.compared.contender import Call, target
from benchmarks.compared.metasrv_cluster import MetasrvCluster
from benchmarks.load import KEY, VALUE_SIZE_BYTES, drive
from benchmarks.process_usage import processor_seconds
from metasrv.cli.node_process import THIS_PROGRAM, NodeProgram

BEGIN, END = signal.SIGRTMIN + 4, signal.SIGRTMIN + 5
OUTPUT = "METASRV_REQUEST_CALLS"
PROFILED = f"""
import cProfile, os, signal, sys
profile = cProfile.Profile(builtins=False)
def end(*_):
    profile.disable()
    profile.dump_stats(os.path.join(os.environ["{OUTPUT}"], str(os.getpid())))
    profile.clear()
signal.signal({BEGIN}, lambda *_: profile.enable())
signal.signal({END}, end)
from metasrv.cli.server import main
sys.exit(main(sys.argv[1:]))
"""
WARM_UP_REQUESTS = 500


class Counted:
    """A cluster of one commit whose nodes can be profiled."""

    def __init__(self, checkout: Path | None, output: Path) -> None:
        program = THIS_PROGRAM if checkout is None else NodeProgram.in_directory(checkout)
        command = (sys.executable, "-c", PROFILED)
        self.name = "this commit" if checkout is None else checkout.name
        self.output = output
        self.cluster = MetasrvCluster(3, NodeProgram(command, {**program.environment, OUTPUT: str(output)}), self.name)

    async def calls(self, call: Call, node: int, clients: int, requests: int) -> pstats.Stats:
        """A profile of the node while it serves so many requests."""
        pid = self.cluster.pid(node)
        found = self.output / str(pid)
        found.unlink(missing_ok=True)
        os.kill(pid, BEGIN)
        await asyncio.to_thread(drive, target(self.cluster, node, call), clients, requests)
        os.kill(pid, END)
        while not found.exists() or not found.stat().st_size:  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.1)
        return pstats.Stats(str(found))

    async def microseconds(self, call: Call, node: int, clients: int, requests: int) -> float:
        """Processor time of the node for each request."""
        pid = self.cluster.pid(node)
        before = processor_seconds(pid)
        await asyncio.to_thread(drive, target(self.cluster, node, call), clients, requests)
        return (processor_seconds(pid) - before) / requests * 1e6


async def run(options: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory(prefix="metasrv-calls-") as name:
        contenders = [Counted(checkout, Path(name)) for checkout in [None, *options.against]]
        for contender in contenders:
            await contender.cluster.__aenter__()
        try:
            for kind in options.kinds:
                await compare(kind, contenders, options)
        finally:
            for contender in contenders:
                await contender.cluster.__aexit__(None, None, None)
    return 0


async def compare(kind: str, contenders: list[Counted], options: argparse.Namespace) -> None:
    """Print a line for each contender."""
    calls, took = {}, {contender.name: list[float]() for contender in contenders}
    asked = {}
    for contender in contenders:
        cluster = contender.cluster
        leader = await cluster.leader()
        node = next(node for node in cluster.nodes if node != leader) if kind == "read-follower" else leader
        put = cluster.put(KEY, b"v" * VALUE_SIZE_BYTES)
        call = put if kind == "write" else cluster.get(KEY)
        await asyncio.to_thread(drive, target(cluster, leader, put), options.clients, WARM_UP_REQUESTS)
        asked[contender.name] = (call, node)
        stats = await contender.calls(call, node, options.clients, options.requests)
        calls[contender.name] = stats.total_calls / options.requests  # type: ignore[attr-defined]  # typeshed lacks it
        if options.functions:
            stats.sort_stats("ncalls").print_stats(options.functions)
    for _ in range(options.turns):
        for contender in contenders:
            call, node = asked[contender.name]
            took[contender.name].append(await contender.microseconds(call, node, options.clients, options.requests))
    for contender in contenders:
        median = statistics.median(took[contender.name]) if options.turns else 0.0
        cost = f"{calls[contender.name]:6.1f} calls  {median:6.1f} µs"
        print(f"{kind:13} {options.clients:3} clients  {cost}  {contender.name}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kinds", nargs="+", choices=["read", "read-follower", "write"], default=["read", "write"])
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--requests", type=int, default=5_000, help="of one turn")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--functions", type=int, default=0, help="print so many of the functions called most often")
    parser.add_argument("--against", type=Path, nargs="+", default=[], help="checkouts of other commits")
    return asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())

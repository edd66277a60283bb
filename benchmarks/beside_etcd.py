"""`beside.py --beside etcd`: the same small writes beside the same large work, on metasrv and on etcd in turns.

Three nodes of each on this machine; the one that is not asked is idle meanwhile. etcd's limits of requests and of
operations in a transaction are raised so that it takes the large work. Beside each turn another process syncs 4 kB again
and again (`disk_probe.py`): what the machine itself costs a write then. Prints each turn, and a table at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import programs
from benchmarks.compared.contender import Contender
from benchmarks.compared.etcd_cluster import EtcdCluster
from benchmarks.compared.loads import fill
from benchmarks.compared.metasrv_cluster import MetasrvCluster
from benchmarks.disturbances import MIB, filled_key
from benchmarks.latencies import Latencies, latencies
from benchmarks.paced_writes import write_at_pace
from benchmarks.raw_client import RawClient

HERE = Path(__file__).parent
ETCD_OPTIONS = {"max-request-bytes": str(64 * MIB), "max-txn-ops": "2000", "enable-pprof": "true"}
WRITE_SECONDS_MAX = 30.0


@dataclass(slots=True)
class Pooled:
    """The turns of one contender beside one kind of work, together."""

    writes: list[float] = field(default_factory=list)
    syncs: list[float] = field(default_factory=list)
    changes: int = 0
    """How often the leader changed."""


async def run(options: argparse.Namespace, kinds: Mapping[str, str], before_keys: int) -> int:
    """Measure the kinds in their order, the ones from `before_keys` on with all keys; 0."""
    results: dict[str, dict[str, Pooled]] = {}
    async with AsyncExitStack() as stack:
        everyone: list[Contender] = [
            await stack.enter_async_context(MetasrvCluster(3)),
            await stack.enter_async_context(EtcdCluster(options.etcd or programs.require()[0], 3, ETCD_OPTIONS)),
        ]
        filled = False
        for place, (kind, title) in enumerate(kinds.items()):
            if options.only and kind not in options.only:
                continue
            if place >= before_keys and not filled:
                for contender in everyone:
                    await fill(contender, [filled_key(number) for number in range(options.keys)])
                filled = True
            for turn in range(options.turns):
                for contender in everyone:
                    pooled = results.setdefault(title, {}).setdefault(contender.name, Pooled())
                    await _turn(contender, kind, f"{title}, turn {turn + 1}", options, pooled)
        print(f"\nload average {os.getloadavg()[0]:.1f} at the end\n\n" + table(results))
    return 0


async def _turn(contender: Contender, kind: str, title: str, options: argparse.Namespace, pooled: Pooled) -> None:
    leader = await contender.leader()
    length = ("--seconds", str(options.seconds - 0.5))
    who = ["--admin", str(contender.cluster.nodes[leader].admin)] if isinstance(contender, MetasrvCluster) else ["--etcd"]
    where = ("--grpc", str(contender.endpoint(leader)), *who)
    disturb = (kind.removesuffix("-full"), *where, *length, "--keys", str(max(options.keys, 20)))
    disturber = await _started("disturbances.py", disturb)
    prober = await _started("disk_probe.py", (tempfile.gettempdir(), *length))
    await asyncio.sleep(options.rest)
    term = await contender.term()
    gc.collect()
    gc.disable()
    for process in (disturber, prober):
        if process.stdin is not None:
            process.stdin.write(b"\n")
    shares = await asyncio.gather(*(_write(contender, leader, number, options) for number in range(options.writers)))
    gc.enable()
    (report, _), (durations, _) = await asyncio.gather(disturber.communicate(), prober.communicate())
    changes = await contender.term() - term
    writes = [seconds for share in shares for seconds in share]
    pooled.writes += writes
    pooled.syncs += [int(duration) / 1_000_000 for duration in durations.split()]
    pooled.changes += changes
    print(
        f"{title}: {contender.name}: {latencies(writes)}, leader changes {changes}; {report.decode().strip() or 'failed'}"
    )
    sys.stdout.flush()


async def _started(program: str, arguments: Sequence[str]) -> asyncio.subprocess.Process:
    """A program of this directory that has said that it is ready."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(HERE / program), *arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    if process.stdout is None or await process.stdout.readline() != b"ready\n":
        raise RuntimeError(f"{program} did not begin: {' '.join(arguments)}")
    return process


async def _write(contender: Contender, leader: int, number: int, options: argparse.Namespace) -> list[float]:
    """One client: a write every so often, and what each took."""
    path, message = contender.put(f"writer/{number}", b"v" * 100)
    async with RawClient(contender.endpoint(leader), contender.headers, WRITE_SECONDS_MAX) as client:
        return await write_at_pace(lambda: client.call(path, message), number, options)


def table(results: Mapping[str, Mapping[str, Pooled]]) -> str:
    """Milliseconds in Markdown: a row for each kind of work and contender."""
    lines = [
        "| beside | of | writes | p50 | p99 | p99.9 | longest | leader changes | sync of 4 kB: p50, p99, longest |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for title, by_contender in results.items():
        for name, pooled in by_contender.items():
            writes, syncs = latencies(pooled.writes), latencies(pooled.syncs)
            lines.append(f"| {title} | {name} | {_cells(writes)} | {pooled.changes} | {_syncs(syncs)} |")
    return "\n".join(lines)


def _cells(writes: Latencies) -> str:
    return f"{writes.measured} | {writes.p50:.1f} | {writes.p99:.1f} | {writes.p999:.1f} | {writes.longest:.0f}"


def _syncs(syncs: Latencies) -> str:
    return f"{syncs.p50:.1f}, {syncs.p99:.1f}, {syncs.longest:.0f}"

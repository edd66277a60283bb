"""`make bench`: metasrv beside etcd in one run on one machine, one taking its turn after the other.

Three nodes of each on this machine, which they share with the load generator. Values of 256 bytes; a majority syncs every
write. A figure is the median of the turns, a ratio the median of the ratios of neighbouring turns. The newest etcd comes
from the package index where it can be reached, the other is Debian's.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from benchmarks import programs
from benchmarks.compared import report
from benchmarks.compared.contender import Contender
from benchmarks.compared.etcd_cluster import EtcdCluster, version_of
from benchmarks.compared.events import Event, fail_over, idle, memory_and_restart, watch_fan_out
from benchmarks.compared.loads import LOADS, measure
from benchmarks.compared.metasrv_cluster import MetasrvCluster
from benchmarks.load import LoadError
from metasrv.cli.node_process import NodeProgram

RESULTS = Path(__file__).parent.parent / "results"
SIZES = (1, 3, 5, 7)


class Peer(NamedTuple):
    """Who metasrv is compared with."""

    name: str
    cluster: Callable[[int], AbstractAsyncContextManager[Contender]]
    """From the number of nodes."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of one turn, about")
    parser.add_argument("--turns", type=int, default=3, help="of each contender in each row")
    parser.add_argument(
        "--loads", nargs="*", choices=[load.name for load in LOADS], help="these rows alone; none: no rows"
    )
    parser.add_argument("--clients", type=int, nargs="+", help="these numbers of clients alone")
    parser.add_argument("--keys", type=int, default=1_000_000, help="for memory and restart; 0 leaves them out")
    parser.add_argument("--fail-overs", type=int, default=20, help="of each kind; 0 leaves them out")
    parser.add_argument("--no-sizes", action="store_true", help="leave out clusters of one, five and seven nodes")
    parser.add_argument("--no-watchers", action="store_true", help="leave out the thousand watchers")
    parser.add_argument("--one-etcd", action="store_true", help="only the newest etcd that is here")
    parser.add_argument(
        "--against",
        type=Path,
        action="append",
        default=[],
        metavar="CHECKOUT",
        help="another commit, not etcd",
    )
    options = parser.parse_args(arguments)
    try:
        return asyncio.run(run(options, chosen_peers(options)))
    except (programs.MissingProgramsError, LoadError) as error:
        print(error, file=sys.stderr)
        return 1


def chosen_peers(options: argparse.Namespace) -> list[Peer]:
    """Raises MissingProgramsError without etcd."""
    if options.against:
        return [_another_commit(path.resolve()) for path in options.against]
    etcds = programs.require()[: 1 if options.one_etcd else None]
    return [Peer(f"etcd {version_of(program)}", partial(EtcdCluster, program)) for program in etcds]


def _another_commit(checkout: Path) -> Peer:
    name, program = f"metasrv in {checkout.name}", NodeProgram.in_directory(checkout)
    return Peer(name, lambda size: MetasrvCluster(size, program, name))


async def run(options: argparse.Namespace, peers: Sequence[Peer]) -> int:
    results = report.Results(
        machine=f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        date=time.strftime("%Y-%m-%d %H:%M"),
        load_average=os.getloadavg()[0],
        peers=[peer.name for peer in peers],
    )
    async with contenders(peers) as everyone:
        await measure_loads(results, everyone, options)
        for title, event in chosen_events(options).items():
            for contender in everyone:
                figures = await event(contender)
                results.events.setdefault(title, {})[contender.name] = figures
                print(f"{title}: {contender.name}: {report.figures_text(figures)}", flush=True)
    if not options.no_sizes:
        await measure_sizes(results, peers, options)
    print("\n" + report.markdown(results))
    for path in report.write(results, RESULTS):
        print(f"written to {path}")
    return 0


@asynccontextmanager
async def contenders(peers: Sequence[Peer], size: int = 3) -> AsyncIterator[list[Contender]]:
    """All of them run at once, and only one is asked at a time: an idle one costs next to nothing."""
    async with AsyncExitStack() as stack:
        ours = await stack.enter_async_context(MetasrvCluster(size))
        yield [ours, *[await stack.enter_async_context(peer.cluster(size)) for peer in peers]]


async def measure_loads(results: report.Results, everyone: Sequence[Contender], options: argparse.Namespace) -> None:
    for load in LOADS:
        if options.loads is not None and load.name not in options.loads:
            continue
        for clients in load.clients:
            if options.clients and clients not in options.clients:
                continue
            row = report.Row(load.name, load.title, clients, {contender.name: [] for contender in everyone})
            for _ in range(options.turns):
                for contender in everyone:
                    row.turns[contender.name].append(await measure(contender, load, clients, options.seconds))
            results.rows.append(row)
            shares = ", ".join(f"{row.ratio(peer):.2f} of {peer}" for peer in results.peers)
            print(
                f"{load.title}, {clients} clients: {row.median(report.OURS, 'per_second'):,.0f}/s, {shares}", flush=True
            )


def chosen_events(options: argparse.Namespace) -> dict[str, Event]:
    events: dict[str, Event] = {"a follower with nothing to do": idle}
    if not options.no_watchers:
        events["one write to 1,000 watchers, until the last is told"] = watch_fan_out
    if options.fail_overs:
        times = options.fail_overs
        events[f"no acknowledged write after the leader was killed, {times} times"] = _fail_over(times, by_kill=True)
        events[f"the same when it falls silent, {times} times"] = _fail_over(times, by_kill=False)
    if options.keys:
        events[f"memory and restart with {options.keys:,} keys"] = lambda one: memory_and_restart(one, options.keys)
    return events


def _fail_over(times: int, *, by_kill: bool) -> Event:
    return lambda contender: fail_over(contender, times, by_kill=by_kill)


async def measure_sizes(results: report.Results, peers: Sequence[Peer], options: argparse.Namespace) -> None:
    """What a cluster costs with its number of nodes: writes of 64 clients."""
    write = next(load for load in LOADS if load.name == "write")
    for size in SIZES:
        async with contenders(peers, size) as everyone:
            row = report.Row("size", f"writes of one key, {size} nodes", 64, {one.name: [] for one in everyone})
            for _ in range(options.turns):
                for contender in everyone:
                    row.turns[contender.name].append(await measure(contender, write, 64, options.seconds))
        results.rows.append(row)
        print(f"{row.title}: {row.median(report.OURS, 'per_second'):,.0f}/s", flush=True)


if __name__ == "__main__":
    sys.exit(main())

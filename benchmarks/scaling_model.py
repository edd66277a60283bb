"""What a cluster carries, by a model with a dozen costs: fitted to measured points, and asked about other machines.

A write costs each node something for itself, something for the entry that it shares with others, and something for each
KiB of its value; a read costs the leader something for itself, and a round of questions that it shares. The leader's
event loop runs on one core, so what a cluster carries ends where that core is full, or with gateways where theirs are.
Pure, but for `main`. Run as `python -m benchmarks.scaling_model`; docs/scaling.md explains the figures.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from metasrv.model.limits import GATEWAYS_MAX

POINTS_FILE = Path(__file__).parent / "scaling_points.jsonl"
BATCH_SHARE = 0.45
"""Writes that share an entry, as a part of the clients that write: measured 0.44 at 64 clients, more below."""
BATCH_MAX = 400.0
"""An entry of 256-byte values is not assumed to become larger."""
GATEWAY_NODE_SHARE = {"write": 0.55, "read": 0.23}
"""What is left to the node of a request with gateways (docs/performance.md): 203 of 373 µs; 37 to 64 of 221 µs."""
GATEWAY_OWN_SHARE = {"write": 0.75, "read": 1.05}
"""What a gateway takes of it: 276 to 284 of 373 µs; 222 to 243 of 221 µs."""
OTHER_THREADS_CORES = 0.25
"""What a busy node uses beside its event loop: the thread that syncs the log, and upkeep."""
WATCHER_MIB = 64 / 10_000
"""An idle watcher takes this (docs/clients.md)."""
BARE_NODE_MIB = 70.0
"""A node with nothing to do takes this (docs/performance.md)."""
CACHES_MIB = 128.0
"""SQLite's cache and the raft log in memory, both full."""


class Point(NamedTuple):
    """One measured load."""

    kind: str
    """`write` or `read`."""
    nodes: int
    clients: int
    value_bytes: int
    keys: int
    per_second: float
    batch: float
    """Writes an entry; 0 for reads."""
    leader_us: float
    """Processor time of the leader for one request."""
    follower_us: float
    """The same for each follower."""


class Line(NamedTuple):
    """One figure of a point as a sum: known factors, each times a cost that has to be found."""

    factors: tuple[float, ...]
    measured: float


class Costs(NamedTuple):
    """Microseconds."""

    write: tuple[float, ...]
    """The leader: a write, an entry, an entry for each follower, a KiB of a value."""
    write_follower: tuple[float, ...]
    """A follower: a write, an entry, a KiB."""
    read: tuple[float, ...]
    """The leader: a read, a round."""
    watch: tuple[float, ...]
    """The leader: a write without batch, a watcher that is told of it."""


def write_factors(nodes: int, batch: float, value_bytes: int) -> tuple[float, ...]:
    return (1.0, 1.0 / batch, (nodes - 1) / batch, value_bytes / 1024)


def follower_factors(batch: float, value_bytes: int) -> tuple[float, ...]:
    return (1.0, 1.0 / batch, value_bytes / 1024)


def round_share(clients: int) -> float:
    """Rounds of questions a read: those that arrive while one is under way share the next one."""
    return 1.0 / max(1.0, clients * BATCH_SHARE)


def fit(points: Sequence[Point], watched: Sequence[tuple[int, float]]) -> Costs:
    """The costs that miss the points least, each miss as a part of its figure; none is negative.

    `watched` are numbers of watchers with the leader's microseconds a write. Loads on a large state are left out.
    """
    writes = [point for point in points if point.kind == "write" and point.keys == 1]
    reads = [point for point in points if point.kind == "read"]
    followed = [point for point in writes if point.nodes > 1]
    return Costs(
        solve([Line(write_factors(p.nodes, p.batch, p.value_bytes), p.leader_us) for p in writes]),
        solve([Line(follower_factors(p.batch, p.value_bytes), p.follower_us) for p in followed]),
        solve([Line((1.0, round_share(p.clients)), p.leader_us) for p in reads]),
        solve([Line((1.0, float(watchers)), leader_us) for watchers, leader_us in watched]),
    )


def solve(lines: Sequence[Line]) -> tuple[float, ...]:
    """Costs that are not negative with the smallest sum of squared relative misses; a cost that would be is 0."""
    count = len(lines[0].factors)
    used = list(range(count))
    while True:
        found = _least_squares([[line.factors[i] / line.measured for i in used] for line in lines])
        negative = [i for i, cost in zip(used, found, strict=True) if cost < 0]
        if not negative:
            costs = dict(zip(used, found, strict=True))
            return tuple(costs.get(i, 0.0) for i in range(count))
        used.remove(min(negative, key=lambda i: found[used.index(i)]))


def _least_squares(rows: Sequence[Sequence[float]]) -> list[float]:
    """x with the smallest |rows x - 1|: the normal equations, by elimination."""
    count = len(rows[0])
    matrix = [
        [sum(row[i] * row[j] for row in rows) for j in range(count)] + [sum(row[i] for row in rows)] for i in range(count)
    ]
    for i in range(count):
        pivot = max(range(i, count), key=lambda row: abs(matrix[row][i]))
        matrix[i], matrix[pivot] = matrix[pivot], matrix[i]
        for other in range(count):
            if other != i:
                factor = matrix[other][i] / matrix[i][i]
                matrix[other] = [a - factor * b for a, b in zip(matrix[other], matrix[i], strict=True)]
    return [matrix[i][count] / matrix[i][i] for i in range(count)]


def total(costs: Sequence[float], factors: Sequence[float]) -> float:
    return sum(cost * factor for cost, factor in zip(costs, factors, strict=True))


def follower_us(costs: Costs, point: Point) -> float:
    """What the model says of a measured load of writes; a follower's part of a read is not modelled."""
    return total(costs.write_follower, follower_factors(point.batch, point.value_bytes))


def leader_us(costs: Costs, point: Point) -> float:
    """What the model says of a measured load."""
    if point.kind == "read":
        return total(costs.read, (1.0, round_share(point.clients)))
    return total(costs.write, write_factors(point.nodes, point.batch, point.value_bytes))


class Capacity(NamedTuple):
    """What the leader's machine carries at most."""

    per_second: float
    gateways: int
    bound_by: str


def capacity(
    costs: Costs, kind: str, cores: int, *, nodes: int = 3, clients: int = 256, value_bytes: int = 256
) -> Capacity:
    """Requests a second of a cluster with a node on each machine of so many cores, `clients` in all.

    With as many gateways as carry most; none on two cores or fewer, as `grpc_gateways = "auto"` has it.
    """
    batch = min(max(1.0, clients * BATCH_SHARE), BATCH_MAX)
    one = Point(kind, nodes, clients, value_bytes, 0, 0.0, batch, 0.0, 0.0)
    each_us = leader_us(costs, one)
    best = Capacity(1e6 / each_us, 0, "the node's core")
    for gateways in range(1, gateways_max(cores) + 1):
        node = 1e6 / (each_us * GATEWAY_NODE_SHARE[kind])
        theirs = gateways * 1e6 / (each_us * GATEWAY_OWN_SHARE[kind])
        bound = Capacity(min(node, theirs), gateways, "the node's core" if node <= theirs else "the gateways")
        best = max(best, bound, key=lambda each: each.per_second)
    return best


def gateways_max(cores: int) -> int:
    """Gateways that have a core each beside the node's own threads."""
    return 0 if cores <= 2 else min(GATEWAYS_MAX, int(cores - 1 - OTHER_THREADS_CORES))


def told_per_second(costs: Costs, cores: int) -> float:
    """Watchers that are told of a change in a second, all together, by the node or by as many gateways as have a core."""
    return max(1, gateways_max(cores)) * 1e6 / costs.watch[1]


def idle_watchers(memory_mib: float) -> int:
    """Watchers whom nobody tells anything that a node with this memory has room for, whatever it accepts."""
    return int(max(0.0, memory_mib - BARE_NODE_MIB - CACHES_MIB) / WATCHER_MIB)


def read_points(path: Path = POINTS_FILE) -> tuple[list[Point], list[tuple[int, float]]]:
    """Measured loads; numbers of watchers with the leader's microseconds a write."""
    points, watched = [], []
    for line in path.read_text().splitlines():
        tree = json.loads(line)
        if tree["kind"] in ("write", "read"):
            points.append(Point(**tree))
        elif tree["kind"] == "watch":
            watched.append((int(tree["watchers"]), float(tree["leader_us"])))
    return points, watched


def main() -> int:
    points, watched = read_points()
    costs = fit(points, watched)
    print("| load | nodes | clients | value | writes an entry | leader, µs measured | model | miss |")
    print("|---|---|---|---|---|---|---|---|")
    for point in points:
        model = leader_us(costs, point)
        print(
            f"| {point.kind} | {point.nodes} | {point.clients} | {point.value_bytes} | {point.batch:.1f} |"
            f" {point.leader_us:.0f} | {model:.0f} | {model / point.leader_us - 1:+.0%} |"
        )
    for watchers, measured in watched:
        model = total(costs.watch, (1.0, float(watchers)))
        print(f"{watchers} watchers: {measured:.0f} µs measured, {model:.0f} by the model, {model / measured - 1:+.0%}")
    for name, found in costs._asdict().items():
        print(f"{name}: {', '.join(f'{cost:.1f}' for cost in found)} µs")
    for cores in (2, 4, 8, 32):
        for kind in ("write", "read"):
            most = capacity(costs, kind, cores)
            bound = f"{most.gateways} gateways, bound by {most.bound_by}"
            print(f"{cores} cores, {kind}s of 256 clients: {most.per_second:,.0f}/s, {bound}")
        print(f"{cores} cores: {told_per_second(costs, cores):,.0f} watchers told a second")
    print(f"1 GiB: {idle_watchers(1024):,} idle watchers")
    return 0


if __name__ == "__main__":
    sys.exit(main())

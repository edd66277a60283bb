"""Measures what `scaling_model` is fitted to: processor time of each node a request, for clusters, clients and values.

Processor time is read from /proc, less what the nodes use when idle. Where others compute on the same machine it grows as
well, so each turn is compared with a fixed piece of work that is timed before and after it: costs are divided by how much
slower that was than at its best. Batches become smaller on a busy machine; their size is counted, not assumed. Prints
JSON, one point a line. Run as `python -m benchmarks.scaling_points > benchmarks/scaling_points.jsonl`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence

from benchmarks.compared.contender import request, target
from benchmarks.compared.events import WATCH_CONNECTIONS
from benchmarks.compared.loads import fill
from benchmarks.compared.metasrv_cluster import MetasrvCluster
from benchmarks.compared.raw_load import Connection, Streams
from benchmarks.gateways import processor_seconds
from benchmarks.load import KEY, drive
from benchmarks.process_usage import resident_mib
from benchmarks.scaling_model import Point

CALIBRATION_REQUESTS = 100
VALUE_SIZE_BYTES = 256
KEYS = 100_000
WATCHED_WRITES = 60
IDLE_SECONDS = 2.0
SETTLING_SECONDS = 3.0
"""After many writes, until the state's write-ahead log is short again."""
SPEED_SECONDS_BEST = 0.00556
"""Processor time of `speed_seconds` on this machine while it did nothing else; the unit of all costs."""


def speed_seconds() -> float:
    """Processor time of a fixed piece of work like a node's: dictionaries, bytes, calls."""
    started = time.thread_time()
    table: dict[str, bytes] = {}
    for number in range(20_000):
        key = f"key/{number % 500}"
        table[key] = b"%d" % number + table.get(key, b"")[:100]
    return time.thread_time() - started


class Meter:
    """Processor time of each node for a request, less idle use, as on a machine that does nothing else."""

    def __init__(self, cluster: MetasrvCluster) -> None:
        self._cluster = cluster
        self._idle: list[float] = []

    async def learn_idle(self) -> None:
        await asyncio.sleep(1.0)
        before = self._used()
        await asyncio.sleep(IDLE_SECONDS)
        self._idle = [(now - then) / IDLE_SECONDS for now, then in zip(self._used(), before, strict=True)]

    def _used(self) -> list[float]:
        return [processor_seconds(self._cluster.pid(node)) for node in self._cluster.nodes]

    async def microseconds(self, requests: int, work: Callable[[], float]) -> tuple[list[float], float]:
        """For each node, and what `work` returned. Runs `work` in a thread."""
        slow, before, started = speed_seconds(), self._used(), time.monotonic()
        result = await asyncio.to_thread(work)
        elapsed, after = time.monotonic() - started, self._used()
        slowdown = (slow + speed_seconds()) / 2 / SPEED_SECONDS_BEST
        used = [
            (now - then - idle * elapsed) * 1e6 / requests / slowdown
            for now, then, idle in zip(after, before, self._idle, strict=True)
        ]
        return used, result


async def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.scaling_points", description=__doc__)
    parser.add_argument("--seconds", type=float, default=0.8, help="length of one turn, about")
    parser.add_argument("--turns", type=int, default=3, help="a point is their median")
    options = parser.parse_args(arguments)
    speed = min(speed_seconds() for _ in range(20))
    about = {"kind": "about", "date": time.strftime("%Y-%m-%d"), "cores": os.cpu_count(), "load": os.getloadavg()[0]}
    print(json.dumps({**about, "speed_ms": round(speed * 1000, 2)}), flush=True)
    for nodes in (1, 3, 5):
        async with MetasrvCluster(nodes) as cluster:
            meter = Meter(cluster)
            await cluster.leader()
            await meter.learn_idle()
            for clients in (1, 16, 64):
                await _show(cluster, meter, "write", clients, VALUE_SIZE_BYTES, options)
            if nodes == 3:
                await _measure_three(cluster, meter, options)
    return 0


async def _measure_three(cluster: MetasrvCluster, meter: Meter, options: argparse.Namespace) -> None:
    for size_bytes in (4_096, 32_768):
        await _show(cluster, meter, "write", 16, size_bytes, options)
    for clients in (1, 16, 64):
        await _show(cluster, meter, "read", clients, VALUE_SIZE_BYTES, options)
    for watchers in (0, 100, 1000):
        print(json.dumps(await _fan_out(cluster, meter, watchers)), flush=True)
    await fill(cluster, [f"benchmark/many/{number:08}" for number in range(KEYS)])
    memory_mib = round(resident_mib(cluster.pid(await cluster.leader())), 1)
    print(json.dumps({"kind": "memory", "keys": KEYS, "leader_mib": memory_mib}), flush=True)
    await asyncio.sleep(SETTLING_SECONDS)
    await _show(cluster, meter, "write", 64, VALUE_SIZE_BYTES, options, keys=KEYS)


async def _show(
    cluster: MetasrvCluster,
    meter: Meter,
    kind: str,
    clients: int,
    value_bytes: int,
    options: argparse.Namespace,
    keys: int = 1,
) -> None:
    leader = await cluster.leader()
    where = target(cluster, leader, cluster.put(KEY, b"v" * value_bytes) if kind == "write" else cluster.get(KEY))
    turns: list[tuple[float, float, float, float]] = []
    for _ in range(options.turns):
        first = await asyncio.to_thread(drive, where, clients, max(CALIBRATION_REQUESTS, 2 * clients))
        requests = max(int(first.per_second * options.seconds), 4 * clients, CALIBRATION_REQUESTS)
        entries = await _entries(cluster, leader)
        used, per_second = await meter.microseconds(
            requests,
            lambda requests=requests: drive(where, clients, requests).per_second,  # type: ignore[misc]
        )
        written = max(1.0, await _entries(cluster, leader) - entries)
        place = cluster.nodes.index(leader)
        others = [*used[:place], *used[place + 1 :]]
        follower_us = statistics.mean(others) if others else 0.0
        turns.append((per_second, requests / written if kind == "write" else 0.0, used[place], follower_us))
    per_second, batch, leader_us, follower_us = (round(statistics.median(each), 1) for each in zip(*turns, strict=True))
    point = Point(kind, len(cluster.nodes), clients, value_bytes, keys, per_second, batch, leader_us, follower_us)
    print(json.dumps(point._asdict()), flush=True)


async def _entries(cluster: MetasrvCluster, leader: int) -> float:
    """Entries that the leader has synced."""
    _, page = await cluster.cluster.admin(leader, "/v1/metrics")
    (line,) = (line for line in page.splitlines() if line.startswith("metasrv_raft_log_synced_entries_total "))
    return float(line.rpartition(" ")[2])


async def _fan_out(cluster: MetasrvCluster, meter: Meter, watchers: int) -> dict[str, object]:
    """The leader's processor time for one write of one client, with `watchers` of its key."""
    leader = await cluster.leader()
    endpoint, key = cluster.endpoint(leader), "benchmark/scaling/watched"
    put = request(cluster, leader, cluster.put(key, b"v" * VALUE_SIZE_BYTES))
    watch = request(cluster, leader, cluster.watch(key))
    streams = Streams(endpoint, WATCH_CONNECTIONS, [watch] * watchers, stay_open=False)
    writer = Connection(endpoint)

    def run() -> float:
        for _ in range(WATCHED_WRITES):
            writer.send(put)
            while not writer.receive():
                continue
            streams.wait_for(watchers)
            streams.forget()
        return 0.0

    try:
        await asyncio.to_thread(streams.drain)
        used, _ = await meter.microseconds(WATCHED_WRITES, run)
    finally:
        streams.close()
        writer.close()
    return {"kind": "watch", "watchers": watchers, "leader_us": round(used[cluster.nodes.index(leader)], 1)}


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))

"""`make bench`: three metasrv nodes beside three etcd nodes, driven alternately by the same load generator.

256-byte values over gRPC to the leader of each; a majority syncs every write. Each figure is the median of the
repetitions. Also: memory and processor of an idle node, and the time a node with 100,000 keys needs to serve again.
Everything runs on this machine and shares its cores, the load generator included.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import programs
from benchmarks.etcd import EtcdCluster
from benchmarks.load import KEY, VALUE_SIZE_BYTES, LoadError, Measurement, Target, drive
from benchmarks.process_usage import UsageMeter, resident_mib
from metasrv.client import Transaction
from metasrv.testing.processes import ProcessCluster

RESULTS = Path(__file__).parent / "results"
CALIBRATION_REQUESTS = 200
IDLE_SECONDS = 10.0
KEYS = 100_000
KEYS_PER_TRANSACTION = 1_000


@dataclass(frozen=True, slots=True)
class Row:
    """Medians at one number of clients."""

    clients: int
    ours_per_second: float
    etcd_per_second: float
    ratio: float
    ours_p50_ms: float
    ours_p99_ms: float
    etcd_p50_ms: float
    etcd_p99_ms: float
    ours_leader_cpu_percent: float
    etcd_leader_cpu_percent: float


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--seconds", type=float, default=5.0, help="length of one measurement, about")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--keys", type=int, default=KEYS, help="keys of the restart measurement; 0 leaves it out")
    options = parser.parse_args(arguments)
    try:
        programs.require()
        return asyncio.run(run(options))
    except (programs.MissingProgramsError, LoadError) as error:
        print(error, file=sys.stderr)
        return 1


async def run(options: argparse.Namespace) -> int:
    async with ProcessCluster(3) as ours:
        await ours.boot()
        idle = await measure_idle(ours)
        with EtcdCluster() as etcd:
            print(f"etcd {etcd.version()}, {os.cpu_count()} cores, {VALUE_SIZE_BYTES}-byte values, {platform.platform()}")
            etcd.leader()
            rows = [await compare(ours, etcd, clients, options) for clients in options.clients]
        restart_s = await measure_restart(ours, options.keys) if options.keys else None
    print_rows(rows)
    for node_id, (memory_mib, processor_percent) in idle.items():
        print(f"idle node {node_id}: {memory_mib:.0f} MiB, {processor_percent:.1f} % of a core")
    if restart_s is not None:
        print(f"restart of a node with {options.keys} keys until /readyz: {restart_s:.2f} s")
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"side-by-side-{time.strftime('%Y%m%d-%H%M%S')}.json"
    result = {"rows": [asdict(row) for row in rows], "idle": idle, "restart_s": restart_s, "keys": options.keys}
    path.write_text(json.dumps(result, indent=2))
    print(f"written to {path}")
    return 0


# ----------------------------------------------------------------------------- writes


async def compare(ours: ProcessCluster, etcd: EtcdCluster, clients: int, options: argparse.Namespace) -> Row:
    """Alternate between the two, `repetitions` times each."""
    mine: list[tuple[Measurement, float]] = []
    theirs: list[tuple[Measurement, float]] = []
    for _ in range(options.repetitions):
        mine.append(await measure_ours(ours, clients, options.seconds))
        theirs.append(await asyncio.to_thread(measure_etcd, etcd, clients, options.seconds))
        print(
            f"  {clients:3} clients: metasrv {mine[-1][0].per_second:7.0f}/s, etcd {theirs[-1][0].per_second:7.0f}/s",
            flush=True,
        )
    ours_per_second = statistics.median(one.per_second for one, _ in mine)
    etcd_per_second = statistics.median(one.per_second for one, _ in theirs)
    return Row(
        clients,
        ours_per_second,
        etcd_per_second,
        ours_per_second / etcd_per_second,
        statistics.median(one.p50_ms for one, _ in mine),
        statistics.median(one.p99_ms for one, _ in mine),
        statistics.median(one.p50_ms for one, _ in theirs),
        statistics.median(one.p99_ms for one, _ in theirs),
        statistics.median(percent for _, percent in mine),
        statistics.median(percent for _, percent in theirs),
    )


async def measure_ours(cluster: ProcessCluster, clients: int, seconds: float) -> tuple[Measurement, float]:
    leader = await cluster.wait_for_leader()
    process = cluster.nodes[leader].process
    if process is None:
        raise LoadError("the leader does not run")
    target = await leader_target(cluster, leader)
    first = await asyncio.to_thread(drive, target, clients, max(CALIBRATION_REQUESTS, clients))
    requests = requests_for(first, clients, seconds)
    before = await last_seq(cluster, leader)
    meter = UsageMeter.start(process.pid)
    measured = await asyncio.to_thread(drive, target, clients, requests)
    percent = meter.percent_of_a_core()
    check_growth("metasrv", await last_seq(cluster, leader) - before, requests)
    return measured, percent


async def leader_target(cluster: ProcessCluster, leader: int) -> Target:
    """One write at the leader, as h2load sends it."""
    async with cluster.node_client(leader) as client:
        token = await client.handshake()
    return Target(
        cluster.nodes[leader].grpc,
        "/meta.MetaService/Transaction",
        Transaction().put(KEY, b"v" * VALUE_SIZE_BYTES).request.SerializeToString(),
        {"auth-token-bin": base64.b64encode(token).decode().rstrip("=")},
    )


def measure_etcd(cluster: EtcdCluster, clients: int, seconds: float) -> tuple[Measurement, float]:
    target, leader = cluster.target(), cluster.leader()
    if leader.process is None:
        raise LoadError("the leader does not run")
    first = drive(target, clients, max(CALIBRATION_REQUESTS, clients))
    requests = requests_for(first, clients, seconds)
    before = cluster.writes()
    meter = UsageMeter.start(leader.process.pid)
    measured = drive(target, clients, requests)
    percent = meter.percent_of_a_core()
    check_growth("etcd", cluster.writes() - before, requests)
    return measured, percent


def requests_for(first: Measurement, clients: int, seconds: float) -> int:
    return max(int(first.per_second * seconds), 10 * clients)


def check_growth(name: str, grown: int, requests: int) -> None:
    """Every request must have been a write: HTTP 200 says nothing about that."""
    if grown != requests:
        raise LoadError(f"{name} answered {requests} requests but made {grown} writes")


async def last_seq(cluster: ProcessCluster, node_id: int) -> int:
    status = await cluster.status(node_id)
    if status is None:
        raise LoadError(f"node {node_id} does not answer")
    return int(status["last_seq"])


# ----------------------------------------------------------------------------- idle and restart


async def measure_idle(cluster: ProcessCluster) -> dict[int, tuple[float, float]]:
    """Memory in MiB and percent of a core of each node, with nothing to do."""
    await asyncio.sleep(2)
    processes = {node_id: node.process for node_id, node in cluster.nodes.items() if node.process is not None}
    meters = {node_id: UsageMeter.start(process.pid) for node_id, process in processes.items()}
    await asyncio.sleep(IDLE_SECONDS)
    return {
        node_id: (resident_mib(process.pid), meters[node_id].percent_of_a_core())
        for node_id, process in processes.items()
    }


async def measure_restart(cluster: ProcessCluster, keys: int) -> float:
    """Seconds from the start of a process until it is ready, median of three kills of a follower."""
    leader = await cluster.wait_for_leader()
    async with cluster.node_client(leader, timeout_s=60) as client:
        for start in range(0, keys, KEYS_PER_TRANSACTION):
            transaction = Transaction()
            for number in range(start, min(start + KEYS_PER_TRANSACTION, keys)):
                transaction.put(f"restart/{number:09}", b"v" * VALUE_SIZE_BYTES)
            await client.transaction(transaction.request)
    await cluster.wait_until_equal()
    follower = next(node_id for node_id in cluster.nodes if node_id != leader)
    seconds = []
    for _ in range(3):
        await cluster.kill(follower)
        started = time.monotonic()
        cluster.start(follower)
        await wait_until_ready(cluster, follower)
        seconds.append(time.monotonic() - started)
    return statistics.median(seconds)


async def wait_until_ready(cluster: ProcessCluster, node_id: int) -> None:
    while True:
        try:
            code, _ = await cluster.admin(node_id, "/readyz")
        except OSError:
            code = 0
        if code == 200:
            return
        await asyncio.sleep(0.005)


def print_rows(rows: Sequence[Row]) -> None:
    print(
        f"\n{'clients':>7}  {'metasrv/s':>9}  {'etcd/s':>9}  {'ratio':>5}  "
        f"{'p50 ms':>15}  {'p99 ms':>15}  {'leader CPU %':>15}"
    )
    for row in rows:
        print(
            f"{row.clients:7}  {row.ours_per_second:9.0f}  {row.etcd_per_second:9.0f}  {row.ratio:5.2f}  "
            f"{row.ours_p50_ms:7.2f}/{row.etcd_p50_ms:7.2f}  {row.ours_p99_ms:7.2f}/{row.etcd_p99_ms:7.2f}  "
            f"{row.ours_leader_cpu_percent:7.0f}/{row.etcd_leader_cpu_percent:7.0f}"
        )
    print("(pairs: metasrv/etcd)")


if __name__ == "__main__":
    sys.exit(main())

"""What large work costs everybody else: the latency of small writes beside one kind of large work after the other.

Three nodes on this machine. A few clients write small values to the leader at a steady, light pace; beside them another
process (`disturbances.py`) sends values of megabytes, transactions of 1,000 operations, deletions of 20,000 keys, takes
snapshots and heap profiles. Prints, for each phase, the latency of the small writes, how often the leader changed, and
which steps of the nodes' loops took longer than 5 ms. Exit code 1 when the slowest thousandth of the writes of a phase
took longer than 25 ms, or the leader changed.

The goal holds on an otherwise quiet machine with two cores; elsewhere look at the steps, which hardly depend on others.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


from benchmarks import beside_etcd, slow_stages
from benchmarks.disturbances import filled_key, puts
from benchmarks.latencies import latencies
from benchmarks.paced_writes import write_at_pace
from metasrv.protocol.proto import meta_pb2 as pb
from metasrv.testing.processes import ProcessCluster

KINDS = {
    "nothing": "alone",
    "json-15": "upserts of 15 MiB in JSON",
    "json-4": "upserts of 4 MiB in JSON",
    "put-15": "puts of 15 MiB",
    "put-4": "puts of 4 MiB",
    "transactions": "transactions of 1,000 puts",
    "nothing-full": "alone, with all keys",
    "checkpoints": "the state's log begins anew",
    "snapshot": "snapshots",
    "compact": "compactions",
    "delete": "deletions of 20,000 keys by prefix",
    "heap": "heap profiles",
}
"""In this order; `nothing-full` comes after the keys were written."""
BEFORE_KEYS = 6
DISTURBANCES = Path(__file__).with_name("disturbances.py")
P999_MS_MAX = 25.0
KEYS_PER_TRANSACTION = 500
SLOW_STEPS = "metasrv_loop_slow_steps_total"
SLOW_SECONDS = "metasrv_loop_slow_step_seconds_total"
RESTARTS = "metasrv_raft_applying_paused_seconds_count"


async def write(cluster: ProcessCluster, leader: int, number: int, options: argparse.Namespace) -> list[float]:
    """One client: a write every so often, and what each took from the moment at which it was due."""
    request = pb.TxnRequest(if_then=[pb.TxnOp(put=pb.TxnPutRequest(key=f"writer/{number}", value=b"v" * 100))])
    async with cluster.node_client(leader, timeout_s=30) as client:
        await client.handshake()
        return await write_at_pace(lambda: client.transaction(request), number, options)


async def counters(cluster: ProcessCluster) -> dict[tuple[int, str], float]:
    """The counters of slow steps of every node, by node and the metric with its label."""
    values: dict[tuple[int, str], float] = {}
    for node_id in cluster.nodes:
        _, page = await cluster.admin(node_id, "/v1/metrics")
        for line in page.splitlines():
            if line.startswith((SLOW_STEPS, SLOW_SECONDS, RESTARTS)):
                name, _, value = line.rpartition(" ")
                values[node_id, name] = float(value)
    return values


async def phase(cluster: ProcessCluster, kind: str, options: argparse.Namespace) -> bool:
    """Measure beside one kind of work; returns whether the goal was reached."""
    leader = await cluster.wait_for_leader()
    node = cluster.nodes[leader]
    command = [sys.executable, str(DISTURBANCES), kind.removesuffix("-full")]
    command += ["--grpc", str(node.grpc), "--admin", str(node.admin)]
    command += ["--seconds", str(options.seconds - 0.5), "--keys", str(max(options.keys, 20))]
    disturber = await asyncio.create_subprocess_exec(*command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    if disturber.stdin is None or disturber.stdout is None or await disturber.stdout.readline() != b"ready\n":
        raise RuntimeError(f"the disturbance {kind} did not begin")
    await asyncio.sleep(options.rest)
    before, status = await counters(cluster), await cluster.status(leader)
    lines_before = len(node.output().splitlines())
    gc.collect()
    gc.disable()
    disturber.stdin.write(b"\n")
    shares = await asyncio.gather(*(write(cluster, leader, number, options) for number in range(options.writers)))
    gc.enable()
    report, _ = await disturber.communicate()
    after, later = await counters(cluster), await cluster.status(leader)
    measured = latencies([seconds for share in shares for seconds in share])
    changes = 0 if status is None or later is None else later["current_term"] - status["current_term"]
    print(f"{KINDS[kind]:36} {measured}   leader changes {changes}   {report.decode().strip() or 'failed'}")
    show_steps(leader, before, after)
    if slow := slow_stages.summary(node.output().splitlines()[lines_before:], "writer/"):
        print(f"    {slow}", flush=True)
    return measured.p999 <= P999_MS_MAX and changes == 0 and disturber.returncode == 0


def show_steps(leader: int, before: dict[tuple[int, str], float], after: dict[tuple[int, str], float]) -> None:
    """The slow steps of the phase, of the leader and of the others together."""
    for whose, counts in (("leader", {leader}), ("followers", {node_id for node_id, _ in after} - {leader})):
        grown: dict[str, float] = {}
        for (node_id, name), value in after.items():
            if node_id in counts and value > before.get((node_id, name), 0.0):
                grown[name] = grown.get(name, 0.0) + value - before.get((node_id, name), 0.0)
        parts = [
            f"{name.partition('work=')[2].strip('}').strip(chr(34))} {count:.0f} in"
            f" {grown.get(name.replace(SLOW_STEPS, SLOW_SECONDS), 0.0) * 1000:.0f} ms"
            for name, count in sorted(grown.items())
            if name.startswith(SLOW_STEPS)
        ]
        parts += [f"log begun anew {count:.0f} times" for name, count in grown.items() if name.startswith(RESTARTS)]
        if parts:
            print(f"    {whose}: {', '.join(parts)}", flush=True)


async def fill(cluster: ProcessCluster, leader: int, keys: int) -> None:
    async with cluster.node_client(leader, timeout_s=60) as client:
        for start in range(0, keys, KEYS_PER_TRANSACTION):
            numbers = range(start, min(start + KEYS_PER_TRANSACTION, keys))
            await client.transaction(puts([filled_key(number) for number in numbers], 100))


async def run(options: argparse.Namespace) -> int:
    reached = True
    os.environ["METASRV_SLOW_REQUEST_MS"] = str(options.slow_ms)  # the nodes inherit it
    async with ProcessCluster(3) as cluster:
        leader = await cluster.boot()
        for place, kind in enumerate(KINDS):
            if place == BEFORE_KEYS:
                started = time.perf_counter()
                await fill(cluster, await cluster.wait_for_leader(), options.keys)
                print(f"{options.keys} keys written in {time.perf_counter() - started:.0f} s", flush=True)
                await cluster.wait_until_equal(timeout_s=120)
            if not options.only or kind in options.only:
                reached = await phase(cluster, kind, options) and reached
        if leader != await cluster.wait_for_leader():
            print("another node leads than at the beginning")
    return 0 if reached else 1


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="beside", description=__doc__)
    parser.add_argument("--keys", type=int, default=200_000, help="records of 100 bytes, up to 1,000,000 or so")
    parser.add_argument("--seconds", type=float, default=8.0, help="length of each phase")
    parser.add_argument("--rest", type=float, default=1.5, help="seconds of rest before each phase")
    parser.add_argument("--writers", type=int, default=16)
    parser.add_argument("--rate", type=float, default=250.0, help="writes a second, of all writers together")
    parser.add_argument("--only", nargs="+", choices=tuple(KINDS), help="these phases alone")
    parser.add_argument("--slow-ms", type=int, default=25, help="say of a sample of slower writes where they waited")
    parser.add_argument("--beside", choices=("etcd",), help="measure etcd as well, in turns, and the disk meanwhile")
    parser.add_argument("--turns", type=int, default=2, help="of each kind of work, with --beside")
    parser.add_argument("--etcd", metavar="PROGRAM", help="with --beside; the newest that can be had by default")
    options = parser.parse_args(arguments)
    if options.beside:
        return asyncio.run(beside_etcd.run(options, KINDS, BEFORE_KEYS))
    return asyncio.run(run(options))


if __name__ == "__main__":
    sys.exit(main())

"""Processor time of the consensus process, per write and per read, with and without gateways.

That time bounds a node on a machine with many processors, whatever this machine is and whatever else runs on it: it is
read from /proc, not from a clock. h2load sends one request after the other over `--clients` connections to the leader of
three nodes; the leader's process and its gateways are measured apart. Run as `python benchmarks/gateways.py`.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.load import VALUE_SIZE_BYTES, LoadError, Target, drive
from metasrv.protocol.proto import meta_pb2 as pb
from metasrv.testing.processes import ProcessCluster

WRITE = "write"
READ = "read"
NANOSECONDS = 1_000_000_000
IDLE_SECONDS = 3.0
"""For so long nothing is asked of the node, to learn what it uses anyhow; that is not counted."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Processor time of one request in microseconds: the leader's own process, all of its gateways together."""

    per_second: float
    node_us: float
    gateways_us: float
    together: float
    """Writes of one log entry, on average; each entry costs the node a sync, messages and steps, whatever it holds."""


def processor_seconds(process_id: int) -> float:
    """Time on a processor, of all threads that the process has."""
    total = 0
    for task in Path(f"/proc/{process_id}/task").iterdir():
        try:
            total += int((task / "schedstat").read_text().split()[0])
        except FileNotFoundError:  # the thread has ended
            continue
    return total / NANOSECONDS


def descendants(process_id: int) -> list[int]:
    """Processes that a process has started, and those that they have started."""
    found: list[int] = []
    for child in Path(f"/proc/{process_id}/task/{process_id}/children").read_text().split():
        found += [int(child), *descendants(int(child))]
    return found


async def target_of(cluster: ProcessCluster, leader: int, work: str, remote: bool) -> Target:
    endpoint = cluster.remote_gateways[0].grpc if remote else cluster.nodes[leader].grpc
    async with cluster.node_client(leader) as client:
        token = await client.handshake()
    headers = {"auth-token-bin": base64.b64encode(token).decode().rstrip("=")}
    if work == WRITE:
        put = pb.TxnPutRequest(key="benchmark/key", value=b"v" * VALUE_SIZE_BYTES)
        message = pb.TxnRequest(if_then=[pb.TxnOp(put=put)])
        return Target(endpoint, "/meta.MetaService/Transaction", message.SerializeToString(), headers)
    message_read = pb.RaftRequest(data='{"GetKV":{"key":"benchmark/key"}}')
    return Target(endpoint, "/meta.MetaService/KvReadV1", message_read.SerializeToString(), headers)


async def measure(gateways: int, clients: int, requests: int, *, remote: bool = False) -> dict[str, Cost]:
    """The costs with this number of gateways; `remote`: with one that is no process of the node."""
    os.environ["METASRV_GRPC_GATEWAYS"] = str(gateways)
    costs: dict[str, Cost] = {}
    async with ProcessCluster(3) as cluster:
        leader = await cluster.boot()
        await cluster.wait_for_ready()
        process = cluster.nodes[leader].process
        if process is None:
            raise AssertionError("the leader has no process")
        others = await linked_to(cluster, leader) if remote else ()
        for work in (WRITE, READ):
            target = await target_of(cluster, leader, work, remote)
            await asyncio.to_thread(drive, target, clients, requests // 10)
            meter = Meter(process.pid, *others)
            await asyncio.sleep(IDLE_SECONDS)
            idle = meter.seconds()
            before, started = await place_of(cluster, leader), time.monotonic()
            done = await asyncio.to_thread(drive, target, clients, requests)
            elapsed, used = time.monotonic() - started, meter.seconds()
            after = await place_of(cluster, leader)
            written, entries = after.last_seq - before.last_seq, after.log_index - before.log_index
            if not after.leads or after.term != before.term:
                raise LoadError("another node began to lead meanwhile")
            if written != (requests if work == WRITE else 0):
                raise LoadError(f"{requests} requests to {work} wrote {written} records")
            node_us, others_us = (
                (busy - rest * elapsed / IDLE_SECONDS) / requests * 1e6 for busy, rest in zip(used, idle, strict=True)
            )
            costs[work] = Cost(done.per_second, node_us, others_us, written / max(1, entries))
    return costs


async def linked_to(cluster: ProcessCluster, leader: int) -> tuple[int, ...]:
    """Start a gateway that is linked to the leader alone; its process."""
    gateway = cluster.add_remote_gateway(leader)
    await gateway.wait_for("ok: ")
    return () if gateway.process is None else (gateway.process.pid,)


class Meter:
    """Processor time of a node and of the processes that it has started, since the last look."""

    def __init__(self, process_id: int, *others: int) -> None:
        self._process_ids = (process_id, *descendants(process_id), *others)
        self._seen = [processor_seconds(each) for each in self._process_ids]

    def seconds(self) -> tuple[float, float]:
        """The node's own; that of the others together."""
        now = [processor_seconds(each) for each in self._process_ids]
        own, *others = (after - before for after, before in zip(now, self._seen, strict=True))
        self._seen = now
        return own, sum(others)


class Place(NamedTuple):
    """How far a node is."""

    leads: bool
    term: int
    log_index: int
    last_seq: int


async def place_of(cluster: ProcessCluster, leader: int) -> Place:
    status = await cluster.status(leader)
    if status is None:
        raise LoadError("the leader does not answer")
    return Place(status["is_leader"], status["current_term"], status["last_log_index"], status["last_seq"])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks/gateways.py", description=__doc__)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--gateways", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--remote", action="store_true", help="also with `metasrv gateway`, on this machine")
    options = parser.parse_args(arguments)
    print("| gateways | work | requests/s | writes an entry | node, µs a request | gateways, µs a request |")
    print("|---|---|---|---|---|---|")
    for count in options.gateways:
        for work, cost in asyncio.run(measure(count, options.clients, options.requests)).items():
            together = f"{cost.together:.0f}" if work == WRITE else ""
            figures = f"{together} | {cost.node_us:.0f} | {cost.gateways_us:.0f}"
            print(f"| {count} | {work} | {cost.per_second:.0f} | {figures} |", flush=True)
    if options.remote:
        for work, cost in asyncio.run(measure(0, options.clients, options.requests, remote=True)).items():
            together = f"{cost.together:.0f}" if work == WRITE else ""
            figures = f"{together} | {cost.node_us:.0f} | {cost.gateways_us:.0f}"
            print(f"| 1 without a node | {work} | {cost.per_second:.0f} | {figures} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What 10,000 idle watchers cost the node that holds them: memory, the time to open and to close them, write latency.

Three nodes on this machine; all watchers are on the leader (the worst case), over a few connections. Each watches a
range of its own in which nothing happens, so that finding the watchers of a write is part of what is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import grpc

from benchmarks.process_usage import MIB, UsageMeter, resident_mib
from metasrv.protocol.methods import TOKEN_METADATA_KEY
from metasrv.protocol.proto import meta_pb2 as pb
from metasrv.protocol.proto import meta_pb2_grpc
from metasrv.protocol.versions import SERVER_VERSION
from metasrv.testing.processes import ProcessCluster

OPENING_AT_ONCE = 200
WRITES = 1_000


class Watchers:
    """Open watch streams over `connections` channels."""

    def __init__(self, address: str, connections: int) -> None:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
        self._channels = [grpc.aio.insecure_channel(address, options=options) for _ in range(connections)]
        make_stub: Any = meta_pb2_grpc.MetaServiceStub
        self._stubs: list[Any] = [make_stub(channel) for channel in self._channels]
        self.calls: list[Any] = []
        self._metadata: tuple[tuple[str, bytes], ...] = ()
        """With a token, an address may have half of a node's watch streams, and a quarter without."""

    async def open(self, count: int) -> None:
        """Returns once the server has answered every one."""
        user = pb.BasicAuth(username="root").SerializeToString()
        hello = pb.HandshakeRequest(protocol_version=SERVER_VERSION.digit, payload=user)
        (reply,) = [reply async for reply in self._stubs[0].Handshake(iter([hello]))]
        self._metadata = ((TOKEN_METADATA_KEY, reply.payload),)
        for start in range(0, count, OPENING_AT_ONCE):
            numbers = range(start, min(start + OPENING_AT_ONCE, count))
            self.calls += await asyncio.gather(*map(self._open, numbers))

    async def _open(self, number: int) -> Any:
        stub = self._stubs[number % len(self._stubs)]
        request = pb.WatchRequest(key=f"idle/{number:06}/", key_end=f"idle/{number:06}0")
        call = stub.Watch(request, metadata=self._metadata)
        await call.initial_metadata()
        return call

    async def close(self) -> None:
        for call in self.calls:
            call.cancel()
        await asyncio.gather(*(channel.close() for channel in self._channels))


async def watcher_count(cluster: ProcessCluster, node_id: int) -> int:
    """The number of watchers that the node's gauge shows."""
    _, page = await cluster.admin(node_id, "/v1/metrics")
    (line,) = [line for line in page.splitlines() if line.startswith("metasrv_server_watchers ")]
    return int(float(line.split()[1]))


async def write_latencies(cluster: ProcessCluster, leader: int, writes: int) -> tuple[float, float]:
    """p50 and p99 in milliseconds of single writes, one after the other."""
    took = []
    async with cluster.node_client(leader) as client:
        for number in range(writes):
            started = time.perf_counter()
            await client.put(f"written/{number % 100}", b"v" * 100)
            took.append((time.perf_counter() - started) * 1000)
    percentiles = statistics.quantiles(took, n=100)
    return percentiles[49], percentiles[98]


async def run(options: argparse.Namespace) -> int:
    async with ProcessCluster(3) as cluster:
        leader = await cluster.boot()
        process = cluster.nodes[leader].process
        if process is None:
            raise RuntimeError("the leader has no process")
        await write_latencies(cluster, leader, options.writes)
        before_mib, before = resident_mib(process.pid), await write_latencies(cluster, leader, options.writes)
        watchers = Watchers(str(cluster.nodes[leader].grpc), options.connections)
        started = time.perf_counter()
        await watchers.open(options.watchers)
        opened_s = time.perf_counter() - started
        if await watcher_count(cluster, leader) != options.watchers:
            raise RuntimeError("the node does not hold all watchers")
        meter = UsageMeter.start(process.pid)
        await asyncio.sleep(options.idle)
        idle_percent = meter.percent_of_a_core()
        held_mib, held = resident_mib(process.pid), await write_latencies(cluster, leader, options.writes)
        each_bytes = (held_mib - before_mib) * MIB / options.watchers
        print(f"{options.watchers} watchers over {options.connections} connections, opened in {opened_s:.1f} s")
        print(
            f"memory of the node: {before_mib:.0f} MiB before, {held_mib:.0f} MiB with them ({each_bytes:.0f} bytes each)"
        )
        print(f"processor while all idle: {idle_percent:.1f} % of a core")
        print(f"one writer: p50 {before[0]:.2f} ms, p99 {before[1]:.2f} ms before")
        print(f"            p50 {held[0]:.2f} ms, p99 {held[1]:.2f} ms with them")
        started = time.perf_counter()
        await watchers.close()
        while await watcher_count(cluster, leader):  # noqa: ASYNC110 - the node is asked again and again
            await asyncio.sleep(0.05)
        print(f"all gone {time.perf_counter() - started:.1f} s after the clients left")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--watchers", type=int, default=10_000)
    parser.add_argument("--connections", type=int, default=5)
    parser.add_argument("--writes", type=int, default=WRITES)
    parser.add_argument("--idle", type=float, default=5.0, help="seconds to watch the idle node")
    return asyncio.run(run(parser.parse_args(arguments)))


if __name__ == "__main__":
    sys.exit(main())

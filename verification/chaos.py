"""Rounds of faults on real processes under load, each with its verdict: the engine of `make chaos`.

A round starts clients and watchers on all nodes, inflicts one fault and stops the clients. Then it checks what they
were told against a sequential model, against what is stored, and against what every node holds and every watch told.
Runs on an event loop; prints nothing.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field

from metasrv.model.errors import RequestError
from metasrv.testing.linearizability import Violation
from metasrv.testing.processes import ProcessCluster
from metasrv.testing.store import ClientStore, PinnedStore, Store
from metasrv.testing.workload import LOG_PREFIX, Record, Workload, wrong_histories, wrong_logs, wrong_order
from verification.nemesis import Fault, inflict
from verification.nemesis.service_faults import hammer_forever
from verification.states import differences, exports_at_rest, records_of
from verification.watch_log import WatchedStream, wrong_watches
from verification.watching import FIRST_KEY, LAST_KEY, WatchRecorder

CLIENTS_DEFAULT = 12
PINNED_EVERY = 2
"""Every second client asks one node only, whether it leads or not; the others follow the leader."""
REMOTE_EVERY = 4
"""Every fourth asks a gateway without a node, where there are some (`--remote-gateways`)."""
CLIENT_TIMEOUT_SECONDS = 2.5
"""Short, so that a round does not wait long for a node that cannot answer."""
WARM_UP_WRITES = 50
HAMMER_EVERY = 3
"""In every third round the admin routes, including profiles, are asked without a pause."""
SERVICE_SECONDS_MAX = 60.0
"""A cluster must serve within this time after its fault was undone, whatever the machine's load."""
LOOKS_AT_REST = 8
"""How often a difference at rest has to show: one entry between two questions is not a difference, and the last leases
end within one and a half seconds."""
SETTINGS = {"snapshot_logs_since_last": 200, "max_applied_log_to_keep": 100}
"""Low, so that faults hit purges and snapshots."""


@dataclass(slots=True)
class Round:
    """What one round did and found."""

    fault: str
    seed: int
    nodes: int
    clients: int
    record: Record = field(default_factory=Record)
    streams: Sequence[WatchedStream] = ()
    violations: Sequence[Violation] = ()
    """Keys whose history is not linearizable."""
    problems: list[str] = field(default_factory=list)
    """Every broken promise, including those in `violations`."""
    failure: str | None = None
    """Why the round could not be finished: no service in time, a node ended by itself, or the fault had no effect."""
    unavailable_s: float = 0.0
    """The longest time without an acknowledged write."""
    seconds: float = 0.0

    @property
    def is_good(self) -> bool:
        return not self.problems and self.failure is None


@asynccontextmanager
async def open_stores(cluster: ProcessCluster, count: int = CLIENTS_DEFAULT) -> AsyncIterator[Sequence[Store]]:
    """Stores for `count` clients, spread over all nodes."""
    nodes = sorted(cluster.nodes)
    async with AsyncExitStack() as stack:
        stores: list[Store] = []
        for number in range(count):
            if cluster.remote_gateways and number % REMOTE_EVERY == 0:
                gateway = cluster.remote_gateways[number // REMOTE_EVERY % len(cluster.remote_gateways)]
                remote = PinnedStore(gateway.grpc, CLIENT_TIMEOUT_SECONDS)
                stores.append(await stack.enter_async_context(remote))
            elif number % PINNED_EVERY == PINNED_EVERY - 1:
                node = cluster.nodes[nodes[number // PINNED_EVERY % len(nodes)]]
                pinned = PinnedStore(node.grpc, CLIENT_TIMEOUT_SECONDS)
                stores.append(await stack.enter_async_context(pinned))
            else:
                client = cluster.client(timeout_ms=int(CLIENT_TIMEOUT_SECONDS * 1000))
                stores.append(ClientStore(await stack.enter_async_context(client)))
        yield stores


OpenStores = Callable[[ProcessCluster, int], AbstractAsyncContextManager[Sequence[Store]]]


async def run_round(
    cluster: ProcessCluster,
    fault: Fault,
    seed: int,
    clients: int = CLIENTS_DEFAULT,
    *,
    open_stores: OpenStores = open_stores,
) -> Round:
    """Inflict one fault under load on a healthy cluster, which is healthy again afterwards unless the round failed."""
    source = random.Random(f"{fault.name}/{seed}")
    one = Round(fault.name, seed, len(cluster.nodes), clients)
    begun_at = time.monotonic()
    endpoints = {node_id: node.grpc for node_id, node in cluster.nodes.items()}
    async with open_stores(cluster, clients) as stores, WatchRecorder(endpoints) as recorder:
        workload = Workload(stores, seed=seed, name=f"{seed}-")
        async with workload:
            try:
                await workload.wait_for_writes(WARM_UP_WRITES, SERVICE_SECONDS_MAX)
                started = time.monotonic()
                async with _hammering(cluster, source, seed % HAMMER_EVERY == 0):
                    await inflict(fault, cluster, source, SERVICE_SECONDS_MAX)
                await workload.wait_for_writes(WARM_UP_WRITES, SERVICE_SECONDS_MAX)
                one.unavailable_s = workload.record.unavailable_seconds(started, time.monotonic())
            except AssertionError as error:
                one.failure = str(error)
        one.record = workload.record
        one.streams = recorder.streams
        one.violations = wrong_histories(one.record.operations)
        one.problems = [*map(str, one.violations), *wrong_order(one.record.written)]
        if one.failure is None:
            try:
                one.problems += await _check_at_rest(cluster, recorder, one)
            except (AssertionError, RequestError) as error:
                one.failure = str(error)
    one.seconds = time.monotonic() - begun_at
    return one


async def find_problems(cluster: ProcessCluster, record: Record, name: str = "") -> list[str]:
    """Judge a workload without watchers, and whether all nodes hold the same afterwards."""
    await cluster.wait_until_equal(SERVICE_SECONDS_MAX)
    exports = await exports_at_rest({i: node.grpc for i, node in cluster.nodes.items()}, SERVICE_SECONDS_MAX)
    problems = differences(exports)
    problems += wrong_logs(record, _logs_of(records_of(next(iter(exports.values()))), name))
    return [*problems, *wrong_order(record.written), *map(str, wrong_histories(record.operations))]


@asynccontextmanager
async def _hammering(cluster: ProcessCluster, source: random.Random, wanted: bool) -> AsyncIterator[None]:
    if not wanted:
        yield
        return
    own = random.Random(source.random())
    task = asyncio.create_task(hammer_forever(cluster, own), name="hammer")
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _check_at_rest(cluster: ProcessCluster, recorder: WatchRecorder, one: Round) -> list[str]:
    """Whether all nodes hold the same, the acknowledged records are there, and the watches led to that state."""
    await cluster.wait_until_equal(SERVICE_SECONDS_MAX)
    last = f"end/{one.seed}"
    async with cluster.client(timeout_ms=int(SERVICE_SECONDS_MAX * 1000)) as client:
        await client.upsert(last, b"the last write of the round")
    nodes = [node_id for node_id in recorder.node_ids if node_id in cluster.nodes]
    silent = await recorder.wait_for(nodes, last, SERVICE_SECONDS_MAX)
    problems = [f"the watch on node {node_id} did not tell of the last write" for node_id in silent]
    for look in range(LOOKS_AT_REST):
        if look:
            await asyncio.sleep(0.5)
        exports = await exports_at_rest({i: node.grpc for i, node in cluster.nodes.items()}, SERVICE_SECONDS_MAX)
        records = records_of(next(iter(exports.values())))
        seen = {key: record for key, record in records.items() if FIRST_KEY <= key < LAST_KEY}
        awaited = [node_id for node_id in nodes if node_id not in silent]
        found = differences(exports)
        found += wrong_watches(recorder.streams, seen, one.record.written, awaited)
        if not found:
            break
    return problems + found + wrong_logs(one.record, _logs_of(records, f"{one.seed}-"))


def _logs_of(records: dict[str, tuple[int, bytes]], name: str) -> dict[str, bytes]:
    return {key: data for key, (_, data) in records.items() if key.startswith(f"{LOG_PREFIX}{name}")}

"""Rounds of faults on real processes under load, each with its verdict: the engine of `make chaos`.

A round starts clients, inflicts one fault, stops the clients, and checks what they were told against what is stored
and against a sequential model. Runs on an event loop; prints nothing.
"""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from metasrv.testing.nemesis import Fault, inflict
from metasrv.testing.processes import ProcessCluster
from metasrv.testing.store import ClientStore, PinnedStore, Store
from metasrv.testing.workload import LOG_PREFIX, Record, Workload, verdict

CLIENTS_DEFAULT = 16
PINNED_EVERY = 4
"""Every fourth client asks one node only, whatever that node is: the others follow the leader."""
WARM_UP_WRITES = 50
SETTINGS = {"snapshot_logs_since_last": 200, "max_applied_log_to_keep": 100}
"""Low, so that faults meet purges and snapshots."""


@dataclass(frozen=True, slots=True)
class Round:
    """What one round did and found."""

    fault: str
    seed: int
    operations: int
    unknown: int
    unavailable_s: float
    """The longest time without an acknowledged write."""
    problems: tuple[str, ...]


@dataclass(slots=True)
class Tally:
    """Rounds of one fault, added up."""

    fault: str
    rounds: int = 0
    operations: int = 0
    unknown: int = 0
    violations: int = 0
    unavailable_s: list[float] = field(default_factory=list)

    def add(self, one: Round) -> None:
        self.rounds += 1
        self.operations += one.operations
        self.unknown += one.unknown
        self.violations += len(one.problems)
        self.unavailable_s.append(one.unavailable_s)


@asynccontextmanager
async def open_stores(cluster: ProcessCluster, count: int = CLIENTS_DEFAULT) -> AsyncIterator[Sequence[Store]]:
    """Stores for `count` clients, spread over all nodes."""
    nodes = sorted(cluster.nodes)
    async with AsyncExitStack() as stack:
        stores: list[Store] = []
        for number in range(count):
            if number % PINNED_EVERY == PINNED_EVERY - 1:
                node_id = nodes[number // PINNED_EVERY % len(nodes)]
                stores.append(PinnedStore(await stack.enter_async_context(cluster.node_client(node_id))))
            else:
                stores.append(ClientStore(await stack.enter_async_context(cluster.client())))
        yield stores


async def run_round(cluster: ProcessCluster, fault: Fault, seed: int, clients: int = CLIENTS_DEFAULT) -> Round:
    """One fault under load on a whole cluster, which is whole again afterwards.

    Raises AssertionError when the cluster does not serve again in time, which is a failure of its own.
    """
    source = random.Random(f"{fault.name}/{seed}")  # noqa: S311 - repeatable
    async with open_stores(cluster, clients) as stores:
        workload = Workload(stores, seed=seed, name=f"{seed}-")
        async with workload:
            await workload.wait_for_writes(WARM_UP_WRITES)
            started = time.monotonic()
            await inflict(fault, cluster, source)
            await workload.wait_for_writes(WARM_UP_WRITES)
            ended = time.monotonic()
    problems = await find_problems(cluster, workload.record, f"{seed}-")
    unavailable_s = workload.record.unavailable_seconds(started, ended)
    total, unknown = workload.record.total, workload.record.unknown
    return Round(fault.name, seed, total, unknown, unavailable_s, tuple(problems))


async def find_problems(cluster: ProcessCluster, record: Record, name: str = "") -> list[str]:
    """The verdict on a workload, and whether every node holds the same afterwards."""
    await cluster.wait_until_equal()
    stored = []
    for node_id in sorted(cluster.nodes):
        async with cluster.node_client(node_id, timeout_s=30) as client:
            stored.append(await client.list_prefix(f"{LOG_PREFIX}{name}"))
    problems = verdict(record, stored[0])
    if any(other != stored[0] for other in stored[1:]):
        problems.append("the nodes do not hold the same records")
    return problems

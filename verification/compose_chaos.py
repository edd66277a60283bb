"""Faults for containers under load, each with its verdict: the engine of `make chaos-compose`.

A fault is what a person, an engine or a network does to containers, and leaves the cluster able to heal by itself. Faults
block and run in a thread; the clients run on the event loop meanwhile, from the host, as an application would.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise

from metasrv.client import AsyncClient
from metasrv.model.errors import RequestError
from metasrv.model.types import Endpoint
from metasrv.testing.store import ClientStore, PinnedStore, Store
from metasrv.testing.workload import LOG_PREFIX, Record, Workload, verdict
from verification.compose import CLIENT_TIMEOUT_MS, ComposeCluster

CLIENTS_DEFAULT = 8
PINNED_EVERY = 4
"""Every fourth client asks one node only, whatever that node is: the others follow the leader."""
CLIENT_PAUSE_SECONDS = 0.005
WARM_UP_WRITES = 30
WRITES_SECONDS_MAX = 60.0
HOLD_SECONDS_MIN = 0.5
HOLD_SECONDS_MAX = 4.0
PROBE_PAUSE_SECONDS = 0.02

Harm = Callable[[ComposeCluster, random.Random], None]


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault by name."""

    name: str
    harm: Harm
    one_node: bool = True
    """A majority stays up throughout, so that clients must be served again within seconds."""


def kill_leader(cluster: ComposeCluster, source: random.Random) -> None:
    _kill_and_start(cluster, cluster.wait_for_leader())


def kill_follower(cluster: ComposeCluster, source: random.Random) -> None:
    _kill_and_start(cluster, _follower(cluster, source))


def pause_leader(cluster: ComposeCluster, source: random.Random) -> None:
    _pause(cluster, cluster.wait_for_leader(), source)


def pause_follower(cluster: ComposeCluster, source: random.Random) -> None:
    _pause(cluster, _follower(cluster, source), source)


def disconnect_leader(cluster: ComposeCluster, source: random.Random) -> None:
    """The leader loses its network, clients and peers alike, and gets it back."""
    _disconnect(cluster, [cluster.wait_for_leader()], source)


def disconnect_follower(cluster: ComposeCluster, source: random.Random) -> None:
    _disconnect(cluster, [_follower(cluster, source)], source)


def disconnect_majority(cluster: ComposeCluster, source: random.Random) -> None:
    _disconnect(cluster, source.sample(cluster.ids, len(cluster.ids) // 2 + 1), source)


def kill_all(cluster: ComposeCluster, source: random.Random) -> None:
    """All containers die at once; they come back in any order."""
    containers = [cluster.container(node_id) for node_id in cluster.ids]
    cluster.docker("kill", *containers)
    source.shuffle(containers)
    for container in containers:
        cluster.docker("start", container)


def restart_all(cluster: ComposeCluster, source: random.Random) -> None:
    """`docker-compose restart`: every node is stopped in good order, and started."""
    cluster.compose("restart", *cluster.services(cluster.ids))


def rolling_restart(cluster: ComposeCluster, source: random.Random) -> None:
    for node_id in source.sample(cluster.ids, len(cluster.ids)):
        cluster.docker("restart", "--time", "20", cluster.container(node_id))
        cluster.wait_until_ready(node_id)


def lose_a_volume(cluster: ComposeCluster, source: random.Random) -> None:
    """A node is removed with its data, and a new one takes its place."""
    node_id = source.choice(cluster.ids)
    cluster.docker("rm", "--force", cluster.container(node_id))
    cluster.docker("volume", "rm", f"{cluster.name}_meta{node_id}")
    cluster.up(node_id)


FAULTS = [
    Fault("kill the leader", kill_leader),
    Fault("pause the leader", pause_leader),
    Fault("disconnect the leader", disconnect_leader),
    Fault("kill a follower", kill_follower),
    Fault("pause a follower", pause_follower),
    Fault("disconnect a follower", disconnect_follower),
    Fault("lose a volume", lose_a_volume),
    Fault("rolling restart", rolling_restart),
    Fault("restart all", restart_all, one_node=False),
    Fault("kill all", kill_all, one_node=False),
    Fault("disconnect a majority", disconnect_majority, one_node=False),
]


# ----------------------------------------------------------------------------- rounds


@dataclass(slots=True)
class Probe:
    """One client that writes one after the other, and when it was told that it was done."""

    client: AsyncClient
    done_at: list[float] = field(default_factory=list)

    async def run(self) -> None:
        while True:
            try:
                await self.client.upsert("probe", b"x")
                self.done_at.append(time.monotonic())
            except RequestError:
                await asyncio.sleep(PROBE_PAUSE_SECONDS)
            await asyncio.sleep(PROBE_PAUSE_SECONDS)

    def gap_s(self) -> float:
        """The longest time between two writes that were done."""
        return max((later - earlier for earlier, later in pairwise(self.done_at)), default=float("inf"))

    async def wait_for_write(self) -> None:
        """Until one more write is done; AssertionError at the deadline."""
        seen = len(self.done_at)
        deadline = time.monotonic() + WRITES_SECONDS_MAX
        while len(self.done_at) == seen:
            if time.monotonic() > deadline:
                raise AssertionError(f"the client was not served within {WRITES_SECONDS_MAX:g} s")
            await asyncio.sleep(PROBE_PAUSE_SECONDS)


@dataclass(frozen=True, slots=True)
class ComposeRound:
    """What one round did and found."""

    fault: Fault
    seed: int
    operations: int
    unknown: int
    unavailable_s: float
    """The longest time that all clients together were without an acknowledged write."""
    client_gap_s: float
    """The longest time that one client, following the leader, was without an acknowledged write."""
    problems: tuple[str, ...]


async def run_round(cluster: ComposeCluster, fault: Fault, seed: int, clients: int = CLIENTS_DEFAULT) -> ComposeRound:
    """One fault under load on a whole cluster, which is whole again afterwards; AssertionError when it is not in time."""
    source = random.Random(f"{fault.name}/{seed}")
    name = f"{fault.name.replace(' ', '-')}-{seed}-"
    async with cluster.client() as client, open_stores(cluster, clients) as stores:
        probe = Probe(client)
        probing = asyncio.create_task(probe.run(), name="probe")
        async with Workload(stores, seed=seed, name=name, pause_s=CLIENT_PAUSE_SECONDS) as workload:
            await workload.wait_for_writes(WARM_UP_WRITES, WRITES_SECONDS_MAX)
            await probe.wait_for_write()
            started = time.monotonic()
            await asyncio.to_thread(fault.harm, cluster, source)
            await asyncio.to_thread(cluster.wait_until_whole)
            await workload.wait_for_writes(WARM_UP_WRITES, WRITES_SECONDS_MAX)
            await probe.wait_for_write()
            ended = time.monotonic()
        probing.cancel()
        await asyncio.gather(probing, return_exceptions=True)
    record = workload.record
    problems = await find_problems(cluster, record, name)
    unavailable_s = record.unavailable_seconds(started, ended)
    return ComposeRound(fault, seed, record.total, record.unknown, unavailable_s, probe.gap_s(), tuple(problems))


@asynccontextmanager
async def open_stores(cluster: ComposeCluster, count: int) -> AsyncIterator[Sequence[Store]]:
    """Stores for `count` clients on the host; every fourth asks one node only."""
    async with AsyncExitStack() as stack:
        stores: list[Store] = []
        for number in range(count):
            if number % PINNED_EVERY == PINNED_EVERY - 1:
                node_id = cluster.ids[number // PINNED_EVERY % len(cluster.ids)]
                endpoint = Endpoint.parse(cluster.endpoints(node_id)[0])
                stores.append(await stack.enter_async_context(PinnedStore(endpoint, CLIENT_TIMEOUT_MS / 1000)))
            else:
                stores.append(ClientStore(await stack.enter_async_context(cluster.client())))
        yield stores


async def find_problems(cluster: ComposeCluster, record: Record, name: str) -> list[str]:
    """The verdict on a workload, and whether every node answers with the same records afterwards."""
    stored = []
    for node_id in cluster.ids:
        async with cluster.node_client(node_id, timeout_s=30) as client:
            stored.append(await client.list_prefix(f"{LOG_PREFIX}{name}"))
    problems = verdict(record, stored[0])
    if any(other != stored[0] for other in stored[1:]):
        problems.append("the nodes do not answer with the same records")
    return problems


# ----------------------------------------------------------------------------- parts of faults


def _follower(cluster: ComposeCluster, source: random.Random) -> int:
    leader = cluster.wait_for_leader()
    return source.choice([node_id for node_id in cluster.ids if node_id != leader])


def _others(cluster: ComposeCluster, node_id: int) -> list[int]:
    return [other for other in cluster.ids if other != node_id]


def _kill_and_start(cluster: ComposeCluster, node_id: int) -> None:
    container = cluster.container(node_id)
    cluster.docker("kill", container)
    cluster.wait_for_leader(*_others(cluster, node_id))
    cluster.docker("start", container)


def _pause(cluster: ComposeCluster, node_id: int, source: random.Random) -> None:
    container = cluster.container(node_id)
    cluster.docker("pause", container)
    try:
        time.sleep(source.uniform(HOLD_SECONDS_MIN, HOLD_SECONDS_MAX))
    finally:
        cluster.docker("unpause", container)


def _disconnect(cluster: ComposeCluster, node_ids: Sequence[int], source: random.Random) -> None:
    gone: list[int] = []
    try:
        for node_id in node_ids:
            cluster.disconnect(node_id)
            gone.append(node_id)
        time.sleep(source.uniform(HOLD_SECONDS_MIN, HOLD_SECONDS_MAX))
    finally:
        for node_id in gone:
            cluster.connect(node_id)

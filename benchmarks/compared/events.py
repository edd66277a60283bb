"""What is not a steady load: the last of a thousand watchers, a lost leader, memory and restart with many keys.

Each function measures one contender once and returns figures by name. Knows contenders by their interface alone.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from collections.abc import Awaitable, Callable

from benchmarks.compared.contender import Contender, request
from benchmarks.compared.loads import VALUE, fill
from benchmarks.compared.raw_load import Connection, Request, Streams
from benchmarks.load import LoadError
from benchmarks.process_usage import UsageMeter, resident_mib

WATCHED = "benchmark/watched"
WATCHERS = 1_000
WATCH_CONNECTIONS = 10
WATCHED_WRITES = 20
ATTEMPT_SECONDS = 0.05
"""How long a writer waits for an answer before it asks the next node; also the resolution of a fail-over."""
CALM_SECONDS = 1.0
IDLE_SECONDS = 10.0
GIVE_UP_SECONDS = 60.0


async def idle(contender: Contender) -> dict[str, float]:
    """MiB and percent of a core of a follower with nothing to do."""
    leader = await contender.leader()
    follower = next(node for node in contender.nodes if node != leader)
    await asyncio.sleep(CALM_SECONDS)
    meter = UsageMeter.start(contender.pid(follower))
    await asyncio.sleep(IDLE_SECONDS)
    return {"memory_mib": resident_mib(contender.pid(follower)), "processor_%": meter.percent_of_a_core()}


async def watch_fan_out(contender: Contender) -> dict[str, float]:
    """Milliseconds from sending a write until the last of `WATCHERS` watchers at the leader has been told."""
    leader = await contender.leader()
    endpoint = contender.endpoint(leader)
    watch = request(contender, leader, contender.watch(WATCHED))
    put = request(contender, leader, contender.put(WATCHED, VALUE))

    def run() -> list[float]:
        streams = Streams(endpoint, WATCH_CONNECTIONS, [watch] * WATCHERS, stay_open=contender.watch_is_open)
        writer = Connection(endpoint)
        try:
            streams.drain()
            took = []
            for _ in range(WATCHED_WRITES):
                started = time.perf_counter()
                writer.send(put)
                took.append((streams.wait_for(WATCHERS) - started) * 1000)
                while not writer.receive():
                    continue
                streams.forget()
            return took
        finally:
            streams.close()
            writer.close()

    took = sorted(await asyncio.to_thread(run))
    return {"p50_ms": statistics.median(took), "worst_ms": took[-1]}


class Writer:
    """One client that writes on and on, goes to the next node when one does not answer, and knows when writes ended."""

    def __init__(self, contender: Contender) -> None:
        self._puts = {
            node: request(contender, node, contender.put("benchmark/failover", VALUE)) for node in contender.nodes
        }
        self._endpoints = {node: contender.endpoint(node) for node in contender.nodes}
        self.acknowledged_at: list[float] = []
        self._ended = False
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Writer:
        self._task = asyncio.create_task(asyncio.to_thread(self._run))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._ended = True
        if self._task is not None:
            await self._task

    def _run(self) -> None:
        nodes = list(self._puts)
        connection: Connection | None = None
        node = nodes[0]
        while not self._ended:
            try:
                if connection is None:
                    connection = Connection(self._endpoints[node])
                    connection.socket.settimeout(ATTEMPT_SECONDS)
                self._write(connection, self._puts[node])
            except (OSError, LoadError):  # no answer, no leader, or nobody there: ask the next one
                if connection is not None:
                    connection.close()
                connection = None
                node = nodes[(nodes.index(node) + 1) % len(nodes)]
                time.sleep(0.001)
                continue
            self.acknowledged_at.append(time.monotonic())
        if connection is not None:
            connection.close()

    def _write(self, connection: Connection, put: Request) -> None:
        connection.send(put)
        deadline = time.monotonic() + ATTEMPT_SECONDS
        while not connection.receive():
            if time.monotonic() > deadline:
                raise TimeoutError

    async def gap_after(self, instant: float) -> float:
        """Seconds from the last write acknowledged before `instant` to the first that was sent after service returned."""
        deadline = time.monotonic() + GIVE_UP_SECONDS
        while time.monotonic() < deadline:
            await asyncio.sleep(CALM_SECONDS)
            times = self.acknowledged_at
            if times and times[-1] > instant + CALM_SECONDS:
                around = [at for at in times if at > instant - CALM_SECONDS]
                return max(later - earlier for earlier, later in itertools.pairwise(around))
        raise LoadError(f"no write was acknowledged for {GIVE_UP_SECONDS:g} s")


async def fail_over(contender: Contender, times: int, *, by_kill: bool) -> dict[str, float]:
    """Seconds without an acknowledged write after the leader was killed, or fell silent."""
    gaps = []
    async with Writer(contender) as writer:
        for _ in range(times):
            await asyncio.sleep(CALM_SECONDS)
            leader = await contender.leader()
            harmed_at = time.monotonic()
            await (contender.kill(leader) if by_kill else contender.silence(leader))
            try:
                gaps.append(await writer.gap_after(harmed_at))
            finally:
                await (contender.start(leader) if by_kill else contender.unsilence(leader))
            await contender.wait_until_serving(leader)
    gaps.sort()
    return {"p50_s": statistics.median(gaps), "worst_s": gaps[-1]}


async def memory_and_restart(contender: Contender, keys: int) -> dict[str, float]:
    """MiB of the leader after `keys` puts, and seconds from the start of a killed follower until it serves."""
    await fill(contender, [f"benchmark/many/{number:08}" for number in range(keys)])
    leader = await contender.leader()
    memory = resident_mib(contender.pid(leader))
    follower = next(node for node in contender.nodes if node != leader)
    took = []
    for _ in range(3):
        await contender.kill(follower)
        started = time.monotonic()
        await contender.start(follower)
        await contender.wait_until_serving(follower)
        took.append(time.monotonic() - started)
    return {"leader_mib": memory, "restart_s": statistics.median(took)}


Event = Callable[[Contender], Awaitable[dict[str, float]]]

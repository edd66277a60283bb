"""Recipes on real nodes: leaders are killed and holders stopped, and each protected write is the newest holder's."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Coroutine
from contextlib import aclosing, asynccontextmanager
from time import monotonic
from typing import Any

import pytest

from metasrv.client import AsyncClient, AsyncCounter, AsyncLock, EventKind, NotDoneError, UnknownOutcomeError
from metasrv.testing.history import UNKNOWN_OUTCOME, Operation
from metasrv.testing.linearizability import check
from metasrv.testing.models import RegisterModel
from metasrv.testing.processes import ProcessCluster
from tests.support.lock_worker import COUNTER, KEY, LOCK, TTL_MS
from tests.support.paths import ROOT
from tests.support.waiting import until

WORKERS = 3
GRACE_SECONDS = 40.0
ROUND_SECONDS = 15.0
"""With less time left for the work, nobody is stopped or killed any more."""


class Worker:
    """A process of `lock_worker`, and what it has printed."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.lines: list[dict[str, Any]] = []
        self.ended = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.lines.append(json.loads(line))

    @property
    def is_writing(self) -> bool:
        return bool(self.lines) and self.lines[-1]["kind"] in ("acquired", "calls", "write")


@asynccontextmanager
async def working(cluster: ProcessCluster, seconds: float) -> AsyncIterator[list[Worker]]:
    endpoints = [str(node.grpc) for node in cluster.nodes.values()]
    workers = []
    try:
        for number in range(WORKERS):
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.support.lock_worker", str(number), str(seconds), *endpoints),
                stdout=asyncio.subprocess.PIPE,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
            workers.append(Worker(process))
        yield workers
        for worker in workers:
            await asyncio.wait_for(worker.process.wait(), seconds + GRACE_SECONDS)
            await worker.ended
            assert worker.process.returncode == 0
    finally:
        for worker in workers:
            if worker.process.returncode is None:
                worker.process.send_signal(signal.SIGCONT)
                worker.process.kill()
                await worker.process.wait()
            await worker.ended


async def stop_a_holder(workers: list[Worker], seconds: float) -> int:
    """SIGSTOP for one that is writing, for longer than its session lives; returns its number."""
    await until(lambda: any(worker.is_writing for worker in workers), GRACE_SECONDS)
    chosen = next(number for number, worker in enumerate(workers) if worker.is_writing)
    workers[chosen].process.send_signal(signal.SIGSTOP)
    await asyncio.sleep(seconds)
    workers[chosen].process.send_signal(signal.SIGCONT)
    return chosen


class PrefixView:
    """What `watch_prefix` makes of everything under a prefix, and how often it began anew."""

    def __init__(self) -> None:
        self.records: dict[str, bytes] = {}
        self.readings = 0

    async def follow(self, client: AsyncClient, prefix: str) -> None:
        async with aclosing(client.watch_prefix(prefix)) as events:
            async for event in events:
                if event.record is not None:
                    self.records[event.key] = event.record.data
                elif event.kind is EventKind.DELETE:
                    del self.records[event.key]
                else:
                    self.readings += 1


async def read_along(client: AsyncClient, operations: list[Operation]) -> None:
    """Reads of the protected value, for the history."""
    while True:
        called_at = monotonic()
        try:
            record = await client.get(KEY)
        except NotDoneError:
            await asyncio.sleep(0.05)
            continue
        value = record and record.data.decode()
        operations.append(Operation(WORKERS, KEY, "read", None, value, called_at, monotonic()))
        await asyncio.sleep(0.05)


def history_of(workers: list[Worker]) -> list[Operation]:
    found = []
    for number, worker in enumerate(workers):
        for line in worker.lines:
            if line["kind"] == "write" and line["outcome"] != "refused":
                unknown = line["outcome"] == "unknown"
                output = UNKNOWN_OUTCOME if unknown else None
                found.append(
                    Operation(number, KEY, "write", line["value"], output, line["called_at"], line["returned_at"])
                )
    return found


def check_work(workers: list[Worker], reads: list[Operation]) -> str:
    lines = [line for worker in workers for line in worker.lines]
    tokens = [line["seq"] for line in sorted(lines, key=lambda line: line.get("at", 0)) if line["kind"] == "acquired"]
    assert len(set(tokens)) == len(tokens), "a token belongs to one holder"
    done = [line for line in lines if line["kind"] == "write" and line["outcome"] == "done"]
    for one in done:
        for other in done:
            if one["returned_at"] < other["called_at"]:
                assert one["seq"] <= other["seq"], f"written by a former holder: {other} after {one}"
    assert [str(each) for each in check([*history_of(workers), *reads], RegisterModel())] == []
    refused = sum(line["kind"] == "write" and line["outcome"] == "refused" for line in lines)
    return f"{len(tokens)} holds, {len(done)} protected writes, {refused} refused"


@asynccontextmanager
async def beside(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Tasks that run until the block ends."""
    tasks = [asyncio.create_task(each) for each in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def play(cluster: ProcessCluster, seconds: float, rounds: int) -> tuple[str, int]:
    """Work under kills and pauses; what came of it, and how many late writes were refused."""
    view = PrefixView()
    reads: list[Operation] = []
    leader = await cluster.wait_for_leader()
    others = [node_id for node_id in cluster.nodes if node_id != leader]
    async with (
        cluster.client() as client,
        cluster.client(leader, *others) as watching,
        beside(view.follow(watching, LOCK), read_along(client, reads)),
    ):
        async with working(cluster, seconds) as workers:
            until_at = monotonic() + seconds
            for number in range(rounds):
                if number and until_at - monotonic() < ROUND_SECONDS:
                    break
                await stop_a_holder(workers, 2 * TTL_MS / 1000)
                await cluster.kill(leader)
                await asyncio.sleep(1)
                cluster.start(leader)
                leader = await cluster.wait_for_leader(members=3)
        summary = check_work(workers, reads)
        await check_the_end(client, workers)
        assert view.readings >= 2, "the watched node was killed"
        present = {key: record.data for key, record in await client.list_prefix(LOCK)}
        await until(lambda: view.records == present, GRACE_SECONDS)
    lines = [line for worker in workers for line in worker.lines]
    return summary, sum(line["kind"] == "write" and line["outcome"] == "refused" for line in lines)


async def check_the_end(client: AsyncClient, workers: list[Worker]) -> None:
    """The lock is free for a newer token, and the counter has each change once."""
    lines = [line for worker in workers for line in worker.lines]
    async with client.session(ttl_ms=5_000) as session:
        token = await AsyncLock(session, LOCK).acquire(timeout_ms=15_000)
        assert token.seq > max(line["seq"] for line in lines if line["kind"] == "acquired")
        total = (await AsyncCounter(session, COUNTER).get()).value
    counted = sum(line["kind"] == "counted" for line in lines)
    # A worker that was stopped in mid-call ended without knowing: its session was over.
    lost = sum(line["kind"] == "lost" for line in lines)
    assert counted <= total <= counted + lost


async def test_protected_writes_survive_a_stopped_holder_and_a_killed_leader(
    cluster: ProcessCluster, record_property: Any
) -> None:
    summary, refused = await play(cluster, seconds=6, rounds=1)
    assert refused >= 0, "few holders are stopped with a write on its way; the long form has many"
    record_property("measured", summary)


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_protected_writes_survive_many_stopped_holders_and_killed_leaders(
    cluster: ProcessCluster, record_property: Any
) -> None:
    """Long enough for holders that are stopped with a write on its way: the cluster refuses it."""
    summary, refused = await play(cluster, seconds=50, rounds=8)
    assert refused > 0
    record_property("measured", summary)


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_a_followed_prefix_and_a_counter_are_right_while_each_node_is_killed(cluster: ProcessCluster) -> None:
    view = PrefixView()
    chosen = random.Random(1)
    stopping = asyncio.Event()

    async def change(client: AsyncClient) -> None:
        while True:
            key = f"p/{chosen.randrange(40):02d}"
            try:
                if chosen.random() < 0.3:
                    await client.delete(key)
                else:
                    await client.upsert(key, b"%d" % chosen.randrange(10**9))
            except (NotDoneError, UnknownOutcomeError):
                await asyncio.sleep(0.05)

    async def count(client: AsyncClient) -> int:
        done = 0
        async with client.session(ttl_ms=20_000) as session:
            counter = AsyncCounter(session, "c")
            while not stopping.is_set():
                try:
                    await counter.add()
                except NotDoneError:
                    continue
                done += 1
            assert (await counter.get()).value == done
        return done

    async with (
        cluster.client() as client,
        cluster.client() as watching,
        cluster.client() as counting,
        beside(view.follow(watching, "p/")),
    ):
        counted = asyncio.create_task(count(counting))
        async with beside(change(client)):
            for node_id in (1, 2, 3):
                await asyncio.sleep(1)
                await cluster.kill(node_id)
                await asyncio.sleep(0.5)
                cluster.start(node_id)
                await cluster.wait_for_leader(members=3)
        stopping.set()
        assert await counted > 20
        present = {key: record.data for key, record in await client.list_prefix("p/")}
        await until(lambda: view.records == present, GRACE_SECONDS)
        assert view.readings >= 2

"""A client with the list of endpoints keeps working while leaders die, ten times in a row."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from metasrv.client import AsyncClient, Transaction
from metasrv.model.commands import MatchKind, MatchSeq
from metasrv.model.errors import UnknownOutcomeError
from metasrv.testing.processes import ProcessCluster

KILLS = 10
WRITERS = 3
READERS = 2


class Traffic:
    """What callers of one client saw; anything but an unknown outcome of a write ends the test."""

    def __init__(self, client: AsyncClient) -> None:
        self.client = client
        self.acknowledged: dict[str, bytes] = {}
        self.unknown: dict[str, bytes] = {}
        self.reads = 0
        self.ended = asyncio.Event()

    async def write(self, writer: int) -> None:
        number = 0
        while not self.ended.is_set():
            number += 1
            key, value = f"w/{writer}/{number:05}", f"{writer}.{number}".encode()
            try:
                if number % 3:
                    reply = await self.client.upsert(key, value, match=MatchSeq(MatchKind.EXACT, 0))
                    assert reply.prev is None, "a write that was sent twice"
                    assert reply.result is not None
                    assert reply.result.data == value
                else:
                    done = await self.client.transaction(Transaction().when_absent(key).put(key, value))
                    assert done.success, "a transaction that was sent twice"
                self.acknowledged[key] = value
            except UnknownOutcomeError:
                self.unknown[key] = value
            await asyncio.sleep(0.005)

    async def read(self) -> None:
        while not self.ended.is_set():
            for key, value in list(self.acknowledged.items())[-3:]:
                record = await self.client.get(key)
                assert record is not None, f"an acknowledged write of {key} is not there"
                assert record.data == value
            await self.client.list_prefix("w/0/", limit=5)
            self.reads += 1
            await asyncio.sleep(0.01)


def goes_on(traffic: Traffic, count: int, tasks: list[asyncio.Task[None]]) -> bool:
    """Whether so many writes are acknowledged, or a caller has ended."""
    return len(traffic.acknowledged) >= count or any(map(asyncio.Task.done, tasks))


async def highest_term(cluster: ProcessCluster) -> int:
    terms: list[int] = [status["current_term"] for status in (await cluster.statuses()).values() if status is not None]
    return max(terms)


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_no_caller_sees_an_error_but_unknown_outcomes_while_ten_leaders_are_killed(cluster: ProcessCluster) -> None:
    endpoints = [str(node.grpc) for node in cluster.nodes.values()]
    # Time for an election on a machine that does much else; nothing here depends on how long one takes.
    async with AsyncClient(endpoints, timeout_ms=20_000) as client:
        await cluster.wait_for_leader()
        first_term = await highest_term(cluster)
        traffic = Traffic(client)
        tasks = [asyncio.create_task(traffic.write(writer)) for writer in range(WRITERS)]
        tasks += [asyncio.create_task(traffic.read()) for _ in range(READERS)]
        counts = []
        try:
            for _ in range(KILLS):
                leader = await cluster.wait_for_leader()
                await asyncio.sleep(0.2)
                await cluster.kill(leader)
                await cluster.wait_for_leader(other_than=leader)
                before = len(traffic.acknowledged)
                await cluster.wait_until(
                    partial(goes_on, traffic, before + 10, tasks),
                    "writes to go on under the new leader",
                )
                if any(map(asyncio.Task.done, tasks)):
                    break  # a caller saw an error; the end of this test tells which
                counts.append(len(traffic.acknowledged))
                cluster.start(leader)
        finally:
            traffic.ended.set()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [repr(result) for result in results if result is not None] == []
        assert len(counts) == KILLS
        assert traffic.reads > KILLS
        stored = {key: record.data for key, record in await client.list_prefix("w/")}
        assert {key: stored.get(key) for key in traffic.acknowledged} == traffic.acknowledged
        assert set(stored) <= set(traffic.acknowledged) | set(traffic.unknown)
        # Each writer has one write under way when a leadership ends; an election may take more than one term. A leader
        # that a busy machine keeps from its work for a moment is lost to its followers too, without a new term.
        terms = await highest_term(cluster) - first_term
        assert terms >= KILLS
        assert len(traffic.unknown) <= 2 * terms * WRITERS

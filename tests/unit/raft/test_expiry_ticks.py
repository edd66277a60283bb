"""Ticks: what has expired is deleted by the log at its time, for watchers and before reads, and by nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from metasrv.model import commands as c
from metasrv.model.errors import NotDoneError, NotLeaderError
from metasrv.raft.core.log_time import LogTime
from metasrv.raft.core.proposals import Proposals
from metasrv.raft.expiry_ticks import TICK_PAUSE_SECONDS, ExpiryTicks
from metasrv.testing.hand_clock import HandClock
from tests.support.settled import settled_proposals, submit
from tests.support.state_bench import NOW_MS, Bench


class _Driver:
    """Puts a proposal into the log and applies it, in the next turn of the loop."""

    def __init__(self, bench: Bench, proposals: Proposals) -> None:
        self._bench = bench
        self._proposals = proposals
        self.commits = True

    def wake_for_proposal(self, _now: float) -> None:
        if self.commits:
            asyncio.get_running_loop().call_soon(self._commit)

    def submit(self, command: c.Command, encoded: bytes, now: float, timeout_seconds: float) -> asyncio.Future[c.Reply]:
        return submit(self._proposals, command, encoded, now, timeout_seconds)

    def _commit(self) -> None:
        batch = self._proposals.take_batch()
        assert batch is not None
        _, entry, taken = batch
        index = self._bench.machine.last_applied.index + 1
        self._proposals.entered(index, 1, entry, taken)
        self._proposals.applied(index, 1, self._bench.apply(*entry.commands, at_ms=entry.time_ms))


class _Leader:
    def __init__(self, directory: Path) -> None:
        self.bench = Bench(directory)
        self.clock = HandClock(0.0, epoch_ms=NOW_MS)
        self.log_time = LogTime(self.clock, 0)
        self.proposals = settled_proposals(1, self.log_time)
        self.driver = _Driver(self.bench, self.proposals)
        self.leads = True
        driver: Any = self.driver
        self.ticks = ExpiryTicks(
            clock=self.clock,
            log_time=self.log_time,
            machine=self.bench.machine,
            pending=self.proposals.pending,
            driver=driver,
            leads=lambda: self.leads,
        )

    async def step(self) -> int:
        """A step of the driver and all that follows from it; how many entries it brought."""
        before = self.bench.machine.last_applied.index
        self.ticks.consider()
        for _ in range(5):
            await asyncio.sleep(0)
        return self.bench.machine.last_applied.index - before


@pytest.fixture
async def leader(tmp_path: Path) -> AsyncIterator[_Leader]:
    made = _Leader(tmp_path)
    yield made
    made.bench.machine.close()


async def test_an_expiry_is_an_event_without_anybody_asking(leader: _Leader) -> None:
    watcher = leader.bench.machine.watches.subscribe("lease", None)
    leader.bench.put("lease", ttl_ms=500)
    assert await leader.step() == 0
    leader.clock.advance(0.5)
    assert await leader.step() == 0, "equal is alive"
    leader.clock.advance(0.001)
    assert await leader.step() == 1
    await anext(watcher)
    deleted = await anext(watcher)
    assert (deleted.key, deleted.current) == ("lease", None)
    assert leader.bench.machine.last_seq == 1, "a tick takes no sequence number"
    leader.bench.machine.close()


async def test_there_are_no_ticks_while_nothing_is_due(leader: _Leader) -> None:
    leader.bench.put("forever")
    leader.bench.put("renewed", ttl_ms=100)
    leader.bench.put("renewed", ttl_ms=10_000)
    leader.bench.put("gone", ttl_ms=100)
    leader.bench.run(c.Delete("gone"))
    for _ in range(5):
        leader.clock.advance(1.0)
        assert await leader.step() == 0
    assert leader.ticks.proposed == 0
    leader.clock.advance(10.0)
    assert [await leader.step(), await leader.step()] == [1, 0]


async def test_ticks_pause_when_something_expires_all_the_time(leader: _Leader) -> None:
    for number in range(200):
        leader.bench.put(f"lease/{number}", ttl_ms=number)
    ticks = 0
    for _ in range(201):
        leader.clock.advance(0.001)
        ticks += await leader.step()
    assert 2 <= ticks <= 1 + 0.201 / TICK_PAUSE_SECONDS + 1
    leader.clock.advance(TICK_PAUSE_SECONDS)
    await leader.step()
    assert leader.bench.machine.key_count == 0


async def test_only_a_leader_ticks(leader: _Leader) -> None:
    leader.bench.put("lease", ttl_ms=1)
    leader.leads = False
    leader.clock.advance(1.0)
    assert await leader.step() == 0


async def test_a_read_waits_until_the_log_has_deleted_what_expired_by_its_time(leader: _Leader) -> None:
    leader.bench.put("lease", ttl_ms=10)
    await leader.ticks.until_swept(leader.log_time.now_ms())
    assert leader.ticks.proposed == 0
    leader.clock.advance(0.011)
    reads = [leader.ticks.until_swept(leader.log_time.now_ms()) for _ in range(50)]
    await asyncio.gather(*reads)
    assert leader.bench.machine.key_count == 0
    assert leader.ticks.proposed == 1, "one serves all reads that wait"


async def test_a_read_is_refused_when_leadership_goes_while_it_waits(leader: _Leader) -> None:
    leader.bench.put("lease", ttl_ms=10)
    leader.clock.advance(1.0)
    leader.driver.commits = False
    waiting = asyncio.ensure_future(leader.ticks.until_swept(leader.log_time.now_ms()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    leader.proposals.not_leader(2)
    with pytest.raises(NotLeaderError):
        await waiting
    waiting = asyncio.ensure_future(leader.ticks.until_swept(leader.log_time.now_ms()))
    for _ in range(3):
        await asyncio.sleep(0)
    batch = leader.proposals.take_batch()
    assert batch is not None
    leader.proposals.entered(7, 1, batch[1], batch[2])
    leader.proposals.state_replaced(7)  # its outcome is unknown now; a read may be asked again whatever it is
    with pytest.raises(NotDoneError):
        await waiting

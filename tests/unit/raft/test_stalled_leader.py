"""A leader whose disk stalls: what becomes of what waits, whom it asks to lead, and when it steps down."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from metasrv.model.codec import encode_command
from metasrv.model.commands import MatchKind, MatchSeq, Operation, Upsert
from metasrv.model.errors import NotDoneError, NotLeaderError, UnknownOutcomeError
from metasrv.raft.applied_waiters import AppliedWaiters
from metasrv.raft.core.engine import FOLLOWER, LEADER
from metasrv.raft.core.messages import AppendReply, Message, TimeoutNow
from metasrv.raft.core.patience import WRITE_GRACE_SECONDS
from metasrv.raft.disk_stall import DiskStall, StalledPart
from metasrv.raft.observer import SilentObserver
from metasrv.raft.stalled_leader import StalledLeader
from tests.support.raft_bench import NoThread, driver_of, elect, make_bench
from tests.support.settled import register

PUT = Upsert("k", MatchSeq(MatchKind.ANY), Operation.UPDATE, b"v")


class Transfer:
    """A transfer that ends as the test says."""

    def __init__(self) -> None:
        self.asked = 0
        self.result = False

    async def hand_over(self, _timeout_ms: int) -> bool:
        self.asked += 1
        return self.result


class Leader:
    """Node 2, elected in a cluster of `voters`."""

    def __init__(self, directory: Path, voters: tuple[int, ...] = (1, 2, 3)) -> None:
        bench = self.bench = make_bench(directory, voters=voters)
        elect(bench, bench.clock.now)
        bench.store.take_pending()
        self.thread, self.transfer, self.sent = NoThread(), Transfer(), list[tuple[int, Message]]()
        self.proposals = bench.core.proposals
        self.driver = driver_of(bench, self.thread, self.sent, serves=lambda: self.disk.part is None)
        self.state: object = None
        self.applied = AppliedWaiters(bench.engine.applied_index)
        self.disk = DiskStall(log=self.driver.sync_started_at, state=lambda: self.state, observer=SilentObserver())
        parts: dict[str, Any] = {"transfer": self.transfer}
        self.stalled = StalledLeader(
            disk=self.disk,
            engine=bench.engine,
            store=bench.store,
            driver=self.driver,
            proposals=self.proposals,
            reads=bench.reads,
            applied=self.applied,
            reachable=lambda node_id: node_id in bench.reachable,
            free=self._free,
            hand_over_ms=600,
            **parts,
        )

    async def _free(self) -> None:
        """No log write is in flight in the tests that wait for this."""

    def propose(self) -> asyncio.Future[Any]:
        return self.driver.submit(PUT, encode_command(PUT), self.bench.clock.now, 60.0)

    def wait(self, seconds: float) -> None:
        """Let time pass as the driver's timer does."""
        for _ in range(round(seconds / 0.025)):
            self.bench.clock.now += 0.025
            now = self.bench.clock.now
            self.stalled.look(now)
            self.proposals.expire(now, self.bench.engine.role() == LEADER and self.driver.serves())
            self.driver.answer()

    def acknowledge(self, node_id: int) -> None:
        reply = AppendReply(self.bench.engine.term(), self.bench.store.last_index + 1, True, False, 0)
        self.bench.guards.incoming(node_id, reply, self.bench.clock.now)

    async def settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)


@pytest.fixture
async def leader(tmp_path: Path) -> Leader:
    return Leader(tmp_path)


async def test_a_stalled_log_write_ends_what_waits_and_asks_another_voter_to_lead(leader: Leader) -> None:
    leader.acknowledge(3)
    leader.acknowledge(1)
    in_log = leader.propose()
    leader.driver._step()
    assert leader.driver.busy()
    leader.acknowledge(3)
    leader.sent.clear()
    waiting, read = leader.propose(), register(leader.bench.reads, 1)
    leader.wait(0.9)
    assert not waiting.done()
    leader.wait(0.2)
    assert isinstance(waiting.exception(), NotLeaderError)
    assert isinstance(read.exception(), NotLeaderError)
    assert not in_log.done(), "it may still be known to be committed, if the disk answers soon"
    leader.wait(WRITE_GRACE_SECONDS + 0.1)
    assert isinstance(in_log.exception(), UnknownOutcomeError)
    assert leader.sent == [(3, TimeoutNow(leader.bench.engine.term()))], "once, and the one that has most"
    leader.driver.stop()


async def test_only_a_voter_that_can_be_reached_is_asked(leader: Leader) -> None:
    leader.acknowledge(3)
    leader.acknowledge(1)
    leader.propose()
    leader.driver._step()
    leader.acknowledge(3)
    leader.sent.clear()
    leader.bench.reachable = {1}
    leader.wait(1.1)
    assert [node_id for node_id, _ in leader.sent] == [1]
    leader.driver.stop()


async def test_a_stalled_state_hands_over(leader: Leader) -> None:
    leader.transfer.result, leader.state = True, "a new write-ahead log"
    leader.wait(0.9)
    assert leader.transfer.asked == 0
    leader.wait(0.2)
    await leader.settle()
    assert leader.transfer.asked == 1
    assert leader.disk.part is StalledPart.STATE


async def test_a_stalled_state_steps_down_when_nobody_takes_over_who_could(leader: Leader) -> None:
    leader.acknowledge(3)
    leader.state = "a new write-ahead log"
    leader.wait(1.1)
    await leader.settle()
    assert leader.bench.engine.role() == FOLLOWER
    assert leader.bench.engine.leader_id() is None
    leader.driver.stop()


async def test_a_stalled_state_leads_on_while_nobody_could_be_elected(leader: Leader) -> None:
    """The others lack entries, which only this leader can send them."""
    leader.state = "a new write-ahead log"
    leader.wait(1.1)
    await leader.settle()
    assert leader.bench.engine.role() == LEADER
    leader.wait(0.05)
    await leader.settle()
    assert leader.transfer.asked >= 2, "it tries again"


async def test_a_stall_that_is_over_leaves_the_leader_in_office(leader: Leader) -> None:
    leader.acknowledge(3)
    leader.state = "a new write-ahead log"
    leader.wait(1.1)
    leader.state = None
    leader.stalled.look(leader.bench.clock.now)
    await leader.settle()
    assert leader.bench.engine.role() == LEADER


@pytest.mark.parametrize("leads", [True, False])
async def test_a_read_that_waits_for_the_stalled_state_ends(leader: Leader, leads: bool) -> None:
    if not leads:
        leader.bench.engine.step_down()
    reading = asyncio.create_task(leader.applied.wait(10**6))
    await leader.settle()
    leader.state = "a new write-ahead log"
    leader.wait(0.9)
    await leader.settle()
    assert not reading.done()
    leader.wait(0.2)
    await leader.settle()
    with pytest.raises(NotDoneError, match="the disk stalls"):
        await reading


async def test_the_only_voter_leads_on(tmp_path: Path) -> None:
    leader = Leader(tmp_path, voters=(2,))
    waiting = leader.propose()
    leader.state = "a new write-ahead log"
    leader.wait(3.0)
    await leader.settle()
    assert (leader.bench.engine.role(), leader.transfer.asked, waiting.done()) == (LEADER, 0, False)

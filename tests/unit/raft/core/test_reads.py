"""Read index: a read is answered by a round that started after it, confirmed by a majority (invariant 5)."""

from __future__ import annotations

import asyncio

import pytest

from metasrv.model.errors import NotLeaderError, OverloadedError
from metasrv.model.limits import READ_WAITERS_MAX
from metasrv.raft.applied_waiters import AppliedWaiters
from tests.support.raft_bench import membership
from tests.support.settled import register, settled_reads


async def test_a_read_waits_for_a_round_that_starts_after_it() -> None:
    reads, three = settled_reads(1), membership(1, 2, 3)
    reads.lead()
    reads.start_round()
    running = reads.round
    future = register(reads, 42)
    reads.acknowledged(2, running)
    reads.resolve(three)
    assert not future.done()  # confirmed, but it began before the read
    assert reads.wants_round()
    reads.start_round()
    reads.resolve(three)
    assert not future.done()
    reads.acknowledged(2, running + 1)
    reads.resolve(three)
    assert future.result() == 42


async def test_a_minority_confirms_nothing() -> None:
    reads, five = settled_reads(1), membership(1, 2, 3, 4, 5)
    reads.lead()
    future = register(reads, 1)
    reads.start_round()
    reads.acknowledged(2, reads.round)
    reads.acknowledged(9, reads.round)  # no member
    reads.resolve(five)
    assert not future.done()
    reads.acknowledged(5, reads.round)
    reads.resolve(five)
    assert future.done()


async def test_acknowledgements_of_an_earlier_leadership_do_not_count() -> None:
    reads, three = settled_reads(1), membership(1, 2, 3)
    reads.lead()
    reads.acknowledged(2, 10**6)
    reads.resolve(three)
    reads.lead()
    future = register(reads, 7)
    reads.start_round()
    reads.resolve(three)
    assert not future.done()


async def test_a_learner_does_not_confirm() -> None:
    reads, members = settled_reads(1), membership(1, 2, learners=(3,))
    reads.lead()
    future = register(reads, 1)
    reads.start_round()
    reads.acknowledged(3, reads.round)
    reads.resolve(members)
    assert not future.done()


async def test_a_single_voter_confirms_itself() -> None:
    reads = settled_reads(1)
    reads.lead()
    future = register(reads, 3)
    reads.start_round()
    reads.resolve(membership(1))
    assert future.result() == 3


async def test_loss_of_leadership_sends_readers_elsewhere() -> None:
    reads = settled_reads(1)
    future = register(reads, 1)
    reads.fail(2)
    with pytest.raises(NotLeaderError) as failure:
        future.result()
    assert failure.value.leader_id == 2
    assert reads.waiting() == 0


async def test_waiting_reads_are_bounded() -> None:
    reads = settled_reads(1)
    for _ in range(READ_WAITERS_MAX):
        register(reads, 1)
    with pytest.raises(OverloadedError, match=str(READ_WAITERS_MAX)):
        register(reads, 1)
    reads.fail(None)


async def test_waiters_for_an_applied_index() -> None:
    applied = 5
    waiters = AppliedWaiters(lambda: applied)
    await waiters.wait(5)
    task = asyncio.create_task(waiters.wait(7))
    await asyncio.sleep(0)
    waiters.resolve()
    assert not task.done()
    applied = 7
    waiters.resolve()
    await task

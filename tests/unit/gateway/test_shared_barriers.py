"""Which reads of a gateway share a barrier, and when it leaves."""

from __future__ import annotations

import asyncio
from itertools import count

import pytest

from metasrv.gateway.shared_barriers import HOLD_SECONDS, Barrier, SharedBarriers

SECOND_MS = 1_000


class Sent:
    """Barriers, and those that were sent."""

    def __init__(self) -> None:
        self.sent: list[Barrier] = []
        self.barriers = SharedBarriers(count(1), self.sent.append)

    @property
    def numbers(self) -> list[int]:
        return [barrier.number for barrier in self.sent]


async def test_reads_share_a_barrier_until_it_has_left() -> None:
    sent = Sent()
    assert {sent.barriers.join(SECOND_MS).number for _ in range(5)} == {1}
    assert sent.numbers == [1]
    sent.barriers.left()
    assert sent.barriers.join(SECOND_MS).number == 2, "the node might have begun with the first"


async def test_reads_that_begin_while_a_barrier_is_under_way_share_the_next_one() -> None:
    sent = Sent()
    sent.barriers.join(SECOND_MS)
    sent.barriers.left()
    assert {sent.barriers.join(SECOND_MS).number for _ in range(3)} == {2}
    sent.barriers.left()  # with something else that the gateway has to say
    assert sent.barriers.join(SECOND_MS).number == 2
    assert sent.numbers == [1], "it waits for the first one's answer"
    sent.barriers.answered(1)
    assert sent.numbers == [1, 2]
    assert sent.barriers.join(SECOND_MS).number == 2, "it has been sent and is not written yet"
    sent.barriers.left()
    assert sent.barriers.join(SECOND_MS).number == 3
    sent.barriers.answered(2)
    assert sent.numbers == [1, 2, 3]


@pytest.mark.virtual_time
async def test_a_barrier_is_not_held_for_long_by_an_answer_that_does_not_come() -> None:
    sent = Sent()
    sent.barriers.join(SECOND_MS)
    sent.barriers.left()
    sent.barriers.join(SECOND_MS)
    await asyncio.sleep(HOLD_SECONDS / 2)
    assert sent.numbers == [1]
    await asyncio.sleep(HOLD_SECONDS)
    assert sent.numbers == [1, 2]
    sent.barriers.left()
    sent.barriers.join(SECOND_MS)
    sent.barriers.answered(2)
    assert sent.numbers == [1, 2], "the first is still under way"
    await asyncio.sleep(2 * HOLD_SECONDS)
    assert sent.numbers == [1, 2, 3]


async def test_who_may_wait_longer_is_not_bound_to_a_shorter_wait() -> None:
    sent = Sent()
    sent.barriers.join(SECOND_MS)
    assert sent.barriers.join(2 * SECOND_MS) == Barrier(2, 2 * SECOND_MS)
    assert sent.barriers.join(SECOND_MS).number == 2
    sent.barriers.left()
    assert sent.barriers.join(SECOND_MS).number == 3
    assert sent.barriers.join(2 * SECOND_MS).number == 4
    sent.barriers.answered(1)
    assert sent.numbers == [1, 2], "another one of the same turn is under way"
    sent.barriers.answered(2)
    assert sent.numbers == [1, 2, 3, 4]

"""One request for every few turns of the loop, in the order in which they came."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from metasrv.admin.turns import TURNS_BETWEEN, Turns


async def test_a_lone_caller_does_not_wait() -> None:
    with pytest.raises(StopIteration):
        Turns().take().send(None)


async def test_many_callers_go_on_in_order_and_leave_turns_to_others() -> None:
    turns, loop = Turns(), asyncio.get_running_loop()
    turn = 0
    found: list[tuple[int, int]] = []

    def count() -> None:
        nonlocal turn
        turn += 1
        if len(found) < 20:
            loop.call_soon(count)

    async def ask(number: int) -> None:
        await turns.take()
        found.append((number, turn))

    loop.call_soon(count)
    await asyncio.gather(*(ask(number) for number in range(20)))
    assert [number for number, _ in found] == list(range(20))
    turns_taken = [at for _, at in found]
    assert all(later - at >= TURNS_BETWEEN for at, later in pairwise(turns_taken))


async def test_a_caller_that_is_cancelled_gives_its_turn_away() -> None:
    turns = Turns()
    callers = [asyncio.create_task(turns.take()) for _ in range(5)]
    await asyncio.sleep(0)
    for caller in callers[1:4]:
        caller.cancel()
    await asyncio.wait_for(callers[4], 10)
    assert [caller.cancelled() for caller in callers] == [False, True, True, True, False]
    await asyncio.wait_for(turns.take(), 10)

"""Turns of those who wait: one at a time, origins after each other, and who gives way when too many wait."""

from __future__ import annotations

import asyncio

import pytest

from metasrv.grpc_api.fair_turns import FairTurns
from metasrv.model.errors import OverloadedError


class Queue:
    """What waits, in the order in which it was let in."""

    def __init__(self, waiting_max: int = 100) -> None:
        self.turns = FairTurns("wait", waiting_max)
        self.order: list[str] = []

    async def ask(self, name: str) -> asyncio.Task[None]:
        """Let somebody wait, whose origin is all of the name but its last letter."""

        async def wait() -> None:
            await self.turns.take(name[:-1])
            self.order.append(name)

        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        return task

    async def let_all_in(self) -> list[str]:
        """Who was let in, in order, once everybody has had a turn."""
        for _ in range(20):
            self.turns.give_back()
            await asyncio.sleep(0)
        return self.order


async def test_origins_take_turns() -> None:
    queue = Queue()
    tasks = [await queue.ask(name) for name in ("a1", "a2", "a3", "a4", "b1", "b2", "c1")]
    assert await queue.let_all_in() == ["a1", "a2", "b1", "c1", "a3", "b2", "a4"]
    await asyncio.gather(*tasks)


async def test_a_turn_that_nobody_waits_for_is_free_again() -> None:
    queue = Queue()
    await queue.turns.take("a")
    queue.turns.give_back()
    task = await queue.ask("b1")
    assert task.done()
    assert queue.order == ["b1"]


async def test_whoever_waits_most_often_gives_way_to_another() -> None:
    queue = Queue(waiting_max=3)
    tasks = [await queue.ask(name) for name in ("a0", "a1", "a2", "a3", "b1", "b2")]
    assert isinstance(tasks[3].exception(), OverloadedError), "the newest of the largest made room for b1"
    assert isinstance(tasks[5].exception(), OverloadedError), "b2 would have left a as few as b"
    assert await queue.let_all_in() == ["a0", "a1", "b1", "a2"]


async def test_an_origin_refuses_only_itself() -> None:
    queue = Queue(waiting_max=3)
    tasks = [await queue.ask(f"a{number}") for number in range(5)]
    assert [task.done() for task in tasks] == [True, False, False, False, True]
    assert isinstance(tasks[4].exception(), OverloadedError)
    assert await queue.let_all_in() == ["a0", "a1", "a2", "a3"]


@pytest.mark.parametrize("turn_came", [False, True])
async def test_who_leaves_while_waiting_takes_no_turn(turn_came: bool) -> None:
    queue = Queue(waiting_max=2)
    tasks = [await queue.ask(name) for name in ("a0", "a1", "a2")]
    if turn_came:
        queue.turns.give_back()  # to a1, which does not run before it is cancelled
    tasks[1].cancel()
    await asyncio.sleep(0)
    tasks.append(await queue.ask("a3"))
    assert await queue.let_all_in() == ["a0", "a2", "a3"]
    assert tasks[1].cancelled()

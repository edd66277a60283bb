"""The pace of TLS handshakes: how many a step, how many at once, whose turn it is, and who gives its place."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from metasrv.process.handshake_pace import BEGUN_PER_STEP, HandshakePace

AT_ONCE_MAX = 4
IMPATIENT = "metasrv.process.handshake_pace.PATIENCE_SECONDS"


class Callers:
    """Handshakes that go on until they are told, or have to make room."""

    def __init__(self) -> None:
        self.pace = HandshakePace(AT_ONCE_MAX, self._make_room)
        self.order: list[str] = []
        self.left_out: list[str] = []
        self.made_room: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}

    def ask(self, *names: str) -> None:
        """Let handshakes wait; the address is all of a name but its last letter."""
        for name in names:
            self.tasks[name] = asyncio.get_running_loop().create_task(self._shake(name), name=name)

    async def steps(self, count: int = 1) -> None:
        for _ in range(count):
            await asyncio.sleep(0)

    def end(self, name: str) -> None:
        self.pace.leave(name[:-1], self.tasks[name])

    async def _shake(self, name: str) -> None:
        task = asyncio.current_task()
        assert task is not None
        begins = await self.pace.begin(name[:-1], task)
        (self.order if begins else self.left_out).append(name)
        await asyncio.Event().wait()

    def _make_room(self, task: asyncio.Task[None]) -> None:
        self.made_room.append(task.get_name())


@pytest.fixture
async def callers() -> AsyncIterator[Callers]:
    made = Callers()
    yield made
    for task in made.tasks.values():
        task.cancel()
    await asyncio.gather(*made.tasks.values(), return_exceptions=True)


async def test_a_step_begins_only_a_few(callers: Callers) -> None:
    callers.ask("a1", "b1", "c1", "d1")
    await callers.steps(2)  # they ask in the first
    assert callers.pace.begun_count == BEGUN_PER_STEP
    await callers.steps(1)
    assert callers.pace.begun_count == 2 * BEGUN_PER_STEP


async def test_addresses_take_turns(callers: Callers) -> None:
    callers.ask("a1", "a2", "a3", "b1")
    await callers.steps(5)
    assert callers.order == ["a1", "b1", "a2", "a3"]


async def test_past_the_limit_an_address_with_many_makes_room_for_another(callers: Callers) -> None:
    callers.ask("a1", "a2", "a3", "a4")
    await callers.steps(5)
    callers.ask("a5", "b1")
    await callers.steps(5)
    assert (callers.order[4:], callers.made_room) == (["b1"], ["a1"]), "a5 has to wait for its own address"
    assert callers.pace.begun_count == AT_ONCE_MAX


async def test_a_handshake_that_lasts_makes_room_for_its_own_address(
    callers: Callers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(IMPATIENT, 0.0)
    callers.ask("a1", "a2", "b1", "c1")
    await callers.steps(5)
    callers.ask("b2")
    await callers.steps(5)
    assert (callers.order[4:], callers.made_room) == (["b2"], ["b1"])


async def test_what_ends_leaves_its_place(callers: Callers) -> None:
    callers.ask("a1", "a2", "a3", "a4", "a5")
    await callers.steps(5)
    assert len(callers.order) == AT_ONCE_MAX
    callers.end("a2")
    callers.end("a2")
    async with asyncio.timeout(5):
        while len(callers.order) == AT_ONCE_MAX:  # noqa: ASYNC110 - nothing tells when the pace has looked again
            await asyncio.sleep(0)
    assert callers.order[-1] == "a5"
    assert callers.made_room == []


async def test_whoever_leaves_while_waiting_is_left_out(callers: Callers) -> None:
    callers.ask("a1", "a2", "a3", "a4", "a5", "a6")
    await callers.steps(5)
    callers.end("a5")
    callers.end("a1")
    async with asyncio.timeout(5):
        while len(callers.order) == AT_ONCE_MAX:  # noqa: ASYNC110 - nothing tells when the pace has looked again
            await asyncio.sleep(0)
    assert callers.order[-1] == "a6"
    assert callers.left_out == ["a5"]

"""How long a request waits for one leader's answer."""

from __future__ import annotations

import asyncio

import pytest

from metasrv.raft.core import patience as module
from metasrv.raft.core.patience import LeaderLostError, Patience


class Cluster:
    """Who leads, as the node that waits knows it."""

    leader: int | None = 1

    def __call__(self) -> int | None:
        return self.leader


@pytest.fixture(autouse=True)
def look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.001)


async def pending() -> asyncio.Future[str]:
    return asyncio.get_running_loop().create_future()


async def test_an_answer_in_time() -> None:
    answer = await pending()
    asyncio.get_running_loop().call_later(0.005, answer.set_result, "done")
    assert await Patience(Cluster()).wait(answer, 1, 5.0, 0.0) == "done"


async def test_the_deadline() -> None:
    with pytest.raises(TimeoutError):
        await Patience(Cluster()).wait(await pending(), 1, 0.01, 0.0)


@pytest.mark.parametrize("after", [None, 2])
async def test_a_leader_that_is_lost(after: int | None) -> None:
    cluster = Cluster()
    asyncio.get_running_loop().call_later(0.005, setattr, cluster, "leader", after)
    with pytest.raises(LeaderLostError):
        await Patience(cluster).wait(await pending(), 1, 5.0, 0.01)


async def test_a_leader_that_comes_back_within_the_grace_is_not_lost() -> None:
    cluster, answer, loop = Cluster(), await pending(), asyncio.get_running_loop()
    cluster.leader = None
    loop.call_later(0.01, setattr, cluster, "leader", 1)
    loop.call_later(0.05, answer.set_result, "done")
    assert await Patience(cluster).wait(answer, 1, 5.0, 1.0) == "done"


async def test_an_error_is_passed_on_and_a_cancelled_caller_leaves_no_timer() -> None:
    answer = await pending()
    answer.set_exception(ValueError("refused"))
    with pytest.raises(ValueError, match="refused"):
        await Patience(Cluster()).wait(answer, 1, 5.0, 0.0)
    waiting = asyncio.create_task(Patience(Cluster()).wait(await pending(), 1, 5.0, 0.0))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_loop_that_wakes_late_finds_both_the_deadline_and_a_lost_leader(monkeypatch: pytest.MonkeyPatch) -> None:
    """tests/BUGS.md S10: after a pause both timers are due in one turn of the loop, the deadline's first."""
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.002)
    loop = asyncio.get_running_loop()
    errors: list[dict[str, object]] = []
    loop.set_exception_handler(lambda _, context: errors.append(context))

    def hold_the_loop() -> None:
        until = loop.time() + 0.01
        while loop.time() < until:
            continue

    loop.call_soon(hold_the_loop)
    with pytest.raises(TimeoutError):
        await Patience(Cluster()).wait(await pending(), 2, 0.001, 0.0)
    assert errors == []

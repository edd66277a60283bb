"""The read-only switch of a source in the hands of a migration: what it turns on, and what it leaves to others."""

from __future__ import annotations

import pytest

from metasrv.migration import standstill
from metasrv.migration.standstill import Standstill, StillLeftError, SwitchState
from metasrv.model.errors import InvalidRequestError, NotDoneError

OWN = "metactl migrate moves this cluster to new, run 7"
EARLIER = "metactl migrate moves this cluster to new, run 5"
ANOTHER_TARGET = "metactl migrate moves this cluster to newer, run 5"


class FakeSwitch:
    """The switch of cluster `old`; the next `failures` requests are not answered."""

    def __init__(self, reason: str | None = None, obstacle: str = "") -> None:
        self.reason = reason
        self.failures = 0
        self._obstacle = obstacle

    async def look(self) -> SwitchState:
        self._answer()
        return SwitchState("old", self.reason, self._obstacle)

    async def turn(self, reason: str | None) -> None:
        self._answer()
        self.reason = reason

    def _answer(self) -> None:
        if self.failures:
            self.failures -= 1
            raise NotDoneError("nobody answers")


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standstill, "_AGAIN_SECONDS", 0.0)


async def held(switch: FakeSwitch) -> Standstill:
    taken = Standstill(switch)
    await taken.take_over("new", 7)
    await taken.begin()
    return taken


async def test_only_the_switch_of_the_source_is_used() -> None:
    with pytest.raises(InvalidRequestError, match="--from-admin-api-address leads to cluster old, and --from to other"):
        await Standstill(FakeSwitch()).check("other")
    with pytest.raises(InvalidRequestError, match="and --from to one that does not name itself"):
        await Standstill(FakeSwitch()).check(None)
    with pytest.raises(InvalidRequestError, match="the feature is off"):
        await Standstill(FakeSwitch(obstacle="the feature is off")).check("old")
    switch = FakeSwitch()
    await Standstill(switch).check("old")
    assert switch.reason is None


async def test_it_is_turned_on_and_off_again() -> None:
    switch = FakeSwitch()
    taken = await held(switch)
    assert switch.reason == OWN
    assert await taken.still_holds()
    assert await taken.end()
    assert switch.reason is None
    assert not await taken.end(), "once is enough"


async def test_it_stays_on_when_it_is_kept() -> None:
    switch = FakeSwitch()
    taken = await held(switch)
    assert taken.keep()
    assert not await taken.end()
    assert switch.reason == OWN


async def test_somebody_who_ends_it_is_noticed_and_not_undone() -> None:
    switch = FakeSwitch()
    taken = await held(switch)
    switch.reason = None
    assert not await taken.still_holds()
    switch.reason = "night shift"
    assert not await taken.still_holds()
    await taken.end()
    assert switch.reason == "night shift"


async def test_an_operators_switch_serves_and_stays() -> None:
    switch = FakeSwitch("an evening's work")
    taken = Standstill(switch)
    assert not await taken.take_over("new", 7)
    assert await taken.begin() == "an evening's work"
    assert await taken.still_holds()
    assert not taken.keep()
    assert not await taken.end()
    assert switch.reason == "an evening's work"


async def test_what_an_earlier_run_to_the_same_target_left_is_taken_over() -> None:
    switch = FakeSwitch(EARLIER)
    assert await Standstill(switch).take_over("new", 7)
    assert switch.reason is None
    other = FakeSwitch(ANOTHER_TARGET)
    assert not await Standstill(other).take_over("new", 7)
    assert other.reason == ANOTHER_TARGET


async def test_a_later_runs_switch_is_left_to_it() -> None:
    switch = FakeSwitch()
    taken = await held(switch)
    later = Standstill(switch)
    assert await later.take_over("new", 8)
    await later.begin()
    await taken.end()
    assert switch.reason == "metactl migrate moves this cluster to new, run 8"


async def test_it_is_turned_off_although_nobody_answers_for_a_while() -> None:
    switch = FakeSwitch()
    taken = await held(switch)
    switch.failures = 4
    assert await taken.end()
    assert switch.reason is None


async def test_a_source_that_cannot_be_told_is_named() -> None:
    switch = FakeSwitch()
    taken = await held(switch)
    switch.failures = 100
    with pytest.raises(StillLeftError, match=r"the source may still be read-only, .*: nobody answers"):
        await taken.end()


async def test_a_switch_whose_answer_is_lost_is_turned_off_too() -> None:
    """The request may have arrived, or be on its way."""
    switch = FakeSwitch()
    taken = Standstill(switch)
    await taken.take_over("new", 7)

    async def lost(reason: str | None) -> None:
        switch.reason = reason
        raise NotDoneError("the answer is lost")

    turn, switch.turn = switch.turn, lost  # type: ignore[method-assign]
    with pytest.raises(NotDoneError):
        await taken.begin()
    switch.turn = turn  # type: ignore[method-assign]
    assert await taken.end()
    assert switch.reason is None

"""A leader whose clock is far off hands leadership over: to whom, when, and how seldom."""

from __future__ import annotations

from typing import Any

from metasrv.model.types import Endpoint, Member, Membership
from metasrv.raft.clock_hand_over import PAUSE_ROUNDS_MAX, PAUSE_ROUNDS_MIN, ROUNDS_BEFORE, ClockHandOver
from metasrv.raft.core.clock_offsets import ClockOffsets
from metasrv.testing.hand_clock import HandClock

BOUND_MS = 1_000


class _Engine:
    """What the hand-over looks at: voters, their answers, how far their logs are."""

    def __init__(self, clock: HandClock, voters: int) -> None:
        self._clock = clock
        self._membership = Membership({i: Member(Endpoint("h", i), "x") for i in range(1, voters + 1)}, {})
        self.match = dict.fromkeys(range(1, voters + 1), 10)
        self.silent: set[int] = set()

    def own_id(self) -> int:
        return 1

    def membership(self) -> Membership:
        return self._membership

    def last_response(self, node_id: int) -> float:
        return self._clock.now - (5.0 if node_id in self.silent else 0.0)

    def match_index(self, node_id: int) -> int:
        return self.match[node_id]


class _Leader:
    """Node 1 leads; `peers` are the true offsets of the others' clocks from its own, in milliseconds."""

    def __init__(self, *peers: float) -> None:
        self.clock = HandClock(epoch_ms=1_700_000_000_000)
        self.peers = dict(enumerate(peers, 2))
        self.engine = _Engine(self.clock, 1 + len(peers))
        self.offsets = ClockOffsets(self.clock, 1, 1.0, BOUND_MS)
        self.leads = True
        self.targets: list[int] = []
        engine: Any = self.engine
        self.hand_over = ClockHandOver(
            clock=self.clock,
            engine=engine,
            offsets=self.offsets,
            leads=lambda: self.leads,
            transfer=self._transfer,
            answer_age_seconds_max=1.0,
        )

    async def _transfer(self, node_id: int) -> None:
        self.targets.append(node_id)

    async def rounds(self, count: int, error_seconds: float = 0.001) -> list[int]:
        """So many rounds of questions; the targets of the hand-overs that came of them."""
        before = len(self.targets)
        for _ in range(count):
            self.clock.advance(1.0 - error_seconds)
            asked_at = self.clock.now
            self.clock.advance(error_seconds)
            for node_id, offset_ms in self.peers.items():
                told_ms = self.clock.wall_ms() + round(offset_ms) - round(error_seconds * 500)
                self.offsets.sampled(node_id, told_ms, asked_at, self.clock.now)
            await self.hand_over.consider()
        return self.targets[before:]


async def test_a_leader_far_off_hands_over_after_some_rounds() -> None:
    leader = _Leader(-300_000.0, -300_020.0)
    assert await leader.rounds(ROUNDS_BEFORE - 1) == []
    assert await leader.rounds(1) == [2]


async def test_a_leader_that_is_behind_hands_over_too() -> None:
    assert await _Leader(5_000.0, 5_020.0).rounds(ROUNDS_BEFORE) == [2]


async def test_a_leader_near_its_majority_stays() -> None:
    assert await _Leader(900.0, 950.0).rounds(100) == []
    assert await _Leader(300_000.0, 3.0).rounds(100) == [], "the other one is wrong"
    assert await _Leader(300_000.0, -300_000.0).rounds(100) == [], "nobody knows who is right"
    assert await _Leader(300_000.0).rounds(100) == [], "one against one"


async def test_a_clock_that_comes_back_in_time_changes_nothing() -> None:
    leader = _Leader(-300_000.0, -300_000.0)
    for _ in range(10):
        assert await leader.rounds(ROUNDS_BEFORE - 1) == []
        leader.peers = {2: 0.0, 3: 0.0}
        assert await leader.rounds(1) == []
        leader.peers = {2: -300_000.0, 3: -300_000.0}


async def test_what_may_be_an_error_of_measurement_does_not_count() -> None:
    leader = _Leader(-1_300.0, -1_300.0)
    assert await leader.rounds(100, error_seconds=0.9) == []
    assert await leader.rounds(ROUNDS_BEFORE, error_seconds=0.01) == [2]


async def test_the_target_agrees_with_the_majority_answers_and_has_the_longest_log() -> None:
    leader = _Leader(-300_000.0, 0.0, -300_010.0, -300_020.0)
    leader.engine.match = {1: 10, 2: 7, 3: 10, 4: 9, 5: 10}
    leader.engine.silent = {5}
    assert await leader.rounds(ROUNDS_BEFORE) == [4], "3 is wrong, 5 does not answer, 2 is behind"
    leader = _Leader(-300_000.0, -300_000.0)
    leader.engine.silent = {2, 3}
    assert await leader.rounds(100) == []
    leader.engine.silent = {2}
    assert await leader.rounds(1) == [3], "it goes as soon as somebody can take over"


async def test_it_is_not_tried_again_and_again() -> None:
    leader = _Leader(-300_000.0, -300_000.0)
    assert len(await leader.rounds(ROUNDS_BEFORE + PAUSE_ROUNDS_MIN - 1)) == 1
    assert len(await leader.rounds(1)) == 1, "after the pause"
    assert len(await leader.rounds(2 * PAUSE_ROUNDS_MIN - 1)) == 0, "the pause has doubled"
    assert len(await leader.rounds(1)) == 1
    assert len(await leader.rounds(20 * PAUSE_ROUNDS_MAX)) <= 20 + 7


async def test_the_pause_begins_anew_once_the_clock_was_right() -> None:
    leader = _Leader(-300_000.0, -300_000.0)
    await leader.rounds(1_000)
    leader.peers = {2: -700.0, 3: -700.0}
    await leader.rounds(2_000)
    leader.peers = {2: -300_000.0, 3: -300_000.0}
    assert await leader.rounds(ROUNDS_BEFORE) == [2]
    assert await leader.rounds(ROUNDS_BEFORE + 2 * PAUSE_ROUNDS_MIN) == [], "within the bound is not yet well within it"
    leader.peers = {2: 0.0, 3: 0.0}
    await leader.rounds(PAUSE_ROUNDS_MAX)
    leader.peers = {2: -300_000.0, 3: -300_000.0}
    assert await leader.rounds(ROUNDS_BEFORE + PAUSE_ROUNDS_MIN) == [2, 2]


async def test_only_a_leader_hands_over() -> None:
    leader = _Leader(-300_000.0, -300_000.0)
    leader.leads = False
    assert await leader.rounds(100) == []
    leader.leads = True
    assert await leader.rounds(ROUNDS_BEFORE - 1) == [], "rounds as a follower do not count"

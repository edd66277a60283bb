"""Rounds of questions about clocks: who is asked, and what becomes of peers that do not answer or do not know how."""

from __future__ import annotations

from typing import Any

from metasrv.model.errors import InvalidRequestError, PeerUnreachableError
from metasrv.raft.clock_rounds import ClockRounds, round_seconds
from metasrv.raft.core.clock_offsets import ClockOffsets
from metasrv.raft.forwarding import Answering, Forwarding
from metasrv.testing.hand_clock import HandClock


class _Peers:
    """Nodes 2, 3 and 4: one whose clock is 9 s ahead, one of an earlier release, one whose connection is gone."""

    def __init__(self, clock: HandClock) -> None:
        self._clock = clock
        self.asked: list[int] = []
        consensus: Any = None
        local: Any = self
        self._answering = Answering(consensus, local, Forwarding(self))

    def wall_ms(self) -> int:
        return self._clock.wall_ms() + 9_000

    async def request(self, target: Any, method: str, payload: bytes, timeout_ms: int) -> bytes:
        assert timeout_ms == 1_000
        self.asked.append(target)
        self._clock.advance(0.002)
        if target == 3:
            raise InvalidRequestError(f"a peer asked for {method!r}, which this version of metasrv does not know")
        if target == 4:
            raise PeerUnreachableError("there is no connection to node 4")
        return await self._answering.answer(method, payload)


async def test_a_round_asks_all_and_measures_those_that_answer() -> None:
    clock = HandClock(epoch_ms=1_700_000_000_000)
    peers, offsets = _Peers(clock), ClockOffsets(clock, 1, 1.0, 1_000)
    ended: list[int] = []

    async def after_round() -> None:
        ended.append(len(peers.asked))

    rounds = ClockRounds(
        clock=clock,
        offsets=offsets,
        pause_seconds=round_seconds(500),
        peers=lambda: (2, 3, 4),
        ask=Forwarding(peers).wall_ms,
        after_round=after_round,
    )
    await rounds.round()
    assert (peers.asked, ended) == ([2, 3, 4], [3])
    measured = offsets.offset_ms(2)
    assert measured is not None
    assert abs(measured - 9_000) <= 2
    assert [offsets.offset_ms(3), offsets.offset_ms(4)] == [None, None], "unknown, and no error"
    await rounds.stop()

"""How far other nodes' wall clocks are from this one's, by round trips as in NTP, and what a majority agrees on.

A peer tells its wall clock; it read it between the sending of the question and the arrival of the answer, so half the
round trip is the error. The sample with the smallest error is kept while newer ones do not contradict it. It is kept
against the monotonic clock, so that a jump of this node's own wall clock shows at once. Knows no messages and no engine.
Runs on the event loop.
"""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median
from typing import NamedTuple

from metasrv.process.clock import Clock

SAMPLE_AGE_ROUNDS_MAX = 20
"""A sample older than this number of rounds says nothing any more: the peer has not answered since, or clocks drift."""


class _Sample(NamedTuple):
    base_ms: float
    """What the peer's wall clock showed when this node's monotonic clock was zero."""
    error_ms: float
    taken_at: float


class Offset(NamedTuple):
    """A peer's wall clock less this node's, in milliseconds, and by how much that may be wrong at most."""

    offset_ms: float
    error_ms: float

    def surely_beyond(self, bound_ms: float) -> bool:
        return abs(self.offset_ms) - self.error_ms > bound_ms


class Majority(NamedTuple):
    """Voters, a majority of all, whose clocks agree: who they are, and their time less this node's."""

    node_ids: frozenset[int]
    offset_ms: float


class ClockOffsets:
    """One node's samples of its peers' clocks. A round is the pause between two questions to a peer."""

    def __init__(self, clock: Clock, own_id: int, round_seconds: float, bound_ms: int) -> None:
        self._clock = clock
        self._own_id = own_id
        self._age_max = SAMPLE_AGE_ROUNDS_MAX * round_seconds
        self._samples: dict[int, _Sample] = {}
        self.bound_ms = bound_ms
        """Clocks that differ by no more agree."""

    def sampled(self, node_id: int, peer_wall_ms: int, asked_at: float, answered_at: float) -> None:
        """The peer's wall clock showed `peer_wall_ms` between these two monotonic moments of this node."""
        error_ms = max(0.0, answered_at - asked_at) * 500 + 1  # it is told in whole milliseconds
        base_ms = peer_wall_ms - (asked_at + answered_at) * 500
        kept = self._samples.get(node_id)
        if (
            kept is None
            or error_ms <= kept.error_ms
            or answered_at - kept.taken_at > self._age_max / 2
            or abs(base_ms - kept.base_ms) > error_ms + kept.error_ms
        ):
            self._samples[node_id] = _Sample(base_ms, error_ms, answered_at)

    def offset(self, node_id: int) -> Offset | None:
        """The peer's offset from this node's present wall clock; None when it is not known."""
        if node_id == self._own_id:
            return Offset(0.0, 0.0)
        sample, now = self._samples.get(node_id), self._clock.monotonic()
        if sample is None or now - sample.taken_at > self._age_max:
            return None
        return Offset(sample.base_ms + now * 1000 - self._clock.wall_ms(), sample.error_ms)

    def offset_ms(self, node_id: int) -> int | None:
        """The same in whole milliseconds, for status."""
        known = self.offset(node_id)
        return None if known is None else round(known.offset_ms)

    def majority(self, voter_ids: Iterable[int]) -> Majority | None:
        """The majority of voters whose clocks are closest together; None when no majority agrees within the bound.

        Nobody can tell who is right while only a minority, or two of two, is known.
        """
        voters = sorted(voter_ids)
        known = sorted((found.offset_ms, i) for i in voters if (found := self.offset(i)) is not None)
        size = len(voters) // 2 + 1
        groups = [known[start : start + size] for start in range(len(known) - size + 1)]
        if not groups:
            return None
        closest = min(groups, key=lambda group: group[-1][0] - group[0][0])
        if closest[-1][0] - closest[0][0] > self.bound_ms:
            return None
        middle = median(offset_ms for offset_ms, _ in closest)
        agreeing = frozenset(i for offset_ms, i in known if abs(offset_ms - middle) <= self.bound_ms)
        return Majority(agreeing, middle)

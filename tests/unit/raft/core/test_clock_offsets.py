"""Offsets of other clocks: right within half a round trip, quick to see a jump, and what a majority says."""

from __future__ import annotations

import random

from metasrv.raft.core.clock_offsets import SAMPLE_AGE_ROUNDS_MAX, ClockOffsets
from metasrv.testing.hand_clock import HandClock

BOUND_MS = 1_000


class _Wall(HandClock):
    """This node's clocks; `jump_ms` is how far the wall clock was set."""

    jump_ms = 0

    def wall_ms(self) -> int:
        return super().wall_ms() + self.jump_ms


class _Node:
    """Node 1 with the offsets that it measures; `peers` are the true offsets of the others' clocks."""

    def __init__(self, **peers: float) -> None:
        self.clock = _Wall(epoch_ms=1_700_000_000_000)
        self.offsets = ClockOffsets(self.clock, 1, 1.0, BOUND_MS)
        self.peers = {int(name[1:]): offset for name, offset in peers.items()}

    def measure(self, node_id: int, there: float = 0.001, back: float = 0.001) -> None:
        """One round trip, with its two halves in seconds; both monotonic and true wall clocks go on meanwhile."""
        asked_at = self.clock.now
        self.clock.advance(there)
        peer_ms = HandClock.wall_ms(self.clock) + round(self.peers[node_id])
        self.clock.advance(back)
        self.offsets.sampled(node_id, peer_ms, asked_at, self.clock.now)

    def measure_all(self) -> None:
        for node_id in self.peers:
            self.measure(node_id)


def test_an_offset_is_right_within_half_the_round_trip() -> None:
    source = random.Random(3)
    for _ in range(200):
        true_ms, there, back = source.uniform(-5_000, 5_000), source.uniform(0, 0.3), source.uniform(0, 0.3)
        node = _Node(n2=true_ms)
        node.measure(2, there, back)
        found = node.offsets.offset(2)
        assert found is not None
        assert abs(found.offset_ms - true_ms) <= found.error_ms + 1
        assert found.error_ms <= (there + back) * 500 + 1.001


def test_a_slow_answer_does_not_replace_a_quick_one() -> None:
    node = _Node(n2=40.0)
    node.measure(2, 0.001, 0.001)
    node.measure(2, 0.4, 0.0)
    found = node.offsets.offset(2)
    assert found is not None
    assert abs(found.offset_ms - 40) <= 2


def test_a_jump_of_the_peer_shows_with_its_next_answer_however_slow() -> None:
    node = _Node(n2=0.0)
    node.measure(2)
    node.peers[2] = 300_000.0
    node.measure(2, 0.3, 0.1)
    found = node.offsets.offset(2)
    assert found is not None
    assert found.surely_beyond(BOUND_MS)
    assert abs(found.offset_ms - 300_000) <= found.error_ms


def test_a_jump_of_this_node_shows_at_once() -> None:
    node = _Node(n2=0.0)
    node.measure(2)
    node.clock.jump_ms = -7_000
    found = node.offsets.offset_ms(2)
    assert found is not None
    assert abs(found - 7_000) <= 2


def test_a_silent_peer_is_unknown_after_a_while() -> None:
    node = _Node(n2=0.0)
    assert node.offsets.offset(2) is None
    node.measure(2)
    node.clock.advance(SAMPLE_AGE_ROUNDS_MAX)
    assert node.offsets.offset(2) is not None
    node.clock.advance(0.1)
    assert (node.offsets.offset(2), node.offsets.offset_ms(2)) == (None, None)


def test_the_majority_is_the_clocks_that_agree() -> None:
    node = _Node(n2=300_000.0, n3=300_010.0, n4=-20_000.0, n5=299_990.0)
    node.measure_all()
    majority = node.offsets.majority((1, 2, 3, 4, 5))
    assert majority is not None
    assert majority.node_ids == {2, 3, 5}
    assert abs(majority.offset_ms - 300_000) <= 12


def test_this_node_is_of_the_majority_when_one_peer_is_wrong() -> None:
    node = _Node(n2=300_000.0, n3=5.0)
    node.measure_all()
    majority = node.offsets.majority((1, 2, 3))
    assert majority is not None
    assert majority.node_ids == {1, 3}


def test_without_agreement_or_knowledge_nobody_is_right() -> None:
    node = _Node(n2=300_000.0, n3=-300_000.0)
    node.measure_all()
    assert node.offsets.majority((1, 2, 3)) is None, "three clocks, three times"
    assert node.offsets.majority((1, 2)) is None, "one against one"
    assert _Node(n2=0.0).offsets.majority((1, 2, 3)) is None, "nothing measured yet"
    assert node.offsets.majority(()) is None
    alone = node.offsets.majority((1,))
    assert alone is not None
    assert alone.offset_ms == 0

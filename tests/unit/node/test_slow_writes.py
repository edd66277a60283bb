"""The slowest and the largest writes: which are kept, for how long, and that nothing is asked of the others."""

from __future__ import annotations

import pytest

from metasrv.model.limits import (
    SLOW_WRITE_KEY_CHARACTERS_MAX,
    SLOW_WRITE_KEYS_MAX,
    SLOW_WRITES_KEPT_MAX,
    SLOW_WRITES_MINUTES_MAX,
)
from metasrv.node.slow_writes import CUT, SlowWrites, Written


class Node:
    def __init__(self) -> None:
        self.now = 6_000.0
        self.writes = SlowWrites(lambda: self.now, lambda: 1_000)
        self.described = 0

    def write(self, milliseconds: float, size_bytes: int = 100, *keys: str, failure: str | None = None) -> None:
        def describe() -> Written:
            self.described += 1
            return Written(keys, len(keys))

        self.writes.note(self.now, milliseconds / 1000, size_bytes, "Transaction", describe, failure)

    def slowest(self) -> list[float]:
        return [round(write.seconds * 1000, 3) for write in self.writes.slowest()]

    def largest(self) -> list[int]:
        return [write.size_bytes for write in self.writes.largest()]


@pytest.fixture
def node() -> Node:
    return Node()


def test_the_best_of_a_minute_are_kept_in_order(node: Node) -> None:
    for number in range(1, SLOW_WRITES_KEPT_MAX + 11):
        node.write(number, size_bytes=1_000 - number)
    assert node.slowest() == list(range(SLOW_WRITES_KEPT_MAX + 10, 10, -1))
    assert node.largest() == list(range(999, 999 - SLOW_WRITES_KEPT_MAX, -1))


def test_nothing_is_asked_of_a_write_that_is_not_kept(node: Node) -> None:
    for _ in range(SLOW_WRITES_KEPT_MAX):
        node.write(5)
    assert node.described == SLOW_WRITES_KEPT_MAX
    for _ in range(1_000):
        node.write(4.9)
    assert node.described == SLOW_WRITES_KEPT_MAX
    node.write(5.1)
    node.write(0.1, size_bytes=101)
    assert node.described == SLOW_WRITES_KEPT_MAX + 2


def test_a_minute_goes_when_it_is_too_old(node: Node) -> None:
    node.write(1)
    for minute in range(1, SLOW_WRITES_MINUTES_MAX):
        node.now += 60
        node.write(1 + minute)
    assert len(node.slowest()) == SLOW_WRITES_MINUTES_MAX
    node.now += 60
    assert node.slowest()[-1] == 2, "also on a node that has no writes now"
    node.write(100)
    assert len(node.writes._minutes) == SLOW_WRITES_MINUTES_MAX
    node.now += 60 * SLOW_WRITES_MINUTES_MAX
    assert node.slowest() == node.largest() == []


def test_memory_is_bounded(node: Node) -> None:
    for number in range(20_000):
        node.now += 0.1
        node.write(number, number)
    assert sum(len(minute.slowest) + len(minute.largest) for _, minute in node.writes._minutes) <= (
        2 * SLOW_WRITES_KEPT_MAX * SLOW_WRITES_MINUTES_MAX
    )
    assert len(node.slowest()) == SLOW_WRITES_KEPT_MAX


def test_keys_are_shortened_and_failures_named(node: Node) -> None:
    long = "k" * (SLOW_WRITE_KEY_CHARACTERS_MAX + 1)
    node.write(1, 1, long, "a", "b", "c", failure="timeout")
    (write,) = node.writes.slowest()
    assert write.written.keys == ("k" * (SLOW_WRITE_KEY_CHARACTERS_MAX - 1) + CUT, "a", "b")
    assert (write.written.operations, write.failure, write.ended_at_ms) == (4, "timeout", 1_000)
    assert len(write.written.keys) == SLOW_WRITE_KEYS_MAX

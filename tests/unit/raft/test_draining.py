"""Drain of a node: what it hands over, what it no longer stands for, and when nothing is changed."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from metasrv.model.errors import NotDoneError
from metasrv.model.types import Membership
from metasrv.raft.core.engine import FOLLOWER, LEADER
from metasrv.raft.draining import AGAIN_SECONDS, Draining
from metasrv.raft.replica import Replica
from metasrv.testing.hand_clock import HandClock
from tests.support.raft_bench import membership


class Node:
    """A replica's parts that a drain looks at, and a transfer that does what the test says."""

    def __init__(self, members: Membership, role: int) -> None:
        self.role_now, self.hands_over = role, True
        self.asked = 0
        self.clock = HandClock()
        engine = SimpleNamespace(membership=lambda: members, role=lambda: self.role_now)
        replica: Any = SimpleNamespace(node_id=1, engine=engine, clock=self.clock)
        transfer: Any = self
        self.draining = Draining(replica, transfer, 500)

    async def hand_over(self, timeout_ms: int) -> bool:
        assert timeout_ms > 0
        self.asked += 1
        if self.hands_over:
            self.role_now = FOLLOWER
        return self.role_now == FOLLOWER


async def test_a_drained_leader_hands_over_and_stands_no_more() -> None:
    node = Node(membership(1, 2, 3), LEADER)
    await node.draining.drain(1000)
    assert (node.role_now, node.draining.on) == (FOLLOWER, True)
    await node.draining.drain(1000)
    assert node.asked == 1
    node.draining.end()
    assert not node.draining.on


@pytest.mark.parametrize(("operator", "disk"), [(True, False), (False, True), (True, True)])
def test_a_node_stands_only_if_both_the_operator_and_its_disk_let_it(operator: bool, disk: bool) -> None:
    parts: Any = SimpleNamespace(_handlers=SimpleNamespace(may_stand=lambda: operator), _serves=lambda: disk)
    assert Replica._may_stand(parts) == (operator and disk)


async def test_a_leader_that_nobody_follows_is_as_before() -> None:
    node = Node(membership(1, 2, 3), LEADER)
    node.hands_over = False
    with pytest.raises(NotDoneError, match="node 1 goes on leading and is not drained"):
        await node.draining.drain(1000)
    assert not node.draining.on


async def test_the_only_voter_goes_on() -> None:
    node = Node(membership(1, learners=(2,)), LEADER)
    with pytest.raises(NotDoneError, match="the only voter"):
        await node.draining.drain(1000)
    assert (node.asked, node.draining.on) == (0, False)


async def test_leadership_that_comes_after_the_drain_is_handed_over_now_and_then() -> None:
    node = Node(membership(1, 2, 3), FOLLOWER)
    await node.draining.drain(1000)
    asked = node.asked
    node.role_now, node.hands_over = LEADER, False
    node.draining.consider()
    await asyncio.sleep(0)
    assert node.asked == asked, "not at once after an attempt"
    for attempt in (1, 2):
        node.clock.now += AGAIN_SECONDS + 0.1
        for _ in range(3):
            node.draining.consider()
            await asyncio.sleep(0)
        assert node.asked == asked + attempt
    node.draining.end()
    node.clock.now += AGAIN_SECONDS + 0.1
    node.draining.consider()
    await asyncio.sleep(0)
    assert node.asked == asked + 2

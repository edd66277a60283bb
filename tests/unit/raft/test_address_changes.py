"""The leader lets the membership follow the registry, by one entry with the same members."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from metasrv.model.errors import ChangeInProgressError
from metasrv.model.types import Endpoint, Member, Membership, Node
from metasrv.raft.address_changes import AddressChanges
from metasrv.testing.hand_clock import HandClock
from tests.support.raft_bench import make_bench, member, membership

pytestmark = pytest.mark.virtual_time

NEW = Endpoint("127.0.0.1", 30_003)


class Bench:
    """A node that may lead; its changes are made at once, or refused while `busy`."""

    def __init__(self, directory: Path) -> None:
        self.engine = make_bench(directory).engine
        self.machine = SimpleNamespace(nodes={i: Node(i, member(i).endpoint, "", None) for i in (1, 2, 3)})
        self.clock = HandClock()
        self.leads, self.busy = True, False
        self.entries: list[Membership] = []
        given: Any = {"machine": self.machine, "changes": self}
        self.changes = AddressChanges(clock=self.clock, engine=self.engine, leads=lambda: self.leads, **given)

    def register(self, node_id: int, endpoint: Endpoint) -> None:
        self.machine.nodes = {**self.machine.nodes, node_id: Node(node_id, endpoint, "", None)}

    async def move(self, make: Any, timeout_ms: int) -> None:
        del timeout_ms
        if self.busy:
            raise ChangeInProgressError
        self.entries.append(make(self.engine.membership()))
        self.engine.adopt(self.entries[-1])

    async def steps(self) -> None:
        """Some steps of the driver, a second after the last ones."""
        self.clock.advance(1.0)
        for _ in range(5):
            self.changes.consider()
            await asyncio.sleep(0)


async def test_a_registered_address_becomes_the_one_of_the_membership_by_one_entry(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    await bench.steps()
    assert bench.entries == []
    bench.register(3, NEW)
    await bench.steps()
    await bench.steps()
    now = membership(1, 2, 3)
    assert bench.entries == [Membership({**now.voters, 3: Member(NEW, member(3).incarnation)}, {})]


async def test_only_the_leader_changes_it(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.leads = False
    bench.register(3, NEW)
    await bench.steps()
    assert bench.entries == []
    bench.leads = True
    await bench.steps()
    assert len(bench.entries) == 1


async def test_it_is_tried_again_while_another_change_is_under_way(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.busy = True
    bench.register(3, NEW)
    await bench.steps()
    await bench.steps()
    assert bench.entries == []
    bench.busy = False
    await bench.steps()
    assert len(bench.entries) == 1

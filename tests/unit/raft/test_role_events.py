"""Which events a node tells of elections, leaders, step-downs, members and stalls, and what it says of the reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from metasrv.model.events import EventKind
from metasrv.model.types import Membership
from metasrv.process.event_ring import EventRing
from metasrv.raft.core.messages import LeaderPing
from metasrv.raft.disk_stall import StalledPart
from metasrv.raft.role_events import RoleEvents
from tests.support.raft_bench import Bench, elect, make_bench, membership


class Disk:
    """A disk that stalls when the test says so."""

    def __init__(self) -> None:
        self.part: StalledPart | None = None

    def seconds(self) -> float:
        return 2.5

    def sentence(self) -> str | None:
        return None if self.part is None else "the disk stalls: a write of the raft log has not finished for 2.5 s"


class Machine:
    """The applied membership."""

    def __init__(self, applied: Membership) -> None:
        self.membership = applied


class World:
    """Node 2 of three, on a bench."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.disk = Disk()
        self.machine = Machine(bench.engine.membership())
        parts: dict[str, Any] = {"disk": self.disk, "machine": self.machine}
        self.events = EventRing(bench.clock)
        self.contacts: dict[int, float] = {}
        self.watch = RoleEvents(
            node_id=2,
            engine=bench.engine,
            guards=bench.guards,
            events=self.events,
            last_contact=self.contacts.get,
            timeouts_seconds=(0.4, 0.6),
            **parts,
        )
        self._told = 0

    def look(self, seconds: float = 0.025) -> list[tuple[str, str]]:
        """What is told by a look that many seconds later."""
        self.bench.clock.advance(seconds)
        self.watch.look(self.bench.clock.now)
        news, self._told = self.events.after(self._told), self.events.last_number
        return [(event.kind, event.text) for event in news]

    def hear(self, leader_id: int, term: int) -> None:
        self.contacts[leader_id] = self.bench.clock.now
        self.bench.guards.incoming(leader_id, LeaderPing(term, 0), self.bench.clock.now)

    def begin_election(self) -> None:
        """The election timer fires."""
        self.bench.engine.set_election_deadline(0.0)
        self.bench.guards.before_tick(self.bench.clock.now - 0.01)
        self.bench.engine.set_election_deadline(0.0)
        self.bench.guards.before_tick(self.bench.clock.now)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(make_bench(tmp_path))


def test_a_follower_says_who_leads_and_once(world: World) -> None:
    assert world.look() == []
    world.hear(3, 5)
    assert world.look() == [("leader", "node 3 leads in term 5")]
    world.hear(3, 5)
    assert world.look() == []
    world.hear(1, 6)
    assert world.look() == [("leader", "node 1 leads in term 6")]


def test_an_election_has_its_reason(world: World) -> None:
    world.hear(3, 5)
    world.look()
    world.bench.clock.advance(1.190)
    world.begin_election()
    assert world.look() == [("election", "node 2 begins an election: leader 3 not heard for 1,240 ms")]
    assert world.look() == []
    assert world.events.after(0)[-1].term == 5


def test_a_lost_connection_is_another_reason(world: World) -> None:
    world.hear(3, 5)
    world.look()
    world.bench.guards.leader_connection_lost(3, world.bench.clock.now)
    world.begin_election()
    assert world.look() == [("election", "node 2 begins an election: the connection of leader 3 was lost")]


def test_before_any_leader_was_heard_there_is_none_to_name(world: World) -> None:
    world.begin_election()
    assert world.look() == [("election", "node 2 begins an election: no leader has been heard since this node started")]


def test_too_few_voters_are_told_once_it_has_lasted(world: World) -> None:
    world.hear(3, 5)
    world.look()
    world.bench.engine.forget_leader()
    assert world.look(0.3) == [], "an election that is over soon is none"
    world.bench.clock.advance(1.0)
    assert world.look() == [("quorum", "1 of 3 voters heard, writes are refused")]
    assert world.look(1.0) == [], "not again while it lasts"
    world.hear(3, 5)
    assert world.look() == [], "the same leader is back"
    world.bench.engine.forget_leader()
    world.look()
    world.bench.clock.advance(1.0)
    world.contacts = dict.fromkeys((1, 3), world.bench.clock.now)
    world.watch._last_contact = world.contacts.get
    assert world.look() == [], "a majority is heard"


def test_a_planned_hand_over_is_told_as_one(world: World) -> None:
    world.hear(3, 5)
    world.look()
    elect(world.bench, world.bench.clock.now)
    term = world.bench.engine.term()
    assert world.look() == [("leader", f"node 2 leads in term {term}; node 3 handed over")]


def test_an_election_between_two_looks_is_told_by_what_it_left(world: World) -> None:
    world.hear(3, 5)
    world.look()
    world.bench.guards.leader_connection_lost(3, world.bench.clock.now)
    elect(world.bench, world.bench.clock.now)
    ((kind, text),) = world.look()
    assert (kind, text.partition("; ")[2]) == ("leader", "the connection of leader 3 was lost")


def test_a_step_down_has_its_reason(world: World) -> None:
    elect(world.bench, world.bench.clock.now)
    world.look()
    world.bench.engine.step_down()
    assert world.look()[0] == ("step_down", "node 2 no longer leads: 1 of 3 voters heard, writes are refused")
    elect(world.bench, world.bench.clock.now)
    world.look()
    world.contacts.update(dict.fromkeys((1, 3), world.bench.clock.now))
    world.bench.engine.step_down()
    assert world.look()[0] == ("step_down", "node 2 no longer leads: no majority of the voters answered in time")
    elect(world.bench, world.bench.clock.now)
    world.look()
    led = world.bench.engine.term()
    world.hear(1, led + 1)
    assert world.look() == [
        ("step_down", f"node 2 no longer leads: term {led + 1} has begun"),
        ("leader", f"node 1 leads in term {led + 1}"),
    ]
    assert world.events.after(0)[-2].term == led, "the term that it led"


def test_a_stalled_disk_and_its_end_are_told(world: World) -> None:
    elect(world.bench, world.bench.clock.now)
    world.look()
    world.disk.part = StalledPart.LOG
    world.bench.engine.step_down()
    assert [kind for kind, _ in world.look()] == ["step_down", "disk"]
    world.disk.part = None
    assert world.look() == [("disk", "the disk answers again, after 2.5 s")]


def test_members_that_come_and_go_are_told(world: World) -> None:
    world.machine.membership = membership(1, 2, 3, learners=(4,))
    assert world.look() == [("join", "node 4 joined as a learner, at 127.0.0.1:28104")]
    world.machine.membership = membership(1, 2, 3, 4)
    assert world.look() == [("join", "node 4 votes from now on")]
    world.machine.membership = membership(2, 3, 4)
    assert world.look() == [("leave", "node 1 left the cluster")]
    assert {event.kind for event in world.events.after(0)} <= set(EventKind)

"""Which events a node tells of elections, leaders, step-downs, members and stalls, and what it says of the reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from metasrv.model.events import EventKind
from metasrv.model.types import Membership
from metasrv.process.event_ring import EventRing
from metasrv.raft.core.messages import LeaderPing, PreVoteGranted, RequestVote, VoteGranted
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
            hands_over_to=lambda: self.target,
            **parts,
        )
        bench.elections = lambda step, node_id, term: self.watch.election(step, node_id, term, bench.clock.now)
        self.target: int | None = None
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
    world.bench.clock.advance(1.215)
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
    assert world.look() == [("quorum", "a leader is there and takes writes; too few were heard for 2.0 s")]
    world.bench.engine.forget_leader()
    world.look()
    world.bench.clock.advance(1.0)
    world.contacts = dict.fromkeys((1, 3), world.bench.clock.now)
    world.watch._last_contact = world.contacts.get
    assert world.look() == [], "a majority is heard"


def test_a_missing_quorum_is_said_again_at_a_slow_pace(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.hear(3, 5)
    world.look()
    world.bench.engine.forget_leader()
    with caplog.at_level("INFO", "metasrv.raft.story"):
        for _ in range(700):
            world.look(0.1)
    assert caplog.messages == [
        "1 of 3 voters heard, writes are refused",
        "1 of 3 voters heard for 31 s by now, writes are refused",
        "1 of 3 voters heard for 61 s by now, writes are refused",
    ]
    assert [(vars(record)["node"], vars(record)["term"]) for record in caplog.records] == [(2, 5)] * 3
    assert len(world.events.after(0)) == 2, "repetitions are lines of the log alone"
    world.contacts.update(dict.fromkeys((1, 3), world.bench.clock.now + 0.025))
    ((kind, text),) = world.look()
    assert (kind, text.partition(";")[0]) == ("quorum", "3 of 3 voters heard again, they can elect a leader")


def test_a_node_that_has_just_been_started_may_take_its_time_to_reach_the_others(world: World) -> None:
    for _ in range(29):
        assert world.look(0.1) == []
    assert world.look(0.3) == [("quorum", "1 of 3 voters heard, writes are refused")]


def test_a_step_down_for_a_transfer_is_none_to_worry_about(world: World) -> None:
    elect(world.bench, world.bench.clock.now)
    world.look()
    term = world.bench.engine.term()
    world.target = 3
    world.hear(3, term + 1)
    text = f"node 2 no longer leads: it hands over to node 3, term {term + 1} has begun"
    assert world.look()[0] == ("step_down", text)
    assert world.events.after(0)[-2].severity == "info"


def test_a_leader_that_stood_still_does_not_blame_the_others(world: World) -> None:
    elect(world.bench, world.bench.clock.now)
    world.look()
    world.bench.clock.advance(1.5)
    world.watch.look(world.bench.clock.now)
    world.bench.engine.step_down()
    text = "node 2 no longer leads: no majority of the voters could answer, while this process stood still for 1,500 ms"
    assert world.look()[0] == ("step_down", text)


def test_a_leader_tells_whom_it_no_longer_hears(world: World) -> None:
    elect(world.bench, world.bench.clock.now)
    world.look()
    told = []
    for number in range(60):
        world.bench.engine.note_response(1, world.bench.clock.now)
        if number > 40:
            world.bench.engine.note_response(3, world.bench.clock.now)
        told += world.look(0.1)
    assert told == [
        ("peer", "node 3 not heard for 600 ms: one more failure stops the cluster"),
        ("peer", "node 3 answers again, after 4.2 s"),
    ]


def test_nobody_is_blamed_for_what_this_process_did_not_read_while_it_stood_still(world: World) -> None:
    elect(world.bench, world.bench.clock.now)
    world.look()
    assert world.look(30.0) == []
    for node_id in (1, 3):
        world.bench.engine.note_response(node_id, world.bench.clock.now)
    assert world.look(0.1) == []


def test_the_steps_of_an_election_are_lines_of_the_log(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.hear(3, 5)
    world.look()
    world.bench.clock.advance(1.190)
    world.bench.engine._SyncObj__connectedNodes.update(world.bench.engine.otherNodes)
    with caplog.at_level("INFO", "metasrv.raft.story"):
        world.begin_election()
        world.bench.guards.incoming(1, PreVoteGranted(6), world.bench.clock.now)
        world.bench.guards.before_tick(world.bench.clock.now)
        world.bench.engine.doTick(0)
        world.bench.guards.incoming(1, VoteGranted(6), world.bench.clock.now)
        world.look()
    assert caplog.messages == [
        "node 2 begins an election: leader 3 not heard for 1,215 ms",
        "node 2 stands in term 6: a majority misses the leader too",
        "node 1 votes for node 2 in term 6",
        "node 2 leads in term 6, elected by nodes 1, 2; leader 3 not heard for 1,240 ms",
    ]
    assert {vars(record)["node"] for record in caplog.records} == {2}


def test_a_voter_says_for_whom_it_votes_and_why(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.hear(3, 5)
    world.look()
    world.bench.clock.advance(1.0)
    last = world.bench.store.last_index, world.bench.store.last_term
    with caplog.at_level("INFO", "metasrv.raft.story"):
        world.bench.guards.incoming(1, RequestVote(6, *last, False), world.bench.clock.now)
        world.bench.guards.incoming(3, RequestVote(6, *last, False), world.bench.clock.now)
        world.bench.guards.incoming(3, RequestVote(7, *last, True), world.bench.clock.now)
    assert caplog.messages == [
        "node 2 votes for node 1 in term 6: leader 3 not heard for 1,025 ms",
        "node 2 votes for node 3 in term 7: the leader hands over to it",
    ]


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

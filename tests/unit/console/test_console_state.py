"""What the console says: who is reached, how many may fail, what is wrong, and what stays unknown."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from metasrv.config.model import Config, RaftConfig
from metasrv.console.console import Console
from metasrv.console.problems import RUNBOOK_OF_CHECK
from metasrv.console.runbooks import runbook
from metasrv.model.errors import PeerUnreachableError
from metasrv.model.events import Event, EventKind, Severity
from metasrv.model.limits import EVENTS_ANSWERED_MAX, SUMMARY_EVENTS_MAX
from metasrv.model.reach import LAG_ENTRIES_MAX, tolerance
from metasrv.model.summary import WITHOUT_EVENTS, NodeSummary, SummaryAnswer, SummaryQuestion
from metasrv.model.types import LogId, Membership, PeerProgress, RaftState, RaftStatus, WriteLimits
from metasrv.node.context import NodeContext
from metasrv.node.directory_probe import DirectoryReport
from metasrv.node.health import DRAINED_TEXT
from metasrv.node.own_summary import OwnSummary
from metasrv.state.machine import StateMachine
from metasrv.testing.fake_consensus import FakeConsensus
from metasrv.testing.fake_node import fake_context, leader_status, sample_status
from metasrv.testing.hand_clock import HandClock

NEAR, FAR = 100, 60_000
HERE = LogId(67, 53067, 1)


class World:
    """Node 1 of three, and what the others answer."""

    def __init__(self, machine: StateMachine, tmp_path: Path) -> None:
        self.clock = HandClock(epoch_ms=1_700_000_000_000)
        config = Config(raft_config=RaftConfig(id=1, raft_dir=str(tmp_path)))
        self.context: NodeContext
        self.consensus: FakeConsensus
        self.context, self.consensus = fake_context(machine, config, sample_status(), self.clock)
        self.context.ask_summary = self.ask
        self.answers: dict[int, NodeSummary] = {}
        self.events: dict[int, tuple[Event, ...]] = {}
        self.questions: list[tuple[int, SummaryQuestion]] = []
        self.console = Console(self.context)
        self.context.directory = DirectoryReport(True, "the data directory can be written", 10**9, self.clock.now)

    async def ask(self, node_id: int, question: SummaryQuestion, timeout_ms: int) -> SummaryAnswer:
        assert timeout_ms > 0
        self.questions.append((node_id, question))
        if node_id not in self.answers:
            raise PeerUnreachableError(f"node {node_id} is not there")
        newer = tuple(event for event in self.events.get(node_id, ()) if event.number > question.number)
        return SummaryAnswer(self.answers[node_id], "run", newer[-SUMMARY_EVENTS_MAX:])

    def lead(self, second: int | None = NEAR, third: int | None = NEAR, lag: int = 0, **changes: Any) -> None:
        peers = (
            PeerProgress(2, HERE, second, True),
            PeerProgress(3, HERE._replace(index=HERE.index - lag), third, True),
        )
        self.consensus.current = leader_status(**{"peers": peers, **changes})

    async def state(self) -> dict[str, Any]:
        await self.console.look()
        return self.console.state()

    async def titles(self) -> list[str]:
        return [problem["title"] for problem in (await self.state())["problems"]]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    machine = StateMachine.open(str(tmp_path / "state.db"))
    yield World(machine, tmp_path)
    machine.close()


def summary(world: World, node_id: int, **changes: Any) -> NodeSummary:
    """As this node would say it of itself, for another one."""
    own = world.console.own.summary(world.consensus.status())
    return own._replace(**{"node_id": node_id, "role": "follower", "lags": (), "other_clusters": (), **changes})


# ----------------------------------------------------------------------------- reach


def held(status: RaftStatus, *heard: int, **lags: int) -> tuple[int | None, str]:
    given = tolerance(status, frozenset(heard), {int(name[1:]): lag for name, lag in lags.items()})
    return given.failures, given.text


def test_tolerance_counts_voters_that_are_heard_and_complete() -> None:
    leads = leader_status()
    assert held(leads, 2, 3) == (1, "one more failure is tolerated")
    assert held(leads, 2) == (0, "one more failure stops the cluster")
    assert held(leads, 2, 3, n3=LAG_ENTRIES_MAX) == (1, "one more failure is tolerated")
    assert held(leads, 2, 3, n3=LAG_ENTRIES_MAX + 1) == (0, "one more failure stops the cluster")
    assert held(leads) == (None, "1 of 3 voters heard, writes are refused")
    assert held(sample_status(leader_id=None), 2) == (None, "2 of 3 voters heard, and none of them leads")
    assert held(sample_status(membership=Membership())) == (None, "this node does not belong to a cluster yet")
    assert held(sample_status(removed="gone"), 2, 3) == (None, "this node is no longer a member of its cluster")
    alone = Membership({1: leads.membership.voters[1]})
    assert held(leader_status(membership=alone)) == (0, "there is one voter: its failure stops the cluster")


# ----------------------------------------------------------------------------- state


async def test_a_healthy_cluster_has_no_problems(world: World) -> None:
    world.lead()
    world.answers = {2: summary(world, 2, version="9.9.9"), 3: summary(world, 3)}
    state = await world.state()
    assert (state["schema"], state["answered_by"], state["problems"]) == (1, 1, [])
    assert state["cluster"]["leader_id"] == 1
    assert (state["cluster"]["voters"], state["cluster"]["learners"]) == ([1, 2, 3], [])
    assert (state["cluster"]["read_only"], state["cluster"]["empty"]) == (False, True)
    first, second, third = state["nodes"]
    assert [node["role"] for node in state["nodes"]] == ["leader", "follower", "follower"]
    assert (second["version"], second["lag_entries"], second["ready"]) == ("9.9.9", 0, True)
    assert (first["last_contact_ms"], first["summary_age_ms"]) == (None, None)
    assert third["checks"]
    assert {question for _, question in world.questions} == {SummaryQuestion("", 0)}


async def test_a_stopped_process_is_unreachable_although_its_connection_is_open(world: World) -> None:
    world.lead()
    world.answers = {2: summary(world, 2), 3: summary(world, 3, admin_address="10.0.0.3:28101")}
    await world.state()
    del world.answers[3]
    world.clock.advance(30.0)
    world.context.loop_beat_at = world.clock.now
    world.lead(third=FAR)
    state = await world.state()
    third = state["nodes"][2]
    assert (third["role"], third["reachable"]) == ("unreachable", False)
    assert (third["admin_address"], third["summary_age_ms"]) == ("10.0.0.3:28101", 30_000), "the last one is kept"
    assert (third["ready"], third["checks"], third["uptime_ms"]) == (None, [], None), "what may have changed is unknown"
    assert (state["cluster"]["failure_tolerance"], state["cluster"]["tolerance_text"]) == (
        0,
        "one more failure stops the cluster",
    )
    (problem,) = state["problems"]
    assert (problem["title"], problem["node_id"], problem["runbook"]) == ("Node 3 is silent", 3, "silent-node")
    assert "was not heard for 60.0 s" in problem["text"]


async def test_a_node_of_an_older_release_does_not_answer_and_its_numbers_are_unknown(world: World) -> None:
    world.lead()
    state = await world.state()
    second = state["nodes"][1]
    assert (second["role"], second["reachable"]) == ("follower", True)
    unknown = ("term", "version", "admin_address", "uptime_ms", "database_bytes", "log_bytes", "ready", "round_trip_ms")
    assert {second[name] for name in unknown} == {None}
    assert state["problems"] == []
    assert world.console.events()["missing_nodes"] == [2, 3]


async def test_a_node_alone_says_so(world: World) -> None:
    world.lead(FAR, None, state=RaftState.CANDIDATE, leader_id=None, has_quorum=False, leader_contact_ms=None)
    state = await world.state()
    assert [node["role"] for node in state["nodes"]] == ["candidate", "unreachable", "unreachable"]
    assert (state["cluster"]["read_only"], state["cluster"]["failure_tolerance"]) == (True, None)
    assert [problem["title"] for problem in state["problems"]] == ["No majority", "Node 2 is silent", "Node 3 is silent"]
    assert state["problems"][0]["text"].startswith("1 of 3 voters heard, writes are refused.")
    assert "since this node started" in state["problems"][2]["text"]


async def test_no_leader_with_a_majority_is_another_problem(world: World) -> None:
    world.lead(state=RaftState.FOLLOWER, leader_id=None, leader_contact_ms=None)
    assert await world.titles() == ["No leader"]


async def test_the_match_of_a_peer_is_unknown_until_it_answered(world: World) -> None:
    world.lead(peers=(PeerProgress(2, None, NEAR, True), PeerProgress(3, HERE, NEAR, True)))
    assert [node["lag_entries"] for node in (await world.state())["nodes"]] == [0, None, 0]


async def test_a_follower_shows_what_the_leader_knows(world: World) -> None:
    peers = (PeerProgress(2, None, NEAR, True), PeerProgress(3, None, NEAR, True))
    world.consensus.current = sample_status(peers=peers)
    world.answers = {2: summary(world, 2, role="leader", lags=((1, 0), (3, 4_000)))}
    state = await world.state()
    assert [node["role"] for node in state["nodes"]] == ["follower", "leader", "follower"]
    assert [node["lag_entries"] for node in state["nodes"]] == [0, 0, 4_000]
    (problem,) = state["problems"]
    assert (problem["title"], problem["runbook"]) == ("Node 3 lags behind", "lagging-node")


# ----------------------------------------------------------------------------- problems


async def test_each_fault_is_named(world: World) -> None:
    world.lead()
    world.context.directory = DirectoryReport(False, "the data directory x has 5 bytes left", 5, world.clock.now)
    assert await world.titles() == ["The disk of node 1 is full or cannot be written"]
    world.context.directory = None
    world.lead(disk_stall="the disk stalls: a write has not finished for 2.0 s", disk_stalled_seconds=2.0)
    assert await world.titles() == ["The disk of node 1 does not answer"]
    world.lead(clock_offset_ms=5_000)
    assert await world.titles() == ["The clock of node 1 is off"]
    world.lead(peers=(PeerProgress(2, HERE, NEAR, True, clock_offset_ms=9_000), PeerProgress(3, HERE, NEAR, True)))
    assert await world.titles() == [], "the node whose clock is off says so itself"
    world.lead(peers=(PeerProgress(2, HERE, None, False, "cafe"), PeerProgress(3, HERE, NEAR, True)))
    assert await world.titles() == ["Another cluster answers for node 2"]
    world.lead(removed="its id was given to another node")
    assert await world.titles() == ["Node 1 was removed from the cluster"]
    assert world.console.state()["cluster"]["read_only_reason"] == "this node is no longer a member of its cluster"
    world.lead()
    world.context.copies.peers[3] = "the copies of nodes 1 and 3 differ at entry 7"
    assert await world.titles() == ["Copies of the state differ"]


async def test_the_faults_of_other_nodes_are_named_as_well(world: World) -> None:
    world.lead()
    own = summary(world, 2)
    checks = tuple(
        check._replace(passed=False, reason="the disk stalls") if check.name == "disk" else check for check in own.checks
    )
    world.answers = {2: own._replace(checks=checks), 3: summary(world, 3, sync_microseconds=250_000)}
    assert await world.titles() == ["The disk of node 2 does not answer", "The disk of node 3 is slow"]
    del world.answers[2]
    world.lead(FAR)
    problems = {problem["title"]: problem for problem in (await world.state())["problems"]}
    silent, disk = problems["Node 2 is silent"], problems["The disk of node 2 does not answer"]
    assert silent["text"].endswith("It last said: the disk stalls."), "its last words say why it may be gone"
    assert (disk["severity"], disk["text"], disk["runbook"]) == (
        "critical",
        "It last said: the disk stalls.",
        "disk-stalls",
    )


async def test_a_node_that_ended_because_its_disk_was_full_is_told_from_one_that_is_only_silent(world: World) -> None:
    world.lead()
    full = "the data directory x cannot be written: No space left on device"
    said = {"engine": "the engine has stopped: the disk is full", "data_directory": full, "draining": "it shuts down"}
    checks = tuple(
        check._replace(passed=False, reason=said[check.name]) if check.name in said else check
        for check in summary(world, 2).checks
    )
    world.answers = {2: summary(world, 2)._replace(checks=checks), 3: summary(world, 3)}
    await world.state()
    del world.answers[2]
    world.lead(FAR)
    problems = (await world.state())["problems"]
    assert [(problem["title"], problem["runbook"]) for problem in problems] == [
        ("The disk of node 2 is full or cannot be written", "disk-full"),
        ("Node 2 is silent", "silent-node"),
    ]
    assert problems[0]["text"] == f"It last said: {full}."
    assert problems[1]["text"].endswith("It last said: the engine has stopped: the disk is full.")


async def test_limits_of_the_cluster_are_told_apart_from_a_missing_leader(world: World) -> None:
    world.lead()
    cluster = (await world.state())["cluster"]
    assert (cluster["read_only"], cluster["read_only_reason"], cluster["quota_bytes"]) == (False, None, None)
    world.lead(limits=WriteLimits("moving", 1_700_000_000_000, 0))
    state = await world.state()
    assert (state["cluster"]["read_only"], state["cluster"]["read_only_reason"]) == (True, "moving")
    (problem,) = state["problems"]
    assert (problem["severity"], problem["title"], problem["node_id"], problem["runbook"]) == (
        "warning",
        "The cluster is read-only",
        None,
        "quota",
    )
    since = "An operator turned writes off at 2023-11-14 22:13:20 UTC: moving"
    assert problem["text"] == f"{since}; `metactl cluster read-only off` takes them again."
    world.lead(leader_id=None)
    cluster = (await world.state())["cluster"]
    assert (cluster["read_only"], cluster["read_only_reason"]) == (True, "no leader is known")


async def test_a_quota_that_is_reached_is_named(world: World) -> None:
    for size_bytes, titles in (
        (799, []),
        (800, [("warning", "The quota is nearly used up")]),
        (1_000, [("critical", "The quota is used up")]),
    ):
        world.lead(limits=WriteLimits(None, 0, 1_000), data_size_bytes=size_bytes)
        state = await world.state()
        assert (state["cluster"]["data_bytes"], state["cluster"]["quota_bytes"]) == (size_bytes, 1_000)
        assert [(problem["severity"], problem["title"]) for problem in state["problems"]] == titles
        assert state["cluster"]["read_only"] is False


async def test_a_drained_node_is_named_and_one_that_stops_is_not(world: World) -> None:
    world.lead()
    own = summary(world, 2)

    def draining(node_id: int, reason: str) -> NodeSummary:
        checks = (each._replace(passed=False, reason=reason) if each.name == "draining" else each for each in own.checks)
        return own._replace(node_id=node_id, checks=tuple(checks))

    drained, stopping = f"{DRAINED_TEXT}; a restart ends that", "this node is shutting down"
    world.answers = {2: draining(2, drained), 3: draining(3, stopping)}
    state = await world.state()
    assert [node["draining"] for node in state["nodes"]] == [False, True, True]
    (problem,) = state["problems"]
    assert (problem["title"], problem["node_id"]) == ("Node 2 is drained", 2)
    assert problem["text"] == "An operator drained node 2; a restart ends that.", (
        "whoever reads it reads it at another node"
    )
    del world.answers[2]
    world.lead(FAR)
    state = await world.state()
    assert state["nodes"][1]["draining"] is None, "what a silent node was may have changed"


def test_every_runbook_that_is_named_exists() -> None:
    named = {*RUNBOOK_OF_CHECK.values(), "silent-node", "no-leader", "another-cluster", "slow-writes", "lagging-node"}
    for slug in named:
        assert (runbook(slug) or "").startswith("# "), slug
    assert [runbook(slug) for slug in ("nowhere", "../runbooks/no-leader", "", "no-leader.txt")] == [None] * 4


# ----------------------------------------------------------------------------- events of all nodes


def event(number: int, time_ms: int, text: str = "x", kind: str = "leader") -> Event:
    return Event(number, time_ms, kind, "info", text, 5)


async def test_events_of_all_nodes_are_merged_by_time_and_told_once(world: World) -> None:
    world.lead()
    world.answers = {2: summary(world, 2)}
    start = world.clock.wall_ms()
    world.events = {2: (event(1, start - 5, "before"), event(2, start + 5, "node 4 joined", "join"))}
    world.context.events.record(EventKind.JOIN, Severity.INFO, "node 4 joined")
    world.clock.advance(0.1)
    world.context.events.record(EventKind.LEADER, Severity.INFO, "after")
    await world.console.look()
    answer = world.console.events()
    assert [found["text"] for found in answer["events"]] == ["before", "node 4 joined", "after"]
    assert answer["events"][0]["id"] == "2-run-1"
    assert answer["missing_nodes"] == [3]
    assert [found["text"] for found in world.console.events(since_ms=start)["events"]] == ["node 4 joined", "after"]
    assert [found["text"] for found in world.console.events(limit=1)["events"]] == ["after"]
    assert [found["node_id"] for found in world.console.events(only_node=2)["events"]] == [2]
    world.clock.advance(5.0)
    await world.console.look()
    assert world.questions[-2:] == [(2, SummaryQuestion("run", 2)), (3, SummaryQuestion("", 0))], (
        "only news are asked for"
    )


async def test_answers_are_bounded(world: World) -> None:
    for number in range(EVENTS_ANSWERED_MAX):
        world.context.events.record(EventKind.LEADER, Severity.INFO, f"{number}")
    own = OwnSummary(world.context)
    newest = await own.answer(SummaryQuestion("", 0))
    assert len(newest.events) == SUMMARY_EVENTS_MAX
    assert newest.events[-1].number == EVENTS_ANSWERED_MAX
    assert (await own.answer(SummaryQuestion(newest.incarnation, EVENTS_ANSWERED_MAX - 1))).events == newest.events[-1:]
    assert len((await own.answer(SummaryQuestion("another run", EVENTS_ANSWERED_MAX))).events) == SUMMARY_EVENTS_MAX
    assert (await own.answer(WITHOUT_EVENTS)).events == ()
    assert len((await own.answer(SummaryQuestion("", 0, 3))).events) == 3
    world.lead()
    world.answers = {2: summary(world, 2)}
    for first in range(0, 1_500, SUMMARY_EVENTS_MAX):
        world.events = {2: tuple(event(first + n + 1, 1 + first + n) for n in range(SUMMARY_EVENTS_MAX))}
        world.clock.advance(5.0)
        await world.console.look()
    assert len(world.console.events(limit=10**9)["events"]) <= EVENTS_ANSWERED_MAX

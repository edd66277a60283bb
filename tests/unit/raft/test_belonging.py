"""A node that is out of its cluster learns it from the leader, never from a doubt, and says so for ever."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from metasrv.consensus import Place
from metasrv.model.errors import NotLeaderError, PeerUnreachableError, RequestError
from metasrv.model.types import Endpoint, Member, Membership, Node
from metasrv.process.data_directory import DataDirectory
from metasrv.raft.belonging import SURE_PAUSES, Belonging
from tests.support.raft_bench import make_bench, member, membership

pytestmark = pytest.mark.virtual_time

OUT, IN = Place(False, None), Place(True, None)
PAUSE_SECONDS = 0.6
ANOTHER = Member(Endpoint("10.0.0.9", 28103), "another directory")
GIVEN = Endpoint("given", 28103)


class Bench:
    """Node 2, a voter of three; `answers` has what each of the others says, by id or by host."""

    def __init__(self, root: Path, answers: Mapping[int | str, Place | RequestError] | None = None) -> None:
        self.raft = make_bench(root)
        self.directory = DataDirectory.open(str(root / "data"), 2)
        self.directory.identity = self.directory.identity.__class__(2, "directory-2", "cluster", True)
        self.answers = dict(answers or {})
        self.asked: list[int | str] = []
        self.leader: int | None = None
        self.dials = True
        self.said: list[str] = []
        self.machine = SimpleNamespace(membership=membership(1, 2, 3), nodes={})
        replica: Any = SimpleNamespace(
            node_id=2,
            machine=self.machine,
            guards=self.raft.guards,
            driver=SimpleNamespace(fatal=None),
            leads=lambda: self.leader == 2,
            leader_id=lambda: self.leader,
            resources=SimpleNamespace(
                directory=self.directory,
                settings=SimpleNamespace(election_timeout_max_ms=1000 * PAUSE_SECONDS, endpoint=member(2).endpoint),
            ),
            peers=SimpleNamespace(
                dial_nobody=self.dial_nobody, transport=SimpleNamespace(is_connected=lambda node_id: node_id == 1)
            ),
        )
        forwarding: Any = self
        self.belonging = Belonging(replica, forwarding)
        self.belonging.on_removed = self.said.append

    async def place(self, target: int | Endpoint, node_id: int, incarnation: str, timeout_ms: int, hops: int) -> Place:
        assert (node_id, incarnation, hops) == (2, "directory-2", 1)
        assert timeout_ms > 0
        key = target if isinstance(target, int) else f"{target.addr}:{target.port}"
        self.asked.append(key)
        answer = self.answers.get(key, PeerUnreachableError("refused"))
        if isinstance(answer, RequestError):
            raise answer
        return answer

    def dial_nobody(self) -> None:
        self.dials = False

    async def passes(self, pauses: float) -> None:
        """Watch for as many pauses."""
        self.belonging.start()
        await asyncio.sleep(pauses * PAUSE_SECONDS)
        self.belonging.stop()

    def is_out(self) -> bool:
        out = self.directory.identity.removed is not None
        assert out is bool(self.said) is self.raft.guards.silent is not self.dials
        return out


async def test_a_member_that_hears_a_leader_asks_it_now_and_then(tmp_path: Path) -> None:
    """The heartbeats that it hears may be meant for another directory, which has its id now."""
    bench = Bench(tmp_path, {1: IN})
    bench.leader = 1
    await bench.passes(SURE_PAUSES + 0.5)
    assert bench.asked == [1]
    bench.answers[1] = OUT
    await bench.passes(SURE_PAUSES - 0.5)
    assert not bench.is_out()
    await bench.passes(1.5)
    assert bench.asked == [1, 1]
    assert bench.is_out()


async def test_a_leader_asks_nobody(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {1: OUT})
    bench.leader = 2
    await bench.passes(5 * SURE_PAUSES)
    assert bench.asked == []


async def test_a_node_that_was_removed_learns_it_when_it_has_heard_no_leader_for_a_while(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(tmp_path, {"127.0.0.1:28103": OUT})
    await bench.passes(1.5)
    assert bench.asked == [], "an election may be under way"
    with caplog.at_level(logging.WARNING):
        await bench.passes(20)
    assert bench.asked == [1, "127.0.0.1:28103"], "once it knows, it asks no more"
    assert bench.is_out()
    assert bench.said == ["node 2 was removed from its cluster"]
    assert [record.levelname for record in caplog.records] == ["ERROR"], "one line"
    assert "NO LONGER A MEMBER: node 2 was removed from its cluster" in caplog.text


async def test_no_answer_and_no_leader_are_no_reason(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {1: NotLeaderError(None), "127.0.0.1:28103": IN})
    await bench.passes(20)
    assert len(bench.asked) > 10
    assert not bench.is_out()


async def test_a_node_whose_id_another_directory_has_says_where(tmp_path: Path) -> None:
    """It may hear the leader all the same: its own log says that it is out."""
    bench = Bench(tmp_path, {1: Place(False, ANOTHER.endpoint)})
    bench.leader = 1
    bench.machine.membership = Membership({1: member(1), 2: ANOTHER, 3: member(3)}, {})
    await bench.passes(1.5)
    assert bench.is_out()
    assert bench.said[0].endswith("its id belongs to another data directory now, at 10.0.0.9:28103")


async def test_what_its_own_log_says_may_be_old(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {1: IN})
    bench.leader = 1
    bench.machine.membership = membership(1, 3)
    await bench.passes(5)
    assert set(bench.asked) == {1, "127.0.0.1:28103"}
    assert not bench.is_out()


@pytest.mark.parametrize("known", [Membership(), membership(1, 3)], ids=["knows nobody", "not yet a member"])
async def test_a_node_that_asks_to_join_is_no_member_and_not_out(tmp_path: Path, known: Membership) -> None:
    bench = Bench(tmp_path, {1: OUT})
    bench.machine.membership = known
    bench.belonging.asks_to_join = bool(known.voters)
    await bench.passes(20)
    assert bench.asked == []
    assert not bench.is_out()


async def test_it_asks_where_the_others_are_registered_and_where_it_was_told_to_join(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.machine.nodes = {3: Node(3, Endpoint("moved", 28103), "", None)}
    bench.belonging.addresses = [GIVEN, member(2).endpoint]
    await bench.passes(2.5)
    assert bench.asked == [1, "given:28103", "moved:28103"]


def test_the_leader_says_who_is_a_member_with_which_directory(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.machine.membership = Membership({1: member(1), 2: member(2)}, {3: member(3), 4: ANOTHER})
    place = bench.belonging.place
    assert place(1, "directory-1") == IN
    assert place(3, "directory-3") == IN, "a learner by design is a member"
    assert place(5, "directory-5") == OUT
    assert place(4, "directory-4") == Place(False, ANOTHER.endpoint)
    bench.machine.nodes = {4: Node(4, GIVEN, "", None)}
    assert place(4, "directory-4") == Place(False, GIVEN)

"""Whose messages are taken when two nodes come with one id: those of the member, while it is heard."""

from __future__ import annotations

from pathlib import Path

import pytest

from metasrv.model.types import Endpoint
from metasrv.raft.core.engine import FOLLOWER, LEADER
from metasrv.raft.core.messages import AppendReply
from metasrv.raft.id_holders import IdHolders
from metasrv.raft.peers.handshake import RemoteIdentity
from tests.support.raft_bench import elect, make_bench, member

TIMEOUT_SECONDS = 0.6
SILENCE_SECONDS = 3 * TIMEOUT_SECONDS


class Bench:
    """Node 2 of three, and what its connections tell about node 3."""

    def __init__(self, directory: Path) -> None:
        self.raft = make_bench(directory)
        self.directory: str | None = None
        self.heard_at: float | None = None
        self.holders = IdHolders(
            clock=self.raft.clock,
            engine=self.raft.engine,
            registered=lambda _node_id: None,
            directory_of=lambda _node_id: self.directory,
            last_contact=lambda _node_id: self.heard_at,
            election_timeout_max_seconds=TIMEOUT_SECONDS,
        )

    def refusal(self, node_id: int | None, incarnation: str) -> str | None:
        remote = RemoteIdentity(node_id, incarnation, Endpoint("10.0.0.9", 28103), "cluster")
        return self.holders.refuse_foreign(remote)

    def heard(self, directory: str) -> None:
        self.directory, self.heard_at = directory, self.raft.clock.monotonic()


def test_a_leader_refuses_another_directory_while_the_member_answers(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    raft = bench.raft
    elect(raft, 1.0)
    assert raft.engine.role() == LEADER
    raft.clock.advance(60.0)
    raft.guards.incoming(3, AppendReply(raft.engine.term(), 1, False, False, 0), raft.clock.monotonic())
    refusal = bench.refusal(3, "another directory")
    assert refusal == f"node id 3 is in use by the node at {member(3).endpoint}, which has another data directory"
    raft.clock.advance(SILENCE_SECONDS)
    assert bench.refusal(3, "another directory") is not None
    raft.clock.advance(0.1)
    assert bench.refusal(3, "another directory") is None


def test_a_follower_goes_by_what_the_member_sends(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    assert bench.raft.engine.role() == FOLLOWER
    assert bench.refusal(3, "another directory") is None, "the member has not been heard"
    bench.heard("directory-3")
    assert bench.refusal(3, "another directory") is not None
    bench.raft.clock.advance(SILENCE_SECONDS + 0.1)
    assert bench.refusal(3, "another directory") is None
    bench.heard("another directory")
    assert bench.refusal(3, "another directory") is None, "what was let in meanwhile is not the member"


@pytest.mark.parametrize(("node_id", "incarnation"), [(3, "directory-3"), (4, "a joiner's"), (None, "")])
def test_the_member_itself_and_strangers_are_let_in(tmp_path: Path, node_id: int | None, incarnation: str) -> None:
    bench = Bench(tmp_path)
    bench.heard("directory-3")
    assert bench.refusal(node_id, incarnation) is None

"""Whose raft messages a node takes: leaders and candidates may be outside of the configuration that it has.

A leader that was deposed with an uncommitted removal in its log must still hear the new leader, also when that is the
very node it was about to remove; and a node that lags must hear a leader that was added meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from metasrv.model.types import Endpoint, Node
from metasrv.raft.core.messages import (
    AppendEntries,
    AppendReply,
    HigherTerm,
    LeaderPing,
    LeaderSeen,
    Message,
    PreVote,
    PreVoteGranted,
    RequestVote,
    SnapshotChunk,
    VoteGranted,
    encode_message,
    is_answer,
)
from metasrv.raft.observer import SilentObserver
from metasrv.raft.peer_set import Peers
from metasrv.raft.peers.handshake import LocalIdentity, RemoteIdentity
from metasrv.raft.peers.security import PeerSecurity
from metasrv.testing.hand_clock import HandClock
from tests.support.raft_bench import change, make_bench, member, membership

REQUESTS: list[Message] = [
    AppendEntries(9, 0, 1, 0, (), 0),
    LeaderPing(9, 0),
    SnapshotChunk(9, 0, "t", 0, 1, "", b"x"),
    RequestVote(9, 5, 5, False),
    PreVote(9, 5, 5),
]
ANSWERS: list[Message] = [
    AppendReply(9, 5, True, False, 0),
    LeaderSeen(9, 0),
    VoteGranted(9),
    PreVoteGranted(9),
    HigherTerm(9),
]


class FakeTransport:
    """Knows the addresses of whoever shook hands, and remembers whom it is to dial."""

    def __init__(self) -> None:
        self.endpoints: dict[int, Endpoint] = {}
        self.peers: Mapping[int, Endpoint] = {}

    def set_peers(self, endpoints: Mapping[int, Endpoint]) -> None:
        self.peers = dict(endpoints)

    def known_endpoint(self, node_id: int) -> Endpoint | None:
        return self.endpoints.get(node_id)

    def hurry(self, node_id: int) -> None:
        del node_id


class FakeDriver:
    def __init__(self) -> None:
        self.taken: list[int] = []

    def incoming(self, node_id: int, payload: bytes) -> bool:
        del payload
        self.taken.append(node_id)
        return True


class Bench:
    """Node 2's peers; node 1 is registered, but the newest entry of node 2's log, not committed, removes it."""

    def __init__(self, directory: Path) -> None:
        before, after = membership(1, 2, 3), membership(2, 3)
        bench = make_bench(directory, entries=[(change(before, after), 2, 1)])
        bench.engine.adopt(after)
        self.transport, self.driver = FakeTransport(), FakeDriver()
        self.refuse: Callable[[RemoteIdentity], str | None] = lambda _remote: None
        local = LocalIdentity(2, "directory-2", Endpoint("127.0.0.1", 28102), "cluster")
        make_transport: Any = lambda *_: self.transport  # noqa: E731
        nodes = {1: Node(1, member(1).endpoint, "", None)}
        parts = {"driver": self.driver, "snapshots": SimpleNamespace(), "machine": SimpleNamespace(nodes=nodes)}
        node: Any = SimpleNamespace(engine=bench.engine, guards=bench.guards, **parts)
        self.peers = Peers(
            node,
            local,
            PeerSecurity(),
            SilentObserver(),
            HandClock(),
            answer_nothing,
            lambda remote: self.refuse(remote),
            make_transport,
        )
        bench.membership_changed = self.peers.membership_changed
        self.peers.refresh()

    def hear(self, node_id: int, message: Message, incarnation: str | None = None) -> None:
        self.peers.admit(
            RemoteIdentity(node_id, incarnation or f"directory-{node_id}", member(node_id).endpoint, "cluster")
        )
        self.peers.message_received(node_id, 1, encode_message(message))


async def answer_nothing(method: str, payload: bytes) -> bytes:
    del method, payload
    return b""


@pytest.mark.parametrize("message", REQUESTS, ids=lambda message: type(message).__name__)
def test_a_leader_that_was_to_be_removed_is_heard_and_answered(tmp_path: Path, message: Message) -> None:
    bench = Bench(tmp_path)
    assert set(bench.transport.peers) == {3}
    bench.hear(1, message)
    assert bench.driver.taken == [1]
    assert bench.transport.peers[1] == member(1).endpoint, "so that it can be answered"


def test_a_leader_that_was_added_meanwhile_is_heard_and_answered(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.transport.endpoints[4] = Endpoint("127.0.0.1", 28104)
    bench.hear(4, REQUESTS[0])
    assert bench.driver.taken == [4]
    assert bench.transport.peers[4] == Endpoint("127.0.0.1", 28104)


def test_a_leader_with_a_new_directory_is_heard(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.hear(3, REQUESTS[0], incarnation="another directory")
    assert bench.driver.taken == [3]


def test_a_node_that_is_refused_does_not_take_the_place_of_the_member(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.hear(3, ANSWERS[0])
    bench.refuse = lambda remote: "in use" if remote.incarnation == "another directory" else None
    foreign = RemoteIdentity(3, "another directory", Endpoint("10.0.0.9", 28103), "cluster")
    assert bench.peers.admit(foreign) == "in use"
    bench.peers.message_received(3, 1, encode_message(ANSWERS[0]))
    assert bench.driver.taken == [3, 3], "answers of the member go on to count"


def test_a_node_that_is_out_dials_nobody_whatever_it_hears(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.peers.dial_nobody()
    assert bench.transport.peers == {}
    bench.hear(1, REQUESTS[0])
    assert bench.transport.peers == {}


@pytest.mark.parametrize("message", ANSWERS, ids=lambda message: type(message).__name__)
def test_answers_of_a_stranger_do_not_count(tmp_path: Path, message: Message) -> None:
    bench = Bench(tmp_path)
    bench.hear(1, message)
    bench.hear(3, message, incarnation="another directory")
    assert bench.driver.taken == []
    bench.hear(3, message)
    assert bench.driver.taken == [3]


def test_what_is_no_message_counts_as_an_answer() -> None:
    assert is_answer(b"")
    assert is_answer(b"\x95")
    assert all(is_answer(encode_message(message)) for message in ANSWERS)
    assert not any(is_answer(encode_message(message)) for message in REQUESTS)

"""Where members are dialled: where they say that they are once they have proved it, else where the log has them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from metasrv.model.errors import PeerUnreachableError
from metasrv.model.types import Endpoint, Node
from metasrv.raft.member_search import MemberSearch
from metasrv.raft.observer import SilentObserver
from metasrv.raft.peer_set import Peers
from metasrv.raft.peers.handshake import AcceptorHandshake, DiallerHandshake, LocalIdentity, RemoteIdentity, Role
from metasrv.raft.peers.security import NONCE_SIZE_BYTES, PeerSecurity
from metasrv.testing.hand_clock import HandClock
from tests.support.raft_bench import make_bench, member

OLD = member(3).endpoint
NEW = Endpoint("127.0.0.1", 30_003)
THIRD = Endpoint("127.0.0.1", 31_003)


class FakeTransport:
    """Remembers whom it is to dial."""

    def __init__(self) -> None:
        self.peers: Mapping[int, Endpoint] = {}
        self.connected: dict[int, Endpoint] = {}

    def set_peers(self, endpoints: Mapping[int, Endpoint]) -> None:
        self.peers = dict(endpoints)

    def is_connected(self, node_id: int) -> bool:
        return node_id in self.connected

    def known_endpoint(self, node_id: int) -> Endpoint | None:
        return self.connected.get(node_id)

    def hurry(self, node_id: int) -> None:
        del node_id


class Bench:
    """The peers of node 2, a member of a cluster of three."""

    def __init__(self, directory: Path) -> None:
        bench = make_bench(directory)
        self.engine, self.transport, self.machine = bench.engine, FakeTransport(), SimpleNamespace(nodes={})
        local = LocalIdentity(2, "directory-2", member(2).endpoint, "cluster")
        make_transport: Any = lambda *_: self.transport  # noqa: E731
        driver = SimpleNamespace(greet=lambda: None)
        snapshots = SimpleNamespace(peer_gone=lambda _node_id: None)
        parts = {"driver": driver, "snapshots": snapshots, "machine": self.machine}
        node: Any = SimpleNamespace(engine=bench.engine, guards=bench.guards, **parts)
        self.peers = Peers(
            node,
            local,
            PeerSecurity(),
            SilentObserver(),
            HandClock(),
            answer_nothing,
            lambda _remote: None,
            make_transport,
        )
        bench.membership_changed = self.peers.membership_changed
        self.peers.refresh()

    def register(self, *places: tuple[int, Endpoint]) -> None:
        self.machine.nodes = {i: Node(i, endpoint, "", None) for i, endpoint in places}
        self.peers.note_registry(self.machine.nodes)


async def answer_nothing(method: str, payload: bytes) -> bytes:
    del method, payload
    return b""


def remote(endpoint: Endpoint, **changed: Any) -> RemoteIdentity:
    given: dict[str, Any] = {"node_id": 3, "incarnation": "directory-3", "endpoint": endpoint, "cluster_id": "cluster"}
    return RemoteIdentity(**{**given, **changed})


def test_a_member_that_dials_from_another_address_is_answered_there_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(tmp_path)
    bench.register((3, OLD))
    assert bench.transport.peers[3] == OLD
    for _ in range(3):
        assert bench.peers.admit(remote(NEW)) is None
    assert bench.transport.peers == {1: member(1).endpoint, 3: NEW}
    said = [record.getMessage() for record in caplog.records]
    assert [str(NEW) in line and str(OLD) in line for line in said] == [True], "once, with both addresses"


async def test_a_member_that_only_asks_is_answered_there_too(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    await bench.peers.request_received(remote(NEW), "places", b"")
    assert bench.transport.peers[3] == NEW


@pytest.mark.parametrize(
    "changed",
    [
        {"incarnation": "another directory"},
        {"cluster_id": None},
        {"node_id": 4},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_who_has_not_proved_to_be_the_member_moves_nobody(tmp_path: Path, changed: dict[str, Any]) -> None:
    bench = Bench(tmp_path)
    bench.peers.admit(remote(NEW, **changed))
    assert bench.transport.peers == {1: member(1).endpoint, 3: OLD}


def test_a_member_without_the_secret_is_believed_once_nobody_answers_for_it_elsewhere(tmp_path: Path) -> None:
    """While a secret is rolled out some members cannot prove themselves, and must not be locked out when they move."""
    bench = Bench(tmp_path)
    bench.transport.connected[3] = OLD
    bench.peers.admit(remote(NEW, proven=False))
    assert bench.transport.peers[3] == OLD, "a proven member answers there"
    del bench.transport.connected[3]
    bench.peers.peer_disconnected(3)
    assert bench.transport.peers[3] == NEW


def test_a_node_of_another_cluster_is_refused_and_moves_nobody(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    assert "not other" in (bench.peers.admit(remote(NEW, cluster_id="other")) or "")
    assert bench.transport.peers[3] == OLD


def test_the_log_counts_again_once_it_says_something_else_and_the_member_is_silent(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.register((3, OLD))
    bench.peers.admit(remote(NEW))
    bench.register((3, THIRD))
    assert bench.transport.peers[3] == NEW, "as long as its connection is open it knows better"
    bench.peers.peer_lost(3)
    assert bench.transport.peers[3] == NEW
    bench.register((3, OLD))
    assert bench.transport.peers[3] == OLD


def test_a_member_admitted_with_another_directory_is_where_that_one_is(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.peers.admit(remote(NEW))
    now = bench.engine.membership()
    voters = {**now.voters, 3: now.voters[3]._replace(incarnation="another directory", endpoint=THIRD)}
    bench.engine.adopt(type(now)(voters, now.learners))
    assert bench.transport.peers[3] == THIRD


def test_hearsay_moves_only_members_that_are_not_reached(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.transport.connected[1] = member(1).endpoint
    elsewhere = Endpoint("127.0.0.1", 30_001)
    bench.peers.told({1: elsewhere, 2: elsewhere, 3: NEW, 9: elsewhere})
    assert bench.transport.peers == {1: member(1).endpoint, 3: NEW}
    assert list(bench.peers.places().items()) == [(1, member(1).endpoint), (2, member(2).endpoint)]


# ----------------------------------------------------------------------------- the proof


@pytest.mark.parametrize(("caller_secret", "proven"), [("s", True), (None, False)])
def test_a_caller_without_the_secret_is_not_proven(caller_secret: str | None, proven: bool) -> None:
    def security(secret: str | None) -> PeerSecurity:
        return PeerSecurity(secret=None if secret is None else secret.encode(), strict=False)

    nonce = bytes(NONCE_SIZE_BYTES)
    caller = LocalIdentity(3, "directory-3", NEW, "cluster")
    dialler = DiallerHandshake(caller, security(caller_secret), Role.PEER, nonce)
    acceptor = AcceptorHandshake(LocalIdentity(2, "directory-2", OLD, "cluster"), security("s"), nonce)
    seen, _ = acceptor.proved(dialler.challenged(acceptor.greeted(dialler.hello())))
    assert (seen.endpoint, seen.proven) == (NEW, proven)


# ----------------------------------------------------------------------------- the search


class FakeForwarding:
    """Answers of some addresses; the others are silent."""

    def __init__(self, answers: dict[Endpoint | int, dict[int, Endpoint]]) -> None:
        self.answers = answers
        self.asked: list[Endpoint | int] = []

    async def places(self, target: Endpoint | int, timeout_ms: int) -> dict[int, Endpoint]:
        del timeout_ms
        self.asked.append(target)
        if target not in self.answers:
            raise PeerUnreachableError("it is silent")
        return self.answers[target]


def search(bench: Bench, forwarding: Any, *hints: Endpoint, leader_id: int | None = None) -> MemberSearch:
    return MemberSearch(
        clock=HandClock(),
        engine=bench.engine,
        peers=bench.peers,
        forwarding=forwarding,
        leader_id=lambda: leader_id,
        hints=hints,
        patience_seconds=1.0,
    )


async def test_hints_are_asked_and_what_a_node_says_of_itself_counts_more_than_hearsay(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    first = Endpoint("127.0.0.1", 30_001)
    forwarding = FakeForwarding({NEW: {1: first, 3: NEW}, THIRD: {3: OLD, 1: THIRD}})
    await search(bench, forwarding, NEW, THIRD, member(2).endpoint).ask()
    assert forwarding.asked == [NEW, THIRD, member(1).endpoint, OLD], "but never itself"
    assert bench.transport.peers == {1: THIRD, 3: NEW}


async def test_members_that_are_reached_are_asked_where_the_others_are(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.transport.connected[1] = member(1).endpoint
    forwarding = FakeForwarding({1: {3: NEW, 1: member(1).endpoint}})
    await search(bench, forwarding).ask()
    assert forwarding.asked == [1, OLD]
    assert bench.transport.peers == {1: member(1).endpoint, 3: NEW}


async def test_a_missing_member_is_looked_for_also_while_there_is_a_leader(tmp_path: Path) -> None:
    """It may know nobody's present address, so that it hears of this node only by being asked (R15)."""
    bench = Bench(tmp_path)
    bench.transport.connected[1] = member(1).endpoint
    forwarding = FakeForwarding({NEW: {3: NEW}})
    await search(bench, forwarding, member(1).endpoint, NEW, leader_id=1).ask()
    assert forwarding.asked == [1, NEW, OLD]
    assert bench.transport.peers[3] == NEW


async def test_nobody_is_asked_while_every_member_is_reached(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.transport.connected.update({1: member(1).endpoint, 3: OLD})
    forwarding = FakeForwarding({})
    await search(bench, forwarding, NEW, leader_id=1).ask()
    assert forwarding.asked == []
    await search(bench, forwarding, NEW).ask()
    assert forwarding.asked == [1, 3, NEW], "there may be members that it does not know"

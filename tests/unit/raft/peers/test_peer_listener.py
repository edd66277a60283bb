"""Accepted connections of one node: which is the current one, how many there may be, what is logged."""

from __future__ import annotations

import logging

import pytest

from metasrv.model.limits import LOGGED_SUBJECTS_MAX, PEER_CONNECTIONS_MAX, PEER_CONNECTIONS_RESERVED
from metasrv.model.types import Endpoint
from metasrv.raft.observer import SilentObserver
from metasrv.raft.peers.accepted_connection import AcceptedConnection
from metasrv.raft.peers.contacts import PeerContacts
from metasrv.raft.peers.dialled_connection import DialledConnection
from metasrv.raft.peers.frames import FrameKind
from metasrv.raft.peers.handshake import LocalIdentity, RemoteIdentity, Role
from metasrv.raft.peers.listener import PeerListener
from metasrv.raft.peers.peer_handler import OneShotHandler
from metasrv.raft.peers.quiet_log import REPEAT_AFTER_SECONDS, QuietLog
from metasrv.raft.peers.security import PeerSecurity
from metasrv.testing.hand_clock import HandClock
from metasrv.testing.memory_stream import MemoryStream, MemoryTransport


class Node(OneShotHandler):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []
        self.refusal: str | None = None

    def peer_lost(self, node_id: int) -> None:
        self.told.append(("lost", node_id))

    def message_arrives(self, node_id: int) -> None:
        self.told.append(("arrives", node_id))

    def message_received(self, node_id: int, generation: int, payload: bytes) -> None:
        self.told.append((node_id, generation, payload))

    def admit(self, remote: RemoteIdentity) -> str | None:
        self.told.append(("admit", remote.node_id, remote.incarnation))
        return self.refusal


class Events:
    """An owner of diallers that needs to know nothing."""

    def established(self, connection: object) -> None:
        del connection

    flow_changed = lost = established

    def sent(self, connection: object, size_bytes: int) -> None:
        del connection, size_bytes

    received = sent


class World:
    """One listening node, and callers over streams in memory."""

    def __init__(self, security: PeerSecurity | None = None) -> None:
        self.node, self.clock = Node(), HandClock(100.0)
        self.contacts = PeerContacts(self.clock)
        self.security = security or PeerSecurity()
        identity = LocalIdentity(9, "data-9", Endpoint("me", 9), "c1")
        self.listener = PeerListener(identity, self.security, self.node, SilentObserver(), self.clock, self.contacts)

    def call(
        self, node_id: int | None, incarnation: str = "data", role: Role = Role.PEER, security: PeerSecurity | None = None
    ) -> tuple[DialledConnection, AcceptedConnection, MemoryStream]:
        identity = LocalIdentity(node_id, incarnation, Endpoint(f"host-{node_id}", 1), "c1")
        dialler = DialledConnection(identity, security or self.security, role, 9, Events())
        acceptor = self.listener.new_connection()
        return dialler, acceptor, MemoryStream(dialler, acceptor)


async def test_a_newer_connection_replaces_the_older_one_before_its_first_message() -> None:
    world = World()
    first, first_end, first_stream = world.call(1)
    await first_stream.pump()
    first.send_raft(b"old 1")
    await first_stream.pump()
    first.send_raft(b"old 2")  # on its way when the newer connection begins
    second, second_end, second_stream = world.call(1, "data")
    await second_stream.pump()
    assert first_end.failure == "a newer connection of the same node replaced it"
    second.send_raft(b"new 1")
    await second_stream.pump()
    await first_stream.pump()
    assert second_end.generation > first_end.generation
    messages = [entry for entry in world.node.told if entry[0] == 1]
    assert messages == [(1, first_end.generation, b"old 1"), (1, second_end.generation, b"new 1")]
    assert ("lost", 1) not in world.node.told
    second.abort("gone")
    await second_stream.pump()
    assert world.node.told[-1] == ("lost", 1)
    assert world.listener.connections == ()


async def test_a_large_message_is_told_of_while_it_arrives_from_a_peer_alone() -> None:
    world = World()
    for node_id, role in ((1, Role.PEER), (2, Role.CLIENT)):
        dialler, _, stream = world.call(node_id, role=role)
        await stream.pump()
        dialler._send(FrameKind.RAFT, bytes(1024 * 1024))
        await stream.pump(100_000)
    arrivals = [entry[1] for entry in world.node.told if entry[0] == "arrives"]
    assert set(arrivals) == {1}
    assert len(arrivals) > 1


async def test_an_older_connection_that_finishes_its_handshake_late_does_not_replace_the_newer_one() -> None:
    world = World()
    late, _, late_stream = world.call(1)
    _, current, stream = world.call(1)
    await stream.pump()
    await late_stream.pump()
    assert await late.ready == "it refused: a newer connection of node 1 is open"
    assert current.is_open


async def test_a_restarted_peer_is_admitted_anew_with_its_new_incarnation() -> None:
    world = World()
    for incarnation in ("before", "after"):
        _, _, stream = world.call(1, incarnation)
        await stream.pump()
    assert world.node.told == [("admit", 1, "before"), ("admit", 1, "after")]
    assert world.contacts.endpoint(1) == Endpoint("host-1", 1)


async def test_clients_are_not_asked_for_admission_and_replace_nothing() -> None:
    world = World()
    _, peer, peer_stream = world.call(1)
    await peer_stream.pump()
    for node_id in (1, None):
        client, client_end, stream = world.call(node_id, role=Role.CLIENT)
        await stream.pump()
        assert client_end.is_open
        client.close("done")
        await stream.pump()
    assert peer.is_open
    assert world.node.told == [("admit", 1, "data")]


async def test_a_refused_node_leaves_no_trace() -> None:
    world = World()
    world.node.refusal = "node 1 is not a member"
    dialler, _, stream = world.call(1)
    await stream.pump()
    assert await dialler.ready == "it refused: node 1 is not a member"
    assert world.contacts.last_contact(1) is None
    assert world.listener.connections == ()
    assert ("lost", 1) not in world.node.told


async def test_contact_is_the_time_of_the_last_bytes() -> None:
    world = World()
    dialler, _, stream = world.call(1)
    await stream.pump()
    assert world.contacts.last_contact(1) == 100.0
    world.clock.now = 105.0
    dialler.send_raft(b"x")
    await stream.pump()
    assert world.contacts.last_contact(1) == 105.0


async def test_connections_at_their_limit_and_one_past_it() -> None:
    world = World()
    ends = []
    for _ in range(PEER_CONNECTIONS_MAX + 1):
        acceptor = world.listener.new_connection()
        transport = MemoryTransport(acceptor, "stranger")
        acceptor.connection_made(transport)
        ends.append((acceptor, transport))
    assert [transport.aborted for _, transport in ends] == [True] + [False] * PEER_CONNECTIONS_MAX
    assert ends[0][0].failure == "it had not finished its handshake, and made room for a newer connection"
    ends[0][1].lose()
    dialler, member, stream = world.call(1)
    await stream.pump()
    assert dialler.is_open, "a member finds room among strangers who say nothing"
    assert ends[1][1].aborted
    for _ in range(PEER_CONNECTIONS_MAX):
        acceptor = world.listener.new_connection()
        acceptor.connection_made(MemoryTransport(acceptor, "stranger"))
        ends.append((acceptor, MemoryTransport(acceptor, "stranger")))
    assert not member.closed, "it keeps its place"
    dialler.abort("the test is over")
    for acceptor, _ in ends:
        acceptor.abort("the test is over")


async def test_callers_that_are_no_peers_leave_room_for_the_peers() -> None:
    world = World()
    limit = PEER_CONNECTIONS_MAX - PEER_CONNECTIONS_RESERVED
    diallers = []
    for number in range(limit + 1):
        dialler, _, stream = world.call(100 + number, role=Role.CLIENT)
        await stream.pump()
        diallers.append(dialler)
    assert [dialler.is_open for dialler in diallers] == [True] * limit + [False]
    assert "callers that are no peers already" in str(diallers[-1].failure)
    member, _, stream = world.call(1)
    await stream.pump()
    assert member.is_open
    for dialler in (*diallers, member):
        dialler.abort("the test is over")


async def test_a_wrong_secret_is_logged_once_not_at_every_attempt(caplog: pytest.LogCaptureFixture) -> None:
    world = World(PeerSecurity(b"right"))
    for _ in range(5):
        _, _, stream = world.call(1, security=PeerSecurity(b"wrong"))
        await stream.pump()
    assert [record.getMessage() for record in caplog.records] == [
        "a connection from right to the raft port came to nothing: "
        "the shared secret (raft_secret) of this node and of the caller differ"
    ]


async def test_a_peer_without_the_secret_is_let_in_and_logged_while_it_is_rolled_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World(PeerSecurity(b"secret", strict=False))
    for _ in range(3):
        _, end, stream = world.call(1, security=PeerSecurity())
        await stream.pump()
        assert end.is_open
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [
        "node 1 at right was let in without the shared secret, because raft_secret_strict is off"
    ]


# ----------------------------------------------------------------------------- the log


def test_a_fault_is_written_when_it_is_new_and_then_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    clock = HandClock()
    log = QuietLog(logging.getLogger("test"), clock)
    for _ in range(3):
        log.warn("peer", "refused")
    log.warn("peer", "timed out")
    log.warn("another", "refused")
    clock.now += REPEAT_AFTER_SECONDS - 1
    log.warn("peer", "timed out")
    clock.now += 1
    log.warn("peer", "timed out")
    assert caplog.messages == [
        "refused",
        "timed out (before that, the last line would have come 2 more times)",
        "refused",
        "timed out (and 1 more since the last line)",
    ]


def test_a_stranger_can_not_fill_the_log_with_ever_new_sentences(caplog: pytest.LogCaptureFixture) -> None:
    log = QuietLog(logging.getLogger("test"), HandClock())
    for number in range(10):
        log.warn("stranger", f"a frame of {number} bytes", whenever_it_changes=False)
    assert caplog.messages == ["a frame of 0 bytes"]


def test_recovery_is_written_unless_the_fault_comes_and_goes(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    log = QuietLog(logging.getLogger("test"), HandClock())
    log.recovered("peer", "connected")
    for _ in range(3):
        log.warn("peer", "ended")
        log.recovered("peer", "connected")
    assert caplog.messages == ["connected", "ended", "connected"]


def test_the_memory_of_faults_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    log = QuietLog(logging.getLogger("test"), HandClock())
    for subject in range(LOGGED_SUBJECTS_MAX + 1):
        log.warn(subject, "fault")
    assert len(log._last) == LOGGED_SUBJECTS_MAX
    log.warn(LOGGED_SUBJECTS_MAX, "fault")
    log.warn(0, "fault")
    assert len(caplog.messages) == LOGGED_SUBJECTS_MAX + 2

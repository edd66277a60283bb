"""The peer transport over loopback sockets: dialling, redialling, requests, TLS, strangers, shutting down."""

from __future__ import annotations

import asyncio
import itertools
import socket
import time
from asyncio.selector_events import _SelectorSocketTransport  # type: ignore[attr-defined]
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from metasrv.model.errors import (
    BindError,
    NotDoneError,
    NotLeaderError,
    PeerUnreachableError,
    StoppingError,
    TooLargeError,
    UnknownOutcomeError,
)
from metasrv.model.limits import MIB, PEER_BUFFER_SIZE_BYTES_MAX, PEER_CONNECTIONS_MAX, PEER_REQUESTS_ASIDE_MAX
from metasrv.model.types import Endpoint
from metasrv.process.clock import SystemClock
from metasrv.raft.observer import SilentObserver
from metasrv.raft.peers.frames import PAYLOAD_SIZE_BYTES_MAX
from metasrv.raft.peers.peer_handler import OneShotHandler
from metasrv.raft.peers.security import tls_contexts
from metasrv.raft.peers.transport import (
    ASIDE_BUFFERED_SIZE_BYTES,
    ASIDE_SIZE_BYTES,
    LocalIdentity,
    PeerSecurity,
    PeerTransport,
    RemoteIdentity,
)
from metasrv.testing.ports import PortReservation
from tests.support.authority import Authority as Certificates
from tests.support.deaf_tls import speak_without_listening
from tests.support.waiting import until

LOOPS = ["asyncio", "uvloop"]
"""Nodes run on uvloop, other users of the transport may not: both count."""

pytestmark = pytest.mark.asyncio(loop_factories=LOOPS)

HOST = "127.0.0.1"
NOWHERE = Endpoint(HOST, 1)


class Counts(SilentObserver):
    def __init__(self) -> None:
        self.totals: Counter[str] = Counter()

    def peer_connected(self, node_id: int, address: str, connected: bool) -> None:
        self.totals["connected"] += 1 if connected else -1

    def connect_failed(self, node_id: int, address: str) -> None:
        self.totals["connect_failed"] += 1

    def sent_bytes(self, to_id: int, size_bytes: int) -> None:
        self.totals["sent"] += size_bytes

    def received_bytes(self, from_address: str, size_bytes: int) -> None:
        self.totals["received"] += size_bytes

    def send_failed(self, to_id: int) -> None:
        self.totals["send_failed"] += 1


class Node(OneShotHandler):
    """A handler that remembers, and the transport it belongs to."""

    def __init__(
        self, node_id: int | None, security: PeerSecurity, incarnation: str = "", cluster_id: str | None = "c1"
    ) -> None:
        self.node_id = node_id
        self.told: list[tuple[str, int]] = []
        self.messages: list[tuple[int, int, bytes]] = []
        self.seen: list[RemoteIdentity] = []
        self.refusal: str | None = None
        self.counts = Counts()
        self.identity = LocalIdentity(node_id, incarnation or f"data-{node_id}", NOWHERE, cluster_id)
        self.transport = PeerTransport(self.identity, security, self, self.counts, SystemClock())
        self.endpoint = NOWHERE

    def peer_connected(self, node_id: int) -> None:
        self.told.append(("connected", node_id))

    def peer_disconnected(self, node_id: int) -> None:
        self.told.append(("disconnected", node_id))

    def peer_lost(self, node_id: int) -> None:
        self.told.append(("lost", node_id))

    def message_arrives(self, node_id: int) -> None:
        self.told.append(("arrives", node_id))

    def message_received(self, node_id: int, generation: int, payload: bytes) -> None:
        self.messages.append((node_id, generation, payload))

    def admit(self, remote: RemoteIdentity) -> str | None:
        self.seen.append(remote)
        return self.refusal

    async def request_received(self, remote: RemoteIdentity, method: str, payload: bytes) -> bytes:
        if method == "who":
            return repr(remote.node_id).encode()
        if method == "never":
            await asyncio.Event().wait()
        if method == "not leader":
            raise NotLeaderError(3)
        return payload

    async def listen(self, port: int = 0) -> Endpoint:
        self.endpoint = self.identity.endpoint = await self.transport.listen(HOST, port)
        return self.endpoint


def buffered_bytes(node: Node, peer_id: int) -> int:
    """Bytes that wait to be sent to a peer."""
    connection = node.transport._links[peer_id].connection
    assert connection is not None
    return connection.buffered_bytes


def are_connected(a: Node, b: Node) -> bool:
    """Nodes 1 and 2, both ways."""
    return a.transport.is_connected(2) and b.transport.is_connected(1)


def has_all(receiver: Node, count: int) -> bool:
    return len(receiver.messages) == count


def has_heard(receiver: Node, message: bytes) -> bool:
    return any(heard == message for _, _, heard in receiver.messages)


def has_failed_twice(node: Node) -> bool:
    return node.counts.totals["connect_failed"] >= 2


class Cluster:
    def __init__(self) -> None:
        self.nodes: list[Node] = []

    async def add(
        self,
        node_id: int | None,
        security: PeerSecurity | None = None,
        port: int | None = 0,
        incarnation: str = "",
        cluster_id: str | None = "c1",
    ) -> Node:
        node = Node(node_id, security or PeerSecurity(), incarnation, cluster_id)
        self.nodes.append(node)
        if port is not None:
            await node.listen(port)
        return node

    async def pair(self, left: PeerSecurity | None = None, right: PeerSecurity | None = None) -> tuple[Node, Node]:
        """Two nodes that dial each other."""
        a, b = await self.add(1, left), await self.add(2, right or left)
        a.transport.set_peers({2: b.endpoint})
        b.transport.set_peers({1: a.endpoint})
        return a, b

    async def connected_pair(self, security: PeerSecurity | None = None) -> tuple[Node, Node]:
        a, b = await self.pair(security)
        await until(lambda: a.transport.is_connected(2) and b.transport.is_connected(1))
        return a, b


@pytest.fixture
def reserved_ports() -> Iterator[PortReservation]:
    """Ports that nobody else gets, also while nobody listens on them."""
    reservation = PortReservation()
    yield reservation
    reservation.release()


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    cluster = Cluster()
    yield cluster
    for node in cluster.nodes:
        await node.transport.close()


async def test_each_test_runs_on_the_loop_that_its_name_says(request: pytest.FixtureRequest) -> None:
    assert type(asyncio.get_running_loop()).__module__.partition(".")[0] == request.node.callspec.id
    assert request.node.callspec.id in LOOPS


# ----------------------------------------------------------------------------- messages


@pytest.mark.parametrize("security", [PeerSecurity(), PeerSecurity(b"secret")])
async def test_messages_of_all_sizes_arrive_in_order_in_both_directions(cluster: Any, security: Any) -> None:
    a, b = await cluster.connected_pair(security)
    messages = [bytes([size % 251]) * size for size in [0, 1, 100, 5000, 70_000, MIB, 3 * MIB] + [10] * 1000]
    for sender, receiver in ((a, b), (b, a)):
        for message in messages:
            await until(partial(sender.transport.is_connected, receiver.node_id))
            assert sender.transport.send(receiver.node_id, message)
        await until(partial(has_all, receiver, len(messages)))
        assert [payload for _, _, payload in receiver.messages] == messages
        assert {node_id for node_id, _, _ in receiver.messages} == {sender.node_id}
    assert a.counts.totals["sent"] >= sum(map(len, messages))
    assert a.counts.totals["received"] >= sum(map(len, messages))
    assert a.counts.totals["connected"] == 1


async def test_a_node_knows_whom_it_can_send_to_and_when_it_heard_from_them(cluster: Any) -> None:
    a, b = await cluster.pair()
    assert not a.transport.send(2, b"too early")
    assert a.counts.totals["send_failed"] == 1
    assert a.transport.last_contact(2) is None
    await until(lambda: a.told == b.told == [])
    await until(lambda: a.transport.is_connected(2) and b.transport.is_connected(1))
    assert a.transport.known_endpoint(2) == b.endpoint
    assert buffered_bytes(a, 2) == 0
    heard = a.transport.last_contact(2)
    assert heard is not None
    assert abs(time.monotonic() - heard) < 5
    b.transport.send(1, b"hello")
    await until(lambda: bool(a.messages))
    assert (a.transport.last_contact(2) or 0) > heard
    assert ("connected", 2) in a.told
    assert not a.transport.send(7, b"to nobody")


async def test_a_message_past_the_limit_is_refused_and_one_at_the_limit_arrives(cluster: Any) -> None:
    a, b = await cluster.connected_pair()
    with pytest.raises(TooLargeError):
        a.transport.send(2, bytes(PAYLOAD_SIZE_BYTES_MAX + 1))
    assert a.transport.send(2, bytes(PAYLOAD_SIZE_BYTES_MAX))
    await until(lambda: bool(b.messages))
    assert len(b.messages[0][2]) == PAYLOAD_SIZE_BYTES_MAX


async def test_one_way_connectivity_is_seen_as_such(cluster: Any) -> None:
    a, b = await cluster.add(1), await cluster.add(2)
    a.transport.set_peers({2: b.endpoint})
    b.transport.set_peers({1: NOWHERE})
    await until(lambda: a.transport.is_connected(2))
    assert a.transport.send(2, b"one way")
    await until(lambda: bool(b.messages))
    assert not b.transport.is_connected(1)
    assert not b.transport.send(1, b"and back")
    assert b.transport.known_endpoint(1) == a.endpoint
    assert b.transport.last_contact(1) is not None
    b.transport.set_peers({1: b.transport.known_endpoint(1) or NOWHERE})
    await until(lambda: b.transport.is_connected(1))


# ----------------------------------------------------------------------------- coming and going


async def test_a_peer_that_starts_later_is_found_and_one_that_restarts_is_found_again(
    cluster: Any, caplog: pytest.LogCaptureFixture, reserved_ports: PortReservation
) -> None:
    port = reserved_ports.take()
    a = await cluster.add(1)
    a.transport.set_peers({2: Endpoint(HOST, port)})
    await until(lambda: a.counts.totals["connect_failed"] >= 3)
    refusals = [record for record in caplog.records if "no connection to node 2" in record.getMessage()]
    assert len(refusals) == 1
    assert f"{HOST}:{port} cannot be reached" in refusals[0].getMessage()
    generations = []
    for incarnation in ("first", "second"):
        b = await cluster.add(2, port=port, incarnation=incarnation)
        b.transport.set_peers({1: a.endpoint})
        await until(partial(are_connected, a, b))
        b.transport.send(1, incarnation.encode())
        await until(partial(has_heard, a, incarnation.encode()))
        generations.append(a.messages[-1][1])
        await b.transport.close()
        await until(lambda: not a.transport.is_connected(2) and a.told[-1] != ("connected", 2))
    assert generations[0] < generations[1]
    assert [remote.incarnation for remote in a.seen] == ["first", "second"]
    assert [entry for entry in a.told if entry[0] != "lost"] == [("connected", 2), ("disconnected", 2)] * 2
    assert a.told.count(("lost", 2)) == 2
    assert a.counts.totals["connected"] == 0


async def test_a_peer_that_moved_is_dialled_at_its_new_address_and_a_dropped_one_no_more(cluster: Any) -> None:
    a, b = await cluster.connected_pair()
    moved = await cluster.add(2)
    a.transport.set_peers({2: moved.endpoint})
    assert not a.transport.is_connected(2)
    assert ("disconnected", 2) not in a.told, "the handler was called from within set_peers"
    await until(lambda: a.transport.is_connected(2))
    assert a.told[-2:] == [("disconnected", 2), ("connected", 2)]
    a.transport.send(2, b"moved")
    await until(lambda: bool(moved.messages))
    assert b.messages == []
    a.transport.set_peers({})
    await until(lambda: a.told[-1] == ("disconnected", 2))
    assert not a.transport.is_connected(2)
    assert a.transport.last_contact(2) is None
    await until(lambda: ("lost", 1) in moved.told)


async def test_unchanged_peers_keep_their_connection_and_the_own_id_is_passed_over(cluster: Any) -> None:
    a, b = await cluster.connected_pair()
    before = list(a.told)
    a.transport.set_peers({1: a.endpoint, 2: b.endpoint, 3: NOWHERE})
    assert a.transport.is_connected(2)
    a.transport.send(2, b"still the same")
    await until(lambda: bool(b.messages))
    assert a.told == before
    assert len(b.seen) == 1


async def test_a_name_without_an_address_is_logged(cluster: Any, caplog: pytest.LogCaptureFixture) -> None:
    a = await cluster.add(1)
    a.transport.set_peers({2: Endpoint("no-such-host.invalid", 28103), 3: Endpoint("bad..name" + "x" * 80, 1)})
    await until(lambda: a.counts.totals["connect_failed"] >= 3, seconds=30)
    assert "no connection to node 2: no-such-host.invalid cannot be resolved" in caplog.text
    assert "no connection to node 3: bad..name" in caplog.text


async def test_another_node_at_the_address_is_not_taken_for_the_peer(
    cluster: Any, caplog: pytest.LogCaptureFixture
) -> None:
    a, b = await cluster.add(1), await cluster.add(3)
    a.transport.set_peers({2: b.endpoint})
    await until(lambda: a.counts.totals["connect_failed"] >= 1)
    assert "node 3 answers there, node 2 was expected" in caplog.text
    assert not a.transport.is_connected(2)


def skip_where_the_loop_never_pauses() -> None:
    """Skip on asyncio's own loop of Python 3.12 and early releases of 3.13 and 3.14: `writelines` never asks for a pause.

    Nodes run on uvloop, whose `writelines` pauses whoever writes.
    """
    writelines = vars(_SelectorSocketTransport).get("writelines")
    is_own_loop = isinstance(asyncio.get_running_loop(), asyncio.SelectorEventLoop)
    if is_own_loop and writelines is not None and "_maybe_pause_protocol" not in writelines.__code__.co_names:
        pytest.skip("asyncio's loop of this Python never pauses whoever calls writelines")


async def test_a_peer_that_does_not_read_is_paused_and_resumed(cluster: Any) -> None:
    skip_where_the_loop_never_pauses()
    a, b = await cluster.connected_pair()
    count = 0
    while a.transport.send(2, bytes(MIB)):
        count += 1
    assert PEER_BUFFER_SIZE_BYTES_MAX <= buffered_bytes(a, 2) < PEER_BUFFER_SIZE_BYTES_MAX + 2 * MIB
    assert a.told[-1] == ("connected", 2), "the handler was called from within send"
    assert a.transport.is_connected(2), "a pause is not a loss"
    assert not a.transport.send(2, b"refused while it is full")
    await until(lambda: a.told[-2:] == [("disconnected", 2), ("connected", 2)])
    assert a.transport.is_connected(2)
    await until(lambda: len(b.messages) == count)
    assert a.counts.totals["connected"] == 1


async def test_a_connection_that_breaks_while_it_is_paused_is_told_as_lost(cluster: Any) -> None:
    """What waited for the peer is gone: a snapshot must begin anew, not go on in the middle (R6)."""
    skip_where_the_loop_never_pauses()
    a, b = await cluster.connected_pair()
    [accepted] = b.transport._listener.connections
    accepted._transport.pause_reading()
    while a.transport.send(2, bytes(MIB)):
        pass
    await until(lambda: a.told[-1] == ("disconnected", 2))
    assert a.transport.is_connected(2), "a pause is not a loss"
    accepted.abort("the test wants it")
    await until(lambda: a.told[-1] == ("connected", 2))
    assert a.told[-4:] == [("connected", 2), ("disconnected", 2), ("disconnected", 2), ("connected", 2)]


# ----------------------------------------------------------------------------- requests


async def test_requests_by_id_and_by_endpoint(cluster: Any) -> None:
    a, b = await cluster.connected_pair(PeerSecurity(b"secret"))
    assert await a.transport.request(2, "echo", b"x" * 100_000, 5000) == b"x" * 100_000
    assert await a.transport.request(b.endpoint, "echo", b"y", 5000) == b"y"
    assert await a.transport.request(b.endpoint, "who", b"", 5000) == b"1"
    with pytest.raises(NotLeaderError) as raised:
        await a.transport.request(2, "not leader", b"", 5000)
    assert raised.value.leader_id == 3
    with pytest.raises(UnknownOutcomeError, match="did not answer 'never' within 20 ms"):
        await a.transport.request(2, "never", b"", 20)
    assert a.transport.is_connected(2)
    assert len(b.seen) == 1, "a request by endpoint took the place of the peer's connection"


async def test_a_large_request_does_not_stand_before_raft_messages(cluster: Any) -> None:
    a, b = await cluster.connected_pair(PeerSecurity(b"secret"))
    link = a.transport._links[2].connection
    before = link.buffered_bytes
    asking = [asyncio.ensure_future(a.transport.request(2, "echo", b"x" * 8 * MIB, 20_000)) for _ in range(3)]
    while not all(task.done() for task in asking):
        assert link.buffered_bytes == before
        await asyncio.sleep(0)
    assert {await task for task in asking} == {b"x" * 8 * MIB}
    # Small requests count together.
    link._outgoing_size_bytes += ASIDE_BUFFERED_SIZE_BYTES + 1
    buffered = link.buffered_bytes
    assert await a.transport.request(2, "who", b"", 20_000) == b"1"
    assert link.buffered_bytes == buffered
    link._outgoing_size_bytes -= ASIDE_BUFFERED_SIZE_BYTES + 1
    assert len(b.seen) == 1, "a large request took the place of the peer's connection"
    await until(lambda: len(b.transport._listener.connections) == 1)


async def test_large_requests_past_the_limit_wait_for_each_other(cluster: Any) -> None:
    a, _ = await cluster.connected_pair()
    large = bytes(ASIDE_SIZE_BYTES + 1)
    assert PEER_REQUESTS_ASIDE_MAX < PEER_CONNECTIONS_MAX // 8
    never = [
        asyncio.ensure_future(a.transport.request(2, "never", large, 60_000)) for _ in range(PEER_REQUESTS_ASIDE_MAX - 1)
    ]
    assert await a.transport.request(2, "echo", large, 20_000) == large
    never.append(asyncio.ensure_future(a.transport.request(2, "never", large, 60_000)))
    await asyncio.sleep(0)
    with pytest.raises(NotDoneError, match="8 other large requests to peers took all the time of this one"):
        await a.transport.request(2, "echo", large, 50)
    waiting = asyncio.ensure_future(a.transport.request(2, "echo", large, 20_000))
    never[0].cancel()
    assert await waiting == large
    for task in never:
        task.cancel()


async def test_a_one_shot_client_asks_without_being_anybody(cluster: Any) -> None:
    b = await cluster.add(2, PeerSecurity(b"secret"))
    client = await cluster.add(None, PeerSecurity(b"secret"), port=None, cluster_id=None)
    assert await client.transport.request(b.endpoint, "who", b"", 5000) == b"None"
    stranger = await cluster.add(None, PeerSecurity(), port=None)
    with pytest.raises(PeerUnreachableError, match="it refused: this node demands the shared secret"):
        await stranger.transport.request(b.endpoint, "who", b"", 5000)


async def test_requests_that_were_not_sent_say_so(cluster: Any) -> None:
    a = await cluster.add(1)
    a.transport.set_peers({2: NOWHERE})
    await until(lambda: a.counts.totals["connect_failed"] >= 1)
    for target, sentence in [
        (2, "there is no connection to node 2: 127.0.0.1:1 cannot be reached"),
        (7, "node 7 is not a peer of this node"),
        (NOWHERE, "127.0.0.1:1 cannot be reached"),
    ]:
        with pytest.raises(PeerUnreachableError, match=sentence):
            await a.transport.request(target, "propose", b"", 5000)
    with socket.socket() as silent:
        silent.bind((HOST, 0))
        silent.listen()
        with pytest.raises(NotDoneError, match="could not be reached within 50 ms"):
            await a.transport.request(Endpoint(*silent.getsockname()), "propose", b"", 50)


async def test_a_peer_that_dies_leaves_requests_unknown(cluster: Any) -> None:
    a, b = await cluster.connected_pair()
    asking = asyncio.ensure_future(a.transport.request(2, "never", b"", 60_000))
    await asyncio.sleep(0.02)
    await b.transport.close()
    with pytest.raises(UnknownOutcomeError, match="the connection ended before the peer answered"):
        await asking


async def test_a_refusing_handler_keeps_a_peer_out_until_it_relents(
    cluster: Any, caplog: pytest.LogCaptureFixture
) -> None:
    a, b = await cluster.add(1), await cluster.add(2)
    b.refusal = "node 1 has to join again"
    a.transport.set_peers({2: b.endpoint})
    await until(lambda: a.counts.totals["connect_failed"] >= 3)
    assert caplog.text.count("it refused: node 1 has to join again") == 1
    b.refusal = None
    await until(lambda: a.transport.is_connected(2))


async def test_a_cluster_id_learned_later_counts_from_the_next_connection(cluster: Any) -> None:
    a, b = await cluster.add(1, cluster_id=None), await cluster.add(2, cluster_id="c2")
    a.transport.set_peers({2: b.endpoint})
    await until(lambda: a.transport.is_connected(2))
    a.identity.cluster_id = "c1"
    with pytest.raises(
        PeerUnreachableError, match="it refused: the caller belongs to cluster c1, this node to cluster c2"
    ):
        await a.transport.request(b.endpoint, "who", b"", 5000)


# ----------------------------------------------------------------------------- secrets and certificates


async def test_a_secret_is_rotated_on_running_clusters_without_losing_anybody(cluster: Any) -> None:
    steps = [PeerSecurity(b"old"), PeerSecurity(b"old", (b"new",)), PeerSecurity(b"new", (b"old",)), PeerSecurity(b"new")]
    for left, right in itertools.pairwise(steps):
        a, b = await cluster.pair(left, right)
        await until(partial(are_connected, a, b))
        assert a.counts.totals["connect_failed"] == b.counts.totals["connect_failed"] == 0


async def test_different_secrets_never_connect_and_each_side_says_why_once(
    cluster: Any, caplog: pytest.LogCaptureFixture
) -> None:
    a, b = await cluster.pair(PeerSecurity(b"one"), PeerSecurity(b"two"))
    await until(lambda: a.counts.totals["connect_failed"] >= 4 and b.counts.totals["connect_failed"] >= 4)
    assert a.told == b.told == []
    assert a.messages == b.messages == []
    sentence = "the shared secret (raft_secret) of this node and of the caller differ"
    assert caplog.text.count(f"it refused: {sentence}") == 2
    assert caplog.text.count(f"came to nothing: {sentence}") == 2
    assert "b'one'" not in caplog.text


class Authority(Certificates):
    """An authority whose nodes are what the transport takes."""

    def contexts(self, name: str, subject_alternative: str = "IP:127.0.0.1") -> PeerSecurity:
        self.certify(name, subject_alternative)
        return self.security(name, self)

    def security(self, name: str, trusted: Authority) -> PeerSecurity:
        """A node with this authority's certificate that trusts another authority."""
        server_context, client_context = tls_contexts(*self.files(name, trusted).values())
        return PeerSecurity(server_context=server_context, client_context=client_context)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "ours")


async def test_nodes_with_certificates_of_one_authority_talk(cluster: Any, authority: Any) -> None:
    security = authority.contexts("node")
    a, b = await cluster.connected_pair(security)
    a.transport.send(2, b"x" * MIB)
    assert await a.transport.request(2, "echo", b"y" * MIB, 5000) == b"y" * MIB
    assert await a.transport.request(b.endpoint, "echo", b"z", 5000) == b"z"
    await until(lambda: bool(b.messages))
    assert b.messages[0][2] == b"x" * MIB


async def test_certificates_of_another_authority_and_plain_connections_are_kept_out(
    cluster: Any, authority: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ours = authority.contexts("node")
    foreign = Authority(tmp_path / "theirs")
    foreign.contexts("foreign")
    b = await cluster.add(2, ours)
    # It trusts us, but its own certificate is not ours to trust; then one that does not trust us; then no TLS at all.
    for security in (foreign.security("foreign", authority), foreign.security("foreign", foreign), PeerSecurity()):
        a = await cluster.add(1, security)
        a.transport.set_peers({2: b.endpoint})
        await until(partial(has_failed_twice, a), seconds=20)
        assert a.told == []
        await a.transport.close()
    assert b.seen == []
    assert "certificate verify failed" in caplog.text
    a = await cluster.add(1, ours)
    a.transport.set_peers({2: b.endpoint})
    await until(lambda: a.transport.is_connected(2))


async def test_a_certificate_for_another_host_is_refused(
    cluster: Any, authority: Any, caplog: pytest.LogCaptureFixture
) -> None:
    b = await cluster.add(2, authority.contexts("elsewhere", "DNS:elsewhere.example"))
    a = await cluster.add(1, authority.contexts("node"))
    a.transport.set_peers({2: b.endpoint})
    await until(lambda: a.counts.totals["connect_failed"] >= 1)
    assert f"the certificate is for elsewhere.example, and not for host {HOST}" in caplog.text
    assert b.seen == []


# ----------------------------------------------------------------------------- strangers


async def test_strangers_do_not_disturb_the_peers(cluster: Any, caplog: pytest.LogCaptureFixture) -> None:
    a, b = await cluster.connected_pair(PeerSecurity(b"secret"))
    hostile = [b"", b"GET / HTTP/1.1\r\n\r\n", b"\x80\x00\x00\x00", bytes(100_000), b"\x00\x00\x00\x14\x01"]
    writers = []
    for data in hostile * 4:
        reader, writer = await asyncio.open_connection(*b.endpoint)
        writers.append(writer)
        writer.write(data)
        if len(data) > 10:
            assert await asyncio.wait_for(reader.read(-1), 5) is not None
    a.transport.send(2, b"undisturbed")
    await until(lambda: bool(b.messages))
    assert [payload for _, _, payload in b.messages] == [b"undisturbed"]
    assert a.transport.is_connected(2)
    for writer in writers:
        writer.close()
    assert caplog.text.count("came to nothing") == 1


async def test_a_slow_handshake_is_cut_off(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metasrv.raft.peers.connection.HANDSHAKE_TIMEOUT_MS", 100)
    b = await cluster.add(2)
    reader, writer = await asyncio.open_connection(*b.endpoint)
    writer.write(b"\x00")
    started = time.monotonic()
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await asyncio.wait_for(reader.readexactly(1), 5)
    assert 0.05 < time.monotonic() - started < 3
    writer.close()


async def test_connections_past_the_limit_are_closed_and_the_others_stay(
    cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metasrv.raft.peers.listener.PEER_CONNECTIONS_MAX", 3)
    monkeypatch.setattr("metasrv.raft.peers.listener.PEER_CONNECTIONS_RESERVED", 1)
    a, b = await cluster.connected_pair()
    idle = [await asyncio.open_connection(*b.endpoint) for _ in range(2)]
    await until(lambda: len(b.transport._listener.connections) == 3)
    idle.append(await asyncio.open_connection(*b.endpoint))
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await asyncio.wait_for(idle[0][0].readexactly(1), 5)
    assert a.transport.is_connected(2)
    for _, idle_writer in idle:
        idle_writer.close()
    await asyncio.sleep(0.02)
    assert await a.transport.request(b.endpoint, "echo", b"room again", 5000) == b"room again"


async def test_refused_callers_who_do_not_take_the_end_of_tls_make_room_for_members(
    cluster: Any, authority: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metasrv.raft.peers.listener.PEER_CONNECTIONS_MAX", 3)
    monkeypatch.setattr("metasrv.raft.peers.listener.PEER_CONNECTIONS_RESERVED", 1)
    security = authority.contexts("node")
    b = await cluster.add(2, security)
    no_frame = b"GET / HTTP/1.1\r\n\r\n"
    refused = [await speak_without_listening(b.endpoint, no_frame, security.client_context) for _ in range(3)]
    await until(lambda: all(one.closed for one in b.transport._listener.connections))
    assert len(b.transport._listener.connections) == 3
    a = await cluster.add(1, security)
    assert await a.transport.request(b.endpoint, "echo", b"there is room", 5000) == b"there is room"
    for stream in refused:
        stream.close()


# ----------------------------------------------------------------------------- listening and closing


async def test_an_address_in_use_is_a_clear_error(cluster: Any) -> None:
    a = await cluster.add(1)
    with pytest.raises(BindError, match=f"cannot listen for peers on {HOST}:{a.endpoint.port}: .*in use"):
        await cluster.add(2, port=a.endpoint.port)
    for host, port in (("no-such-host.invalid", 0), ("192.0.2.1", 0), (HOST, 70_000)):
        with pytest.raises(BindError, match="cannot listen for peers on"):
            await Node(3, PeerSecurity()).transport.listen(host, port)


async def test_closing_sends_the_last_messages_and_ends_everything(cluster: Any) -> None:
    a, b = await cluster.connected_pair()
    asking = asyncio.ensure_future(b.transport.request(1, "never", b"", 60_000))
    await asyncio.sleep(0.02)
    for number in range(100):
        a.transport.send(2, b"%d" % number)
    await a.transport.close()
    await a.transport.close()
    with pytest.raises(UnknownOutcomeError):
        await asking
    await until(lambda: len(b.messages) == 100)
    assert not a.transport.is_connected(2)
    assert not a.transport.send(2, b"after the end")
    a.transport.set_peers({2: b.endpoint})
    for target in (2, b.endpoint):
        with pytest.raises(StoppingError):
            await a.transport.request(target, "echo", b"", 1000)
    assert len(asyncio.all_tasks()) <= 4

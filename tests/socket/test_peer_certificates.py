"""Whose certificates count on the raft port, over real TLS: names, usages, operators, silent callers, descriptors."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from metasrv.model.errors import PeerUnreachableError
from metasrv.model.limits import SPARE_DESCRIPTORS, TLS_HANDSHAKES_MAX
from metasrv.model.types import Endpoint
from metasrv.process.accepting import AcceptingSocket
from metasrv.process.clock import SystemClock
from metasrv.process.listening_socket import listening_socket
from metasrv.raft.observer import SilentObserver
from metasrv.raft.peers.handshake import LocalIdentity, RemoteIdentity
from metasrv.raft.peers.peer_handler import OneShotHandler
from metasrv.raft.peers.security import PeerSecurity, tls_contexts
from metasrv.raft.peers.transport import PeerTransport
from tests.support.authority import Authority
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"])

HOST = "127.0.0.1"
BOTH, CLIENTS, SERVERS = "serverAuth,clientAuth", "clientAuth", "serverAuth"


class Counts(SilentObserver):
    def __init__(self) -> None:
        self.failed: Counter[str] = Counter()
        self.unfinished = self.short = 0

    def tls_handshakes(self, port: str, change: int) -> None:
        self.unfinished += change

    def tls_handshake_failed(self, port: str, reason: str) -> None:
        self.failed[reason] += 1

    def descriptors_short(self, port: str) -> None:
        self.short += 1


class Node(OneShotHandler):
    """A node of node_id; None is the command that removes a node."""

    def __init__(self, node_id: int | None, security: PeerSecurity) -> None:
        self.counts = Counts()
        self.identity = LocalIdentity(node_id, f"data-{node_id}", Endpoint(HOST, 1), "c1")
        self.transport = PeerTransport(self.identity, security, self, self.counts, SystemClock())

    def admit(self, remote: RemoteIdentity) -> str | None:
        return None

    async def request_received(self, remote: RemoteIdentity, method: str, payload: bytes) -> bytes:
        return payload


class Nodes:
    """Makes nodes and closes them."""

    def __init__(self) -> None:
        self.made: list[Node] = []

    def make(self, node_id: int | None, security: PeerSecurity, host: str = HOST) -> Node:
        node = Node(node_id, security)
        node.identity.endpoint = Endpoint(host, 1)
        self.made.append(node)
        return node

    async def listening(self, security: PeerSecurity) -> tuple[Node, Endpoint]:
        node = self.make(2, security)
        endpoint = await node.transport.listen(HOST, 0)
        node.identity.endpoint = endpoint
        return node, endpoint


@pytest.fixture
async def nodes() -> AsyncIterator[Nodes]:
    nodes = Nodes()
    yield nodes
    for node in nodes.made:
        await node.transport.close()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "ours")


def security_of(authority: Authority, name: str, names: str = f"IP:{HOST}", usage: str = BOTH) -> PeerSecurity:
    if not (authority.directory / f"{name}.pem").exists():
        authority.certify(name, names, usage)
    server_context, client_context = tls_contexts(*authority.files(name).values())
    return PeerSecurity(server_context=server_context, client_context=client_context)


async def ask(caller: Node, endpoint: Endpoint) -> bytes:
    return await caller.transport.request(endpoint, "echo", b"x", 5000)


async def refusal(caller: Node, endpoint: Endpoint) -> str:
    with pytest.raises(PeerUnreachableError) as refused:
        await ask(caller, endpoint)
    return str(refused.value)


# ----------------------------------------------------------------------------- names


async def test_a_certificate_for_another_name_is_no_node(nodes: Nodes, authority: Authority) -> None:
    node, endpoint = await nodes.listening(security_of(authority, "node"))
    stranger = security_of(authority, "stranger", "DNS:someoneelse.example")
    sentence = f"it refused: the certificate is for someoneelse.example, and not for host {HOST}"
    assert sentence in await refusal(nodes.make(1, stranger), endpoint)
    caller = nodes.make(3, stranger)
    caller.transport.set_peers({2: endpoint})
    await until(lambda: caller.transport._links[2].failure != "it was not yet dialled")
    assert sentence in caller.transport._links[2].failure
    assert node.transport._listener._current == {}


async def test_a_node_may_move_to_a_name_of_its_certificate(nodes: Nodes, authority: Authority) -> None:
    _, endpoint = await nodes.listening(security_of(authority, "node"))
    moving = security_of(authority, "moving", "DNS:*.meta.example,DNS:one.example")
    for host in ("one.example", "ONE.example.", "two.meta.example"):
        assert await ask(nodes.make(1, moving, host), endpoint) == b"x"
    for host in ("meta.example", "a.b.meta.example", "another.example", HOST):
        assert f"and not for host {host}" in await refusal(nodes.make(1, moving, host), endpoint)


async def test_allowed_names_take_the_place_of_the_advertised_one(nodes: Nodes, authority: Authority) -> None:
    named = replace(security_of(authority, "named", "DNS:a.meta.example"), allowed_names=("*.meta.example",))
    _, endpoint = await nodes.listening(named)
    assert await ask(nodes.make(1, named), endpoint) == b"x", "both ends are known by their name, not by their address"
    stranger = replace(security_of(authority, "stranger", "DNS:someoneelse.example"), allowed_names=("*.meta.example",))
    answer = await refusal(nodes.make(1, stranger, "someoneelse.example"), endpoint)
    assert "not for one of raft_tls_allowed_names (*.meta.example)" in answer


# ----------------------------------------------------------------------------- usages


async def test_a_certificate_for_clients_only_is_no_node(nodes: Nodes, authority: Authority) -> None:
    _, endpoint = await nodes.listening(security_of(authority, "node"))
    answer = await refusal(nodes.make(1, security_of(authority, "client", usage=CLIENTS)), endpoint)
    assert f"the certificate for {HOST} is not one of a node" in answer


async def test_a_certificate_for_servers_only_is_no_node_on_either_side(nodes: Nodes, authority: Authority) -> None:
    good, server = security_of(authority, "node"), security_of(authority, "server", usage=SERVERS)
    _, endpoint = await nodes.listening(good)
    await refusal(nodes.make(1, server), endpoint)
    _, other = await nodes.listening(server)
    assert f"the certificate for {HOST} is not one of a node" in await refusal(nodes.make(1, good), other)


async def test_a_certificate_without_a_usage_is_good_for_all(nodes: Nodes, authority: Authority) -> None:
    _, endpoint = await nodes.listening(security_of(authority, "plain", usage=""))
    assert await ask(nodes.make(1, security_of(authority, "plain")), endpoint) == b"x"


# ----------------------------------------------------------------------------- operators


async def test_who_is_no_node_needs_the_secret_or_the_certificate_of_an_operator(
    nodes: Nodes, authority: Authority
) -> None:
    node, operator = security_of(authority, "node"), security_of(authority, "operate", "DNS:o.example", CLIENTS)
    _, endpoint = await nodes.listening(replace(node, operators=("operate",)))
    assert await ask(nodes.make(None, operator), endpoint) == b"x"
    answer = await refusal(nodes.make(None, node), endpoint)
    assert "the common name of its certificate, 'node', is not among raft_tls_operators" in answer

    _, secret = await nodes.listening(replace(node, secret=b"secret"))
    assert await ask(nodes.make(None, replace(node, secret=b"secret")), secret) == b"x"
    assert "demands the shared secret" in await refusal(nodes.make(None, operator), secret)


# ----------------------------------------------------------------------------- changes


async def test_new_certificates_and_secrets_count_from_the_next_connection_on(
    nodes: Nodes, authority: Authority, tmp_path: Path
) -> None:
    old, new = security_of(authority, "node"), security_of(Authority(tmp_path / "new"), "node")
    node, endpoint = await nodes.listening(old)
    member = nodes.make(1, old)
    member.transport.set_peers({2: endpoint})
    await until(lambda: member.transport.is_connected(2))
    node.transport.secure(new)
    assert "certificate" in await refusal(nodes.make(3, old), endpoint)
    assert await ask(nodes.make(3, new), endpoint) == b"x"
    assert member.transport.is_connected(2), "what is open goes on"
    assert await member.transport.request(2, "echo", b"y", 5000) == b"y"


# ----------------------------------------------------------------------------- silent callers, descriptors


async def test_silent_callers_are_counted_and_time_out(
    nodes: Nodes, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metasrv.process.accepting.TLS_HANDSHAKE_SECONDS_MAX", 0.5)
    node, endpoint = await nodes.listening(security_of(authority, "node"))
    reader, writer = await asyncio.open_connection(*endpoint)
    await until(lambda: node.counts.unfinished == 1)
    assert await asyncio.wait_for(reader.read(), 10) == b""
    await until(lambda: node.counts.unfinished == 0)
    assert node.counts.failed == {"timeout": 1}
    writer.close()


async def test_as_many_silent_callers_as_there_may_be_and_one_more(nodes: Nodes, authority: Authority) -> None:
    security = security_of(authority, "node")
    node, endpoint = await nodes.listening(security)
    silent = []
    for _ in range(TLS_HANDSHAKES_MAX):
        silent.append(await asyncio.open_connection(*endpoint))
    await until(lambda: node.counts.unfinished == TLS_HANDSHAKES_MAX)
    assert node.counts.failed == {}
    assert await ask(nodes.make(1, security), endpoint) == b"x", "the oldest makes room"
    assert await asyncio.wait_for(silent[0][0].read(), 5) == b""
    assert node.counts.failed == {"made room": 1}
    for _, writer in silent:
        writer.close()


async def test_a_caller_without_tls_is_counted_as_failed(nodes: Nodes, authority: Authority) -> None:
    node, endpoint = await nodes.listening(security_of(authority, "node"))
    assert "it may demand TLS" in await refusal(nodes.make(1, PeerSecurity()), endpoint)
    await until(lambda: node.counts.failed == {"failed": 1})


class NoDescriptors(socket.socket):
    """A listening socket of a process that has no descriptor left, until `left` grows."""

    left = 0
    attempts = 0

    def accept(self) -> Any:
        self.attempts += 1
        if self.left <= 0:
            raise OSError(errno.EMFILE, "Too many open files")
        self.left -= 1
        return super().accept()


async def test_a_shortage_of_descriptors_is_reported_and_the_port_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    counts, reached = Counts(), asyncio.Event()

    class Reached(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            reached.set()
            transport.close()

    plain = listening_socket(socket.AF_INET, (HOST, 0), 8)
    listening = NoDescriptors(fileno=plain.detach())
    listening.setblocking(False)
    accepting = AcceptingSocket("raft", listening, Reached, lambda: None, counts)
    assert len(accepting.spares._held) == SPARE_DESCRIPTORS
    _, writer = await asyncio.open_connection(*listening.getsockname())
    await until(lambda: counts.short == SPARE_DESCRIPTORS + 1)
    assert accepting.spares._held == [], "spare descriptors are given up first, then the port waits"
    assert [record.levelno for record in caplog.records] == [logging.ERROR], "one line, however long it lasts"
    assert "the raft port cannot accept a connection: Too many open files" in caplog.text
    assert not reached.is_set()
    listening.left = 1
    await asyncio.wait_for(reached.wait(), 5)
    accepting.close()
    await accepting.wait_closed()
    writer.close()


async def test_an_address_with_many_silent_callers_ends_none_of_others(authority: Authority) -> None:
    security = security_of(authority, "node")
    listening = listening_socket(socket.AF_INET, (HOST, 0), 64)
    context: ssl.SSLContext | None = security.server_context
    counts = Counts()
    accepting = AcceptingSocket("grpc", listening, asyncio.Protocol, lambda: context, counts, handshakes_max=8)
    address = listening.getsockname()
    other = await asyncio.open_connection(*address, local_addr=("127.0.0.2", 0))
    await until(lambda: counts.unfinished == 1)
    many = [await asyncio.open_connection(*address) for _ in range(7)]
    await until(lambda: counts.unfinished == 8)
    assert counts.failed == {}
    many += [await asyncio.open_connection(*address) for _ in range(8)]
    await until(lambda: counts.failed == {"made room": 8} and counts.unfinished == 8)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(other[0].read(), 0.1)
    accepting.close()
    await asyncio.wait_for(accepting.wait_closed(), 5)
    assert (counts.unfinished, accepting._waiting, accepting._waiting_by_host) == (0, {}, {})
    for _, writer in (other, *many):
        writer.close()


async def test_closing_ends_callers_that_have_not_said_a_word(authority: Authority) -> None:
    security = security_of(authority, "node")
    listening = listening_socket(socket.AF_INET, (HOST, 0), 8)
    counts = Counts()
    context: ssl.SSLContext | None = security.server_context
    accepting = AcceptingSocket("raft", listening, asyncio.Protocol, lambda: context, counts)
    reader, writer = await asyncio.open_connection(*listening.getsockname())
    await until(lambda: counts.unfinished == 1)
    accepting.close()
    accepting.close()
    await asyncio.wait_for(accepting.wait_closed(), 5)
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()


async def test_a_peer_is_dialled_with_a_spare_descriptor(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    _, endpoint = await nodes.listening(PeerSecurity())
    caller, _ = await nodes.listening(PeerSecurity())
    loop = asyncio.get_running_loop()
    connect, attempts = loop.create_connection, 0

    async def without_descriptors(*given: Any, **named: Any) -> Any:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            raise OSError(errno.EMFILE, "Too many open files")
        return await connect(*given, **named)

    class Loop:
        create_connection = staticmethod(without_descriptors)

        def __getattr__(self, name: str) -> Any:
            return getattr(loop, name)

    monkeypatch.setattr("metasrv.raft.peers.dialling.asyncio.get_running_loop", Loop)
    assert await caller.transport.request(endpoint, "echo", b"x", 5000) == b"x"
    assert attempts == 2

"""How connections and what is held for them are divided among addresses, and what finding who gives way costs."""

from __future__ import annotations

import pytest

from metasrv.grpc_api.http2 import frames as f
from metasrv.grpc_api.http2.admission import LOOKED_AT_MAX, Admission
from metasrv.grpc_api.http2.budget import LOOKED_AT_MAX as HOLDERS_LOOKED_AT_MAX
from metasrv.grpc_api.http2.budget import Account, Budget
from metasrv.grpc_api.http2.messages import length_prefixed
from metasrv.grpc_api.http2.peer_name import host_of, is_loopback
from metasrv.grpc_api.http2.portions import Standing, portions_of, undivided
from metasrv.grpc_api.http2.status import StatusCode
from tests.support.http2_bench import Bench, Peer, settle

STRANGER, CLIENT, MEMBER = Standing
REFUSED = str(StatusCode.RESOURCE_EXHAUSTED.value)


def test_hosts_of_peers() -> None:
    assert host_of(("10.0.0.1", 5)) == host_of(("::ffff:10.0.0.1", 5, 0, 0)) == "10.0.0.1"
    assert host_of(("fd00::1", 5, 0, 0)) == "fd00::1"
    assert host_of("/a/socket") == host_of(None) == ""
    assert [is_loopback(host) for host in ("127.0.0.1", "127.9.9.9", "::1", "10.0.0.1", "")] == [
        True,
        True,
        True,
        False,
        False,
    ]


# ----------------------------------------------------------------------------- connections


class Client:
    """A connection, as admission sees it."""

    def __init__(self, host: str = "10.0.0.1", is_near: bool = False) -> None:
        self.host = host
        self.is_near = is_near
        self.is_idle = True
        self.displaced = False

    def displace(self) -> None:
        self.displaced = True


def filled(admission: Admission[Client], host: str, count: int) -> list[Client]:
    """Connections on each of which a token was shown."""
    clients = [Client(host) for _ in range(count)]
    for client in clients:
        assert admission.admit(client)
        admission.proved(client)
    return clients


def test_an_address_gets_half_of_all_connections() -> None:
    admission: Admission[Client] = Admission(portions_of(16))
    filled(admission, "10.0.0.1", 8)
    assert not admission.admit(Client("10.0.0.1"))
    assert admission.admit(Client("10.0.0.2"))
    assert len(admission.connections) == 9


def test_the_last_eighth_is_for_the_machines_of_the_cluster() -> None:
    admission: Admission[Client] = Admission(portions_of(16))
    clients = [*filled(admission, "10.0.0.1", 8), *filled(admission, "10.0.0.2", 6)]
    assert not admission.admit(Client("10.0.0.3"))
    near = Client("127.0.0.1", is_near=True), Client("10.0.0.9", is_near=True)
    assert all(admission.admit(client) for client in near)
    for client in near:
        admission.proved(client)
    assert not admission.admit(Client("127.0.0.1", is_near=True)), "there is nothing left"
    admission.lost(clients[0])
    assert admission.admit(Client("127.0.0.1", is_near=True))
    admission.lost(clients[0])
    assert len(admission.connections) == 16, "lost once"


def test_connections_without_a_token_give_way_the_idle_ones_first() -> None:
    admission: Admission[Client] = Admission(portions_of(16))
    strangers = [Client() for _ in range(8)]
    for client in strangers:
        assert admission.admit(client)
        client.is_idle = False
    strangers[3].is_idle = True
    newest = [Client() for _ in range(2)]
    assert admission.admit(newest[0])
    assert [client.displaced for client in strangers].index(True) == 3
    newest[0].is_idle = False
    assert admission.admit(newest[1])
    assert strangers[0].displaced, "the oldest, if all have calls"
    assert sum(client.displaced for client in strangers) == 2
    assert len(admission.connections) == 8
    for client in (*strangers, *newest):
        admission.lost(client)
    assert (admission.connections, admission._by_host, admission._strangers) == (set(), {}, {})
    assert admission._strangers_by_host == {}


def test_a_full_server_looks_at_a_few_connections() -> None:
    looks = 0

    class Counted(Client):
        @property
        def is_idle(self) -> bool:
            nonlocal looks
            looks += 1
            return False

        @is_idle.setter
        def is_idle(self, value: bool) -> None:
            pass

    admission: Admission[Client] = Admission(portions_of(20_000))
    for _ in range(10_000 + 100):
        assert admission.admit(Counted())
    assert looks == 100 * LOOKED_AT_MAX


async def test_an_idle_connection_is_told_why_it_ends() -> None:
    bench = Bench()
    peers = [Peer(bench.server) for _ in range(3)]
    new = Peer(bench.server)
    code, text = peers[0].goaway()
    assert (code, text) == (0, "another client needs the place of this connection, on which no token was shown")
    new.request(1, length_prefixed(b"x"))
    await settle()
    assert new.headers()["grpc-status"] == "0"
    peers[0].connection.connection_lost(None)
    assert len(bench.server.connections) == 3
    assert (bench.metrics.client.connections, bench.metrics.client.connections_refused) == (3, 1)
    unread = peers[1]
    unread.transport.written += b"waits"
    Peer(bench.server)
    assert unread.transport.closed
    assert unread.transport.written == b"waits", "nothing is left to wait for a client that does not read"


# ----------------------------------------------------------------------------- bytes


class Holding:
    """A connection that keeps something; counts how often it is asked."""

    looks = 0

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes

    @property
    def held_bytes(self) -> int:
        Holding.looks += 1
        return self.size_bytes

    def give_way(self) -> None:
        raise AssertionError


def test_finding_who_keeps_the_most_costs_the_same_with_many_connections() -> None:
    budget = Budget(undivided(1))
    account = budget.open_account("10.0.0.1", CLIENT)
    for size_bytes in (*range(1, 20_000), 70_000):
        budget.count(Holding(size_bytes), account, 0, size_bytes)
    Holding.looks = 0
    found = [budget.largest(account) for _ in range(1_000)]
    assert found[0] is not None
    assert Holding.looks <= 1_000 * HOLDERS_LOOKED_AT_MAX
    assert found[0].held_bytes == 70_000
    assert budget.used_bytes == account.used_bytes == sum(range(1, 20_000)) + 70_000


def test_who_gives_way_keeps_at_least_half_of_the_most() -> None:
    budget = Budget(undivided(1))
    account = budget.open_account("", CLIENT)
    holders = [Holding(size_bytes) for size_bytes in (600, 1_000, 130, 5)]
    for holder in holders:
        budget.count(holder, account, 0, holder.size_bytes)
    largest = budget.largest(account)
    assert largest is holders[1]
    budget.count(holders[1], account, 1_000, 0)
    budget.count(holders[0], account, 600, 100)
    assert budget.largest(account) is holders[2]
    for holder, size_bytes in ((holders[0], 100), (holders[2], 130), (holders[3], 5)):
        budget.count(holder, account, size_bytes, 0)
    assert budget.largest(account) is None
    assert budget.used_bytes == 0


def test_shares_of_what_is_held() -> None:
    budget = Budget(portions_of(1_600))
    stranger, client = (budget.open_account("10.0.0.1", standing) for standing in (STRANGER, CLIENT))
    member = budget.open_account("10.0.0.2", MEMBER)

    def hold(account: Account, size_bytes: int) -> Holding:
        holder = Holding(size_bytes)
        budget.count(holder, account, 0, size_bytes)
        return holder

    first = hold(stranger, 400)
    assert not budget.refuses(stranger)
    second = hold(stranger, 1)
    assert budget.refuses(stranger)
    assert "holds 400 bytes for the address 10.0.0.1, its share" in budget.sentence(stranger)
    assert budget.largest(stranger) is first
    assert not budget.refuses(client)
    budget.count(second, stranger, 1, 0)
    large = hold(client, 800)
    assert not budget.refuses(client)
    assert not budget.refuses(stranger), "three quarters, and no more"
    other = budget.open_account("10.0.0.3", STRANGER)
    hold(other, 1)
    assert budget.refuses(other)
    assert "holds 1200 bytes of requests and answers, the limit" in budget.sentence(other)
    assert budget.largest(other) is large
    hold(member, 399)
    assert not budget.refuses(member)
    hold(member, 1)
    assert budget.refuses(member)


async def test_one_address_keeps_nobody_else_from_sending() -> None:
    bench = Bench(portions_of)
    greedy = Peer(bench.server, host="10.0.0.1")
    for stream_id in (1, 3):
        greedy.request(stream_id, None, path="/t.T/Echo")
        for _ in range(2):
            greedy.send(f.frame(f.DATA, 0, stream_id, length_prefixed(bytes(99_999))[:14_000]))
    headers = greedy.headers()
    assert headers["grpc-status"] == REFUSED
    assert (
        headers["grpc-message"]
        == "this node already holds 37500 bytes for the address 10.0.0.1, its share; try again later"
    )
    held_bytes = bench.server.budget.used_bytes
    assert held_bytes <= 37_500
    greedy.connection.prove()
    assert bench.server.budget.used_bytes == held_bytes
    assert set(bench.server.budget.accounts) == {("10.0.0.1", CLIENT)}
    greedy.send(f.frame(f.DATA, 0, 1, length_prefixed(bytes(14_000))))
    assert not greedy.headers(), "who has shown a token may send more"
    greedy.connection.connection_lost(None)
    assert bench.server.budget.accounts == {}
    assert bench.server.budget.used_bytes == 0


@pytest.mark.parametrize(("host", "standing"), [("127.0.0.1", MEMBER), ("10.0.0.1", CLIENT)])
async def test_what_a_token_proves(host: str, standing: Standing) -> None:
    peer = Peer(Bench().server, host=host)
    assert peer.connection.standing is STRANGER
    peer.connection.prove()
    assert peer.connection.standing is standing

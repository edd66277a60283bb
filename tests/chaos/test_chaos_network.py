"""The breakable network with real sockets: it knows who dials, and each direction breaks by itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import closing

import pytest

from metasrv.model.types import Endpoint
from metasrv.raft.peers.frames import ChecksumIntegrity, FrameKind, frame_parts
from metasrv.raft.peers.handshake import DiallerHandshake, LocalIdentity, Role
from metasrv.raft.peers.security import NONCE_SIZE_BYTES, PeerSecurity
from metasrv.testing.link import LinkFault
from metasrv.testing.network import CLIENTS, NOBODY, Network, advertised_host, why_unavailable
from metasrv.testing.ports import PortReservation

pytestmark = pytest.mark.skipif(why_unavailable() is not None, reason=str(why_unavailable()))

TARGET = 9


def hello_of(node_id: int) -> bytes:
    identity = LocalIdentity(node_id, "incarnation", Endpoint("127.0.0.1", 1), None)
    payload = DiallerHandshake(identity, PeerSecurity(), Role.PEER, bytes(NONCE_SIZE_BYTES)).hello()
    return b"".join(frame_parts(FrameKind.HELLO, payload, ChecksumIntegrity()))


class Echo:
    """A target that sends everything back, and the way to it."""

    def __init__(self, network: Network, raft: Endpoint, grpc: Endpoint) -> None:
        self.network = network
        self.raft = Endpoint(advertised_host(TARGET), raft.port)
        self.grpc = Endpoint(advertised_host(TARGET), grpc.port)


@pytest.fixture
async def echo() -> AsyncIterator[Echo]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            try:
                while data := await reader.read(65536):
                    writer.write(data)
            except OSError:
                return

    ports = PortReservation()
    raft, grpc = (Endpoint("127.0.0.1", ports.take()) for _ in range(2))
    servers = [await asyncio.start_server(answer, endpoint.addr, endpoint.port) for endpoint in (raft, grpc)]
    network = Network()
    await network.add(TARGET, raft, grpc)
    yield Echo(network, raft, grpc)
    await network.close()
    for server in servers:
        server.close()
    ports.release()


async def call(endpoint: Endpoint, data: bytes, timeout_s: float = 5.0) -> bytes:
    """Send, and read as many bytes; less when the connection ends or the time is over."""
    reader, writer = await asyncio.open_connection(endpoint.addr, endpoint.port)
    got = b""
    with closing(writer):
        writer.write(data)
        try:
            async with asyncio.timeout(timeout_s):
                while len(got) < len(data):
                    more = await reader.read(65536)
                    if not more:
                        break
                    got += more
        except (OSError, TimeoutError):
            return got
    return got


async def test_a_sound_network_passes_everything(echo: Echo) -> None:
    data = hello_of(4) + bytes(300_000)
    assert await call(echo.raft, data) == data
    assert not echo.network.strikes


async def test_the_dialler_is_known_by_its_hello(echo: Echo) -> None:
    echo.network.harm(LinkFault(refuse=True), [(4, TARGET)])
    assert await call(echo.raft, hello_of(4)) == b""
    assert await call(echo.raft, hello_of(5)) == hello_of(5)


async def test_directions_break_by_themselves(echo: Echo) -> None:
    echo.network.harm(LinkFault(held=True), [(TARGET, 4)])
    assert await call(echo.raft, hello_of(4), timeout_s=0.2) == b""
    assert await call(echo.raft, hello_of(5)) == hello_of(5)
    echo.network.heal()
    assert await call(echo.raft, hello_of(4)) == hello_of(4)


async def test_a_delay_delays(echo: Echo) -> None:
    echo.network.harm(LinkFault(delay_s=0.1), [(4, TARGET), (TARGET, 4)])
    started = time.monotonic()
    assert await call(echo.raft, hello_of(4)) == hello_of(4)
    assert time.monotonic() - started >= 0.2


async def test_a_narrow_link_takes_its_time(echo: Echo) -> None:
    echo.network.harm(LinkFault(bytes_per_second=100_000), [(4, TARGET)])
    started = time.monotonic()
    data = hello_of(4) + bytes(30_000)
    assert await call(echo.raft, data) == data
    assert time.monotonic() - started >= 0.25


async def test_a_half_open_connection_tells_the_dialler_nothing(echo: Echo) -> None:
    reader, writer = await asyncio.open_connection(echo.raft.addr, echo.raft.port)
    with closing(writer):
        writer.write(hello_of(4))
        await reader.readexactly(len(hello_of(4)))
        assert echo.network.half_open(4, TARGET) == 1
        writer.write(b"into nothing")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.2)
        echo.network.heal()
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.read(1), 5)


async def test_a_reset_is_a_reset(echo: Echo) -> None:
    reader, writer = await asyncio.open_connection(echo.raft.addr, echo.raft.port)
    with closing(writer):
        writer.write(hello_of(4))
        await reader.readexactly(len(hello_of(4)))
        assert echo.network.reset(lambda dialler, target: (dialler, target) == (4, TARGET)) == 1
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.read(1), 5)


@pytest.mark.parametrize("what", [lambda: b"GET / HTTP/1.1\r\n\r\n", lambda: hello_of(4)[:-1] + b"?"])
async def test_who_says_no_hello_is_nobody_and_passes(echo: Echo, what: Callable[[], bytes]) -> None:
    echo.network.harm(LinkFault(held=True), [(node_id, TARGET) for node_id in range(10)])
    assert await call(echo.raft, what()) == what()
    assert (NOBODY, TARGET) in echo.network._links


async def test_clients_say_nothing_and_have_links_of_their_own(echo: Echo) -> None:
    assert await call(echo.grpc, b"request") == b"request"
    echo.network.harm(LinkFault(held=True), [(TARGET, CLIENTS)])
    assert await call(echo.grpc, b"request", timeout_s=0.2) == b""
    assert await call(echo.raft, hello_of(4)) == hello_of(4)

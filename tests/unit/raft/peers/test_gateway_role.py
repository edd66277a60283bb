"""The role GATEWAY on the raft port: what it has to prove, what it may send, how many there may be."""

from __future__ import annotations

import pytest

from metasrv.model.errors import AuthenticationError
from metasrv.model.limits import PEER_CONNECTIONS_MAX, PEER_CONNECTIONS_RESERVED, REMOTE_GATEWAYS_MAX
from metasrv.model.types import Endpoint
from metasrv.raft.peers.accepted_connection import AcceptedConnection
from metasrv.raft.peers.dialled_connection import DialledConnection
from metasrv.raft.peers.frames import FrameKind
from metasrv.raft.peers.gateway_streams import GatewayConnection
from metasrv.raft.peers.handshake import AcceptorHandshake, DiallerHandshake, LocalIdentity, Role
from metasrv.raft.peers.security import PeerSecurity
from metasrv.testing.memory_stream import MemoryStream
from tests.unit.raft.peers.test_peer_listener import Events, World

SECRET = PeerSecurity(secret=b"s3cret")


class Stream:
    """What takes the frames of one connection."""

    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.lost = ""

    def frame_received(self, payload: bytes) -> None:
        self.got.append(payload)

    def flow_changed(self, paused: bool) -> None:
        del paused

    def connection_lost(self, reason: str) -> None:
        self.lost = reason


class Door:
    """Opens for everybody."""

    def __init__(self) -> None:
        self.streams: list[Stream] = []
        self.connections: list[GatewayConnection] = []

    def __call__(self, connection: GatewayConnection) -> Stream:
        self.streams.append(Stream())
        self.connections.append(connection)
        return self.streams[-1]


def call(
    world: World, cluster_id: str | None = None, node_id: int | None = None, security: PeerSecurity | None = None
) -> tuple[DialledConnection, AcceptedConnection, MemoryStream]:
    identity = LocalIdentity(node_id, "", Endpoint("gateway", 1), cluster_id)
    dialler = DialledConnection(identity, security or world.security, Role.GATEWAY, None, Events())
    acceptor = world.listener.new_connection()
    return dialler, acceptor, MemoryStream(dialler, acceptor)


async def test_frames_go_both_ways_and_the_end_is_told() -> None:
    world, door = World(SECRET), Door()
    world.listener.gateways = door
    dialler, _, stream = call(world)
    dialler.gateway = own = Stream()
    await stream.pump()
    dialler.send_gateway(b"question")
    await stream.pump()
    [theirs] = door.streams
    assert theirs.got == [b"question"]
    door.connections[0].send_gateway(b"answer")
    await stream.pump()
    assert own.got == [b"answer"]
    dialler.abort("gone")
    await stream.pump()
    assert theirs.lost
    assert world.node.told == []


@pytest.mark.parametrize("kind", [FrameKind.RAFT, FrameKind.REQUEST, FrameKind.RESPONSE, FrameKind.HELLO])
async def test_a_frame_that_only_nodes_may_send_ends_the_connection(kind: FrameKind) -> None:
    world, door = World(), Door()
    world.listener.gateways = door
    dialler, acceptor, stream = call(world)
    await stream.pump()
    assert acceptor.is_open
    dialler._send(kind, b"x")
    await stream.pump()
    assert acceptor.failure == f"a gateway sent a frame of kind {kind}, which only nodes may"
    assert door.streams[0].got == []
    assert world.node.told == []


async def test_a_peer_and_a_client_may_send_no_frame_of_a_gateway() -> None:
    for role, node_id in ((Role.PEER, 1), (Role.CLIENT, None)):
        world = World()
        world.listener.gateways = Door()
        dialler, acceptor, stream = world.call(node_id, role=role)
        await stream.pump()
        dialler.send_gateway(b"x")
        await stream.pump()
        assert acceptor.failure == "a frame of kind 9 came where it may not"


async def test_nobody_is_let_in_while_nobody_serves_them() -> None:
    world = World()
    dialler, _, stream = call(world)
    await stream.pump()
    assert dialler.failure == "it refused: this node serves no gateways on other machines now"


async def test_a_node_without_a_cluster_takes_no_gateway() -> None:
    world = World()
    world.listener.gateways = Door()
    world.listener._identity.cluster_id = None
    dialler, _, stream = call(world)
    await stream.pump()
    assert "belongs to no cluster yet" in str(dialler.failure)


@pytest.mark.parametrize(
    ("security", "cluster_id", "node_id", "words"),
    [
        (PeerSecurity(secret=b"another"), None, None, "secret (raft_secret) of this node and of the caller differ"),
        (PeerSecurity(), None, None, "this node demands the shared secret"),
        (SECRET, "c2", None, "the caller belongs to cluster c2, this node to cluster c1"),
        (SECRET, None, 3, "a gateway is no node, but this one says that it is node 3"),
    ],
)
async def test_who_is_refused_and_why(
    security: PeerSecurity, cluster_id: str | None, node_id: int | None, words: str
) -> None:
    world, door = World(SECRET), Door()
    world.listener.gateways = door
    dialler, _, stream = call(world, cluster_id, node_id, security)
    await stream.pump()
    assert words in str(dialler.failure)
    assert door.streams == []


def test_a_gateway_proves_the_secret_also_where_it_is_only_being_rolled_out() -> None:
    lenient = PeerSecurity(secret=b"s3cret", strict=False)
    nobody = LocalIdentity(None, "", Endpoint("gateway", 1), None)
    node = LocalIdentity(1, "data-1", Endpoint("node", 1), "c1")
    for role, refused in ((Role.CLIENT, False), (Role.GATEWAY, True)):
        dialler = DiallerHandshake(nobody, PeerSecurity(), role, b"d" * 32)
        acceptor = AcceptorHandshake(node, lenient, b"a" * 32)
        proof = dialler.challenged(acceptor.greeted(dialler.hello()))
        if refused:
            with pytest.raises(AuthenticationError, match="a gateway has to prove the shared secret"):
                acceptor.proved(proof)
        else:
            assert acceptor.proved(proof)[1] is role


async def test_gateways_have_a_limit_and_leave_the_places_of_members_alone() -> None:
    world = World()
    world.listener.gateways = Door()
    kept = [call(world) for _ in range(REMOTE_GATEWAYS_MAX)]
    for _, _, stream in kept:
        await stream.pump()
    dialler, _, stream = call(world)
    await stream.pump()
    assert "gateways on other machines already, the limit" in str(dialler.failure)
    others = [world.call(None, role=Role.CLIENT) for _ in range(PEER_CONNECTIONS_MAX - PEER_CONNECTIONS_RESERVED)]
    for _, _, stream in others:
        await stream.pump()
    refused = [dialler for dialler, _, _ in others if dialler.failure is not None]
    assert len(refused) == REMOTE_GATEWAYS_MAX
    member, _, stream = world.call(1)
    await stream.pump()
    assert member.is_open

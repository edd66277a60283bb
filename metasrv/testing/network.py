"""A network between real nodes that a test can break, one directed link at a time.

Every node listens on 127.0.0.1 and advertises another loopback address with the same ports, where proxies of this
network listen. Which node dials is read from the HELLO that every peer connection begins with, so each direction
of each pair can be told apart without help from the nodes. Callers of the gRPC port are clients. Runs on the test's
event loop; knows nothing of Raft.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import cast

from metasrv.model.errors import MetasrvError
from metasrv.model.limits import HELLO_SIZE_BYTES_MAX
from metasrv.model.types import Endpoint
from metasrv.model.wire import unpack
from metasrv.raft.peers.frames import ChecksumIntegrity, FrameReader
from metasrv.testing.link import SOUND, Link, LinkFault, Pipe

HELLO_NODE_ID = 2
"""Position of the dialler's id in a HELLO, after version and role."""
CLIENTS = 0
"""The other end of a link between a node and its clients."""
NOBODY = -1
"""Source of a peer connection whose HELLO names no node."""
CONNECT_SECONDS_MAX = 2.0
BACKLOG = 128
ACCEPT_TURNS = 4
"""Turns of asyncio's loop from the end of `accept` until the protocol is told of its connection, and one to spare."""


def why_unavailable() -> str | None:
    """Why this machine cannot have such a network; None when it can."""
    if not sys.platform.startswith("linux"):
        return "only Linux answers on every address of 127.0.0.0/8"
    return None


def advertised_host(node_id: int) -> str:
    """The loopback address at which peers reach a node."""
    return f"127.1.{node_id // 250}.{node_id % 250 + 1}"


@dataclass(frozen=True, slots=True)
class Target:
    """A node behind the network."""

    node_id: int
    endpoint: Endpoint
    """Where it listens."""
    for_peers: bool
    """Whether callers say who they are."""


class Network:
    """The links between all nodes that were added."""

    def __init__(self, seed: int = 0) -> None:
        self.strikes: Counter[str] = Counter()
        """How often each kind of harm was done."""
        self._random = random.Random(seed)  # noqa: S311 - repeatable
        self._links: dict[tuple[int, int], Link] = {}
        self._servers: dict[int, list[asyncio.Server]] = {}
        self._connections: set[Connection] = set()
        self._quiet = asyncio.Event()
        self._quiet.set()

    async def add(self, node_id: int, raft: Endpoint, grpc: Endpoint) -> None:
        """Open the ways to a node that listens there; `advertised_host` leads to the same ports from now on."""
        if node_id in self._servers:
            return
        targets = (Target(node_id, raft, True), Target(node_id, grpc, False))
        self._servers[node_id] = [await self._listen(target) for target in targets]

    async def _listen(self, target: Target) -> asyncio.Server:
        listening = socket.create_server((advertised_host(target.node_id), target.endpoint.port), backlog=BACKLOG)
        return await asyncio.get_running_loop().create_server(lambda: Connection(self, target), sock=listening)

    async def remove(self, node_id: int) -> None:
        """Close the proxies of a node."""
        servers = self._servers.pop(node_id, [])
        for listening in (one for server in servers for one in server.sockets):
            asyncio.get_running_loop().remove_reader(listening.fileno())
        # A server that closes forgets the connections that it has just accepted; their sockets stay open.
        for _ in range(ACCEPT_TURNS):
            await asyncio.sleep(0)
        for server in servers:
            server.close()
        self.reset(lambda _source, target: target == node_id)

    async def close(self) -> None:
        """Close everything, and give cut connections the loop's next turns to end."""
        for node_id in list(self._servers):
            await self.remove(node_id)
        self.reset()
        await self._quiet.wait()

    # ------------------------------------------------------------------------- harm

    def link(self, source: int, target: int) -> Link:
        """The link on which bytes travel from one node to another, whoever dialled."""
        return self._links.setdefault((source, target), Link(self._random, self.strikes))

    def harm(self, fault: LinkFault, pairs: Iterable[tuple[int, int]]) -> None:
        """Give every directed link of `pairs` this fault."""
        for source, target in pairs:
            self.link(source, target).set_fault(fault)

    def heal(self) -> None:
        """Make all links sound. What was held back arrives now; half-open connections end."""
        for link in self._links.values():
            link.set_fault(SOUND)
        for connection in list(self._connections):
            if connection.half_open:
                connection.reset()

    def reset(self, concerns: Callable[[int, int], bool] = lambda _source, _target: True) -> int:
        """Reset the connections between a dialler and its target for which `concerns` holds; how many."""
        chosen = [one for one in self._connections if concerns(one.source, one.target.node_id)]
        for connection in chosen:
            connection.reset()
        return len(chosen)

    def half_open(self, source: int, target: int) -> int:
        """End connections that `source` dialled, for `target` only: `source` goes on sending into the void. How many."""
        chosen = [one for one in self._connections if (one.source, one.target.node_id) == (source, target)]
        for connection in chosen:
            connection.open_half()
        self.strikes["half-open connection"] += len(chosen)
        return len(chosen)

    # ------------------------------------------------------------------------- told by the connections

    def begun(self, connection: Connection) -> None:
        self._connections.add(connection)
        self._quiet.clear()

    def ended(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._quiet.set()


class Connection(asyncio.Protocol):
    """One connection through the network, seen from the dialler's side: accepts, learns who it is, dials on."""

    def __init__(self, network: Network, target: Target) -> None:
        self.target = target
        self.source = NOBODY if target.for_peers else CLIENTS
        self.half_open = False
        self._network = network
        self._known = not target.for_peers
        self._early = bytearray()
        self._reader = FrameReader(ChecksumIntegrity(), HELLO_SIZE_BYTES_MAX)
        self._near: asyncio.Transport | None = None
        self._far: asyncio.Transport | None = None
        self._there: Pipe | None = None
        self._back: Pipe | None = None
        self._dialling: asyncio.Task[None] | None = None

    def reset(self) -> None:
        """End it abruptly on both sides."""
        if self._near is not None:
            _abort(self._near)
        self._lose_far()

    def open_half(self) -> None:
        """End it on the target's side; the dialler is not told."""
        self.half_open = True
        self._lose_far()

    def _lose_far(self) -> None:
        if self._dialling is not None:
            self._dialling.cancel()
        if self._far is not None:
            _abort(self._far)

    # ------------------------------------------------------------------------- called by the loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._near = cast(asyncio.Transport, transport)
        self._network.begun(self)
        if self._known:
            self._dial_on()

    def data_received(self, data: bytes) -> None:
        if self.half_open:
            return
        if self._there is not None:
            self._there.feed(data)
            return
        self._early += data
        if not self._known:
            self._reader.feed(data)
            self._greet()

    def eof_received(self) -> bool:
        self.reset()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        for pipe in (self._there, self._back):
            if pipe is not None:
                pipe.stop()
        self._lose_far()
        self._network.ended(self)

    # ------------------------------------------------------------------------- onwards

    def _greet(self) -> None:
        try:
            frame = self._reader.next_frame()
            if frame is None:
                return
            node_id = cast(tuple[object, ...], unpack(frame.payload))[HELLO_NODE_ID]
            self.source = node_id if isinstance(node_id, int) else NOBODY
        except (MetasrvError, IndexError, TypeError):
            self.source = NOBODY  # not a peer: it goes through, and the node deals with it
        self._known = True
        self._dial_on()

    def _dial_on(self) -> None:
        self._dialling = asyncio.get_running_loop().create_task(self._dial())

    async def _dial(self) -> None:
        there = self._network.link(self.source, self.target.node_id)
        if there.fault.refuse:
            self._network.strikes["refused connection"] += 1
            self.reset()
            return
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_SECONDS_MAX):
                far, _ = await loop.create_connection(
                    lambda: _FarEnd(self), self.target.endpoint.addr, self.target.endpoint.port
                )
        except OSError:
            self.reset()
            return
        near = self._near
        if near is None or near.is_closing():
            far.abort()
            return
        self._far = far
        self._there = Pipe(there, near, far, self.reset)
        self._back = Pipe(self._network.link(self.target.node_id, self.source), far, near, self.reset)
        early, self._early = bytes(self._early), bytearray()
        self._there.feed(early)

    def pause_writing(self) -> None:
        if self._back is not None:
            self._back.set_target_full(True)

    def resume_writing(self) -> None:
        if self._back is not None:
            self._back.set_target_full(False)

    def far_received(self, data: bytes) -> None:
        """The target sent something."""
        if self._back is not None:
            self._back.feed(data)

    def far_lost(self) -> None:
        """The target ended its side: end the dialler's too, unless it is not to be told."""
        if not self.half_open and self._near is not None:
            _abort(self._near)

    def far_full(self, full: bool) -> None:
        if self._there is not None:
            self._there.set_target_full(full)


def _abort(transport: asyncio.Transport) -> None:
    """Close with a reset, as a machine does that knows nothing of the connection."""
    if transport.is_closing():
        return
    peer_socket = transport.get_extra_info("socket")
    if peer_socket is not None:
        peer_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


class _FarEnd(asyncio.Protocol):
    """The side of a connection that leads to the target."""

    def __init__(self, owner: Connection) -> None:
        self._owner = owner

    def data_received(self, data: bytes) -> None:
        self._owner.far_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._owner.far_lost()

    def pause_writing(self) -> None:
        self._owner.far_full(True)

    def resume_writing(self) -> None:
        self._owner.far_full(False)

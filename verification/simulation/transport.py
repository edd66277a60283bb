"""The product's own peer transport in a simulated process, with a witness at both of its ends.

Frames, handshakes, dialling, flow control and requests come from `metasrv.raft.peers`; they use the streams of a
simulated network. This module adds two things. The witness hears of each raft message that leaves or arrives. And
`wild` weather drops, doubles and delays messages after they have arrived, which no byte stream does and consensus must
survive.
"""

from __future__ import annotations

from typing import Any

from metasrv.process.clock import Clock
from metasrv.raft.observer import RaftObserver
from metasrv.raft.peers.handshake import LocalIdentity, RemoteIdentity
from metasrv.raft.peers.peer_handler import PeerHandler
from metasrv.raft.peers.security import PeerSecurity
from metasrv.raft.peers.transport import PeerTransport
from verification.simulation.networked_loop import NetworkedLoop, listening_socket
from verification.simulation.security import STRANGER_INCARNATION, lets_strangers_in
from verification.simulation.world import World


class SimulatedTransport(PeerTransport):
    """The real transport; tells the world's witness what is sent."""

    def __init__(
        self,
        world: World[Any],
        life: int,
        loop: NetworkedLoop,
        identity: LocalIdentity,
        security: PeerSecurity,
        handler: PeerHandler,
        observer: RaftObserver,
        clock: Clock,
    ) -> None:
        watched = WatchedHandler(world, identity, life, loop, handler)
        super().__init__(identity, security, watched, observer, clock, listening_socket, loop.start_accepting)
        self._world = world
        self._own_id = identity.node_id or 0

    def send(self, node_id: int, payload: bytes) -> bool:
        if not super().send(node_id, payload):
            return False
        self._world.witness.sending(self._own_id, node_id, payload)
        if self._world.network.note_message is not None:
            self._world.network.note_message(self._own_id, node_id, payload)
        return True


class WatchedHandler:
    """Implements PeerHandler between the transport and the node's consensus."""

    def __init__(
        self, world: World[Any], identity: LocalIdentity, life: int, loop: NetworkedLoop, handler: PeerHandler
    ) -> None:
        self._world = world
        self._identity = identity
        self._node_id = identity.node_id or 0
        self._life = life
        self._loop = loop
        self._handler = handler
        self._generations: dict[int, int] = {}
        """For each peer, the generation of the connection on which its delayed messages still count."""
        self.peer_connected = handler.peer_connected
        self.peer_disconnected = handler.peer_disconnected
        self.message_arrives = handler.message_arrives
        self.request_received = handler.request_received

    def peer_lost(self, node_id: int) -> None:
        self._generations.pop(node_id, None)
        self._handler.peer_lost(node_id)

    def admit(self, remote: RemoteIdentity) -> str | None:
        refusal = self._handler.admit(remote)
        # That an id is in use, or this node's own, stops a stranger too; but it was let in as far as that.
        proven = refusal is None or refusal.startswith("node id ")
        if proven and remote.incarnation == STRANGER_INCARNATION:
            world, own = self._world, self._identity
            if not lets_strangers_in(world.wire.security, own.cluster_id):
                world.witness.violation(f"node {own.node_id} admits a stranger as node {remote.node_id}")
        if refusal is None and remote.node_id is not None:
            self._generations.pop(remote.node_id, None)
        return refusal

    def message_received(self, node_id: int, generation: int, payload: bytes) -> None:
        world = self._world
        world.witness.received(self._node_id, self._life, node_id, generation, payload)
        self._generations[node_id] = generation
        network = world.network
        wild = network.weather.wild
        if not wild or network.source.random() >= wild:
            self._handler.message_received(node_id, generation, payload)
            return
        source, scheduler = network.source, world.scheduler
        for _ in range(source.choice((0, 1, 2, 2))):
            late = source.random() * source.choice((0.003, 0.05, 0.5))
            scheduler.after(late, self._loop.call_soon, self._delayed, node_id, generation, payload)

    def _delayed(self, node_id: int, generation: int, payload: bytes) -> None:
        """A delayed message is lost if its connection is gone, as any other."""
        if self._generations.get(node_id) == generation:
            self._handler.message_received(node_id, generation, payload)

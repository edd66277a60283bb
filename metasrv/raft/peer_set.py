"""Who the peers are, where they are, and which of their messages count.

Stands between the transport and the driver: keeps the transport's list of peers in step with membership, registry and
what peers say of their addresses (`peer_places.py`), and drops acknowledgements and votes of strangers, and of a node
whose data directory is not the one that was admitted. Runs on the event loop.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from metasrv.model.types import Endpoint, Membership, Node
from metasrv.process.clock import Clock
from metasrv.raft.core.driver import Driver
from metasrv.raft.core.engine import Engine
from metasrv.raft.core.guards import Guards
from metasrv.raft.core.messages import is_answer
from metasrv.raft.observer import RaftObserver
from metasrv.raft.peer_places import PeerPlaces
from metasrv.raft.peers.handshake import LocalIdentity, RemoteIdentity
from metasrv.raft.peers.peer_handler import TransportFactory
from metasrv.raft.peers.security import PeerSecurity
from metasrv.raft.snapshots import Snapshots
from metasrv.state.machine import StateMachine
from metasrv.tracing.times import ASKED_BY

logger = logging.getLogger(__name__)


class PeersNode(Protocol):
    """The parts of this node that peers have to do with, complete before the transport listens or dials."""

    driver: Driver
    engine: Engine
    guards: Guards
    snapshots: Snapshots
    machine: StateMachine


class Peers:
    """The transport's handler. `refuse_foreign` gives the reason to refuse a node that has the id of a member and another
    data directory (`id_holders.py`), or None."""

    def __init__(
        self,
        node: PeersNode,
        local: LocalIdentity,
        security: PeerSecurity,
        observer: RaftObserver,
        clock: Clock,
        answer: Callable[[str, bytes], Awaitable[bytes]],
        refuse_foreign: Callable[[RemoteIdentity], str | None],
        make_transport: TransportFactory,
    ) -> None:
        self._node = node
        self._local = local
        self._answer = answer
        self._refuse_foreign = refuse_foreign
        self._clock = clock
        self._introduced: dict[int, RemoteIdentity] = {}
        """What each node said of itself when it last dialled."""
        self._strangers: dict[int, Endpoint] = {}
        self._sending: set[int] = set()
        """Nodes that have a connection to this one."""
        self._places = PeerPlaces(self._sending.__contains__)
        self._warned: set[tuple[int, str]] = set()
        self._registry: Mapping[int, Node] | None = None
        self._dials = True
        self.transport = make_transport(local, security, self, observer, clock)

    def is_admitted(self, node_id: int) -> bool:
        """Whether the node that answers for a member has the data directory that was admitted."""
        member, directory = self._node.engine.membership().member(node_id), self.transport.known_directory(node_id)
        return member is None or directory is None or directory == member.incarnation

    def set_cluster_id(self, cluster_id: str) -> None:
        self._local.cluster_id = cluster_id

    # ------------------------------------------------------------------ addresses

    @property
    def cluster_id(self) -> str | None:
        return self._local.cluster_id

    @property
    def own_endpoint(self) -> Endpoint:
        """Where this node says that it is."""
        return self._local.endpoint

    def note_registry(self, nodes: Mapping[int, Node]) -> None:
        """If the registry changed, dial nodes that moved at their new address."""
        if nodes is not self._registry:
            self._registry = nodes
            self.refresh()

    def membership_changed(self, membership: Membership) -> None:
        """Another configuration is in force."""
        for node_id in [i for i in self._strangers if i in membership]:
            del self._strangers[node_id]
        self.refresh()

    def refresh(self) -> None:
        """Give the transport the current list of peers."""
        endpoints = {**self._strangers, **self._places.all(self._node.engine.membership(), self._node.machine.nodes)}
        endpoints.pop(self._local.node_id or 0, None)
        self.transport.set_peers(endpoints if self._dials else {})

    def dial_nobody(self) -> None:
        """This node is out of its cluster: end its connections to the others, and open none again."""
        self._dials = False
        self.refresh()

    def directory_of(self, node_id: int) -> str | None:
        """The data directory of the node that last introduced itself with this id."""
        introduced = self._introduced.get(node_id)
        return None if introduced is None else introduced.incarnation

    def places(self) -> dict[int, Endpoint]:
        """Where this node is, and where the members that it reaches, or that reach it, have said that they are."""
        own = self._local
        near = [i for i in self._member_ids() if i in self._sending or self.transport.is_connected(i)]
        known = {i: self.transport.known_endpoint(i) for i in near}
        places = {i: endpoint for i, endpoint in known.items() if endpoint is not None}
        return places if own.node_id is None else {**places, own.node_id: own.endpoint}

    def told(self, places: Mapping[int, Endpoint]) -> None:
        """Another node says where members are: dial those there that this node does not reach."""
        membership = self._node.engine.membership()
        for node_id, endpoint in places.items():
            member = membership.member(node_id)
            reached = self.transport.is_connected(node_id) or node_id in self._sending
            if member is not None and node_id != self._local.node_id and not reached:
                self._places.said(node_id, member, endpoint)
        self.refresh()

    def unreached(self) -> dict[int, Endpoint]:
        """The members that this node has not reached, each with its address in the log."""
        absent = [i for i in self._member_ids() if not self.transport.is_connected(i)]
        return {i: endpoint for i in absent if (endpoint := self._places.recorded(i)) is not None}

    def _member_ids(self) -> list[int]:
        membership = self._node.engine.membership()
        return [i for i in (*membership.voters, *membership.learners) if i != self._local.node_id]

    def _note_place(self, remote: RemoteIdentity) -> None:
        """Answer a member where it says that it is, if it has proved to be that member.

        While a secret is being rolled out, members without it are let in unproven. They are believed as long as nobody
        answers for them at another address.
        """
        own, node_id = self._local, remote.node_id
        if node_id is None or node_id == own.node_id:
            return
        if not remote.proven and self.transport.is_connected(node_id):
            return
        if own.cluster_id is None or remote.cluster_id != own.cluster_id:
            return
        member = self._node.engine.membership().member(node_id)
        if member is None or member.incarnation != remote.incarnation:
            return
        if self._places.said(node_id, member, remote.endpoint):  # seldom, and every forwarded request comes here
            self.refresh()

    # ------------------------------------------------------------------ PeerHandler

    def peer_connected(self, node_id: int) -> None:
        self._node.engine.peer_ready(node_id, True)
        self._node.driver.greet()

    def peer_disconnected(self, node_id: int) -> None:
        self._node.engine.peer_ready(node_id, False)
        if not self.transport.is_connected(node_id):
            self._node.snapshots.peer_gone(node_id)
            if node_id in self._sending:
                self._note_place(self._introduced[node_id])

    def peer_lost(self, node_id: int) -> None:
        self._sending.discard(node_id)
        self._node.guards.leader_connection_lost(node_id, self._clock.monotonic())

    def admit(self, remote: RemoteIdentity) -> str | None:
        """The reason to refuse the node, or None when it may talk to this one."""
        own = self._local
        if remote.cluster_id is not None and own.cluster_id is not None and remote.cluster_id != own.cluster_id:
            return f"this is cluster {own.cluster_id}, not {remote.cluster_id}: check raft addresses and data directories"
        if remote.node_id is not None:
            if remote.node_id == own.node_id and remote.incarnation != own.incarnation:
                return f"node id {own.node_id} is already in use by another node; give each node its own id"
            foreign = self._refuse_foreign(remote)
            if foreign is not None:
                return foreign
            self._introduced[remote.node_id] = remote
            self._sending.add(remote.node_id)
            self._note_place(remote)
            self.transport.hurry(remote.node_id)
        return None

    def message_received(self, node_id: int, generation: int, payload: bytes | memoryview) -> None:
        membership = self._node.engine.membership()
        member = membership.member(node_id)
        introduced = self._introduced.get(node_id)
        known = member is not None and introduced is not None and member.incarnation == introduced.incarnation
        if not known and is_answer(payload):
            if member is not None:
                self._warn(node_id, "answers of node %d do not count: its data directory is new, it has to join again")
                return
            if self._local.node_id in membership.voters:
                self._warn(node_id, "answers of node %d do not count: it is not a member of this cluster")
                return
        if member is None:
            self._learn_stranger(node_id)
        if not self._node.driver.incoming(node_id, bytes(payload)):
            self._warn(node_id, "a message from node %d is dropped: too many wait for the disk")

    def message_arrives(self, node_id: int) -> None:
        # The answer names the term, which is on disk only while no write is in flight.
        if self._node.guards.leader_sends(node_id, self._clock.monotonic(), answers=not self._node.driver.busy()):
            self._node.driver.wake()

    async def request_received(self, remote: RemoteIdentity, method: str, payload: bytes) -> bytes:
        self._note_place(remote)
        ASKED_BY.set(remote.node_id)
        # Every admitted node may ask; what it asks is checked where it is answered.
        return await self._answer(method, payload)

    def _learn_stranger(self, node_id: int) -> None:
        """Dial a node that is not a member by this node's configuration, so that it can be answered.

        It may lead or campaign all the same: this node may be joining, lag, or hold a change that was not committed. Its
        address is the one that it gave, or under which it is registered.
        """
        registered = self._node.machine.nodes.get(node_id)
        endpoint = self.transport.known_endpoint(node_id) or (registered.endpoint if registered is not None else None)
        if endpoint is not None and self._strangers.get(node_id) != endpoint:
            self._strangers[node_id] = endpoint
            self.refresh()

    def _warn(self, node_id: int, text: str) -> None:
        if (node_id, text) not in self._warned:
            self._warned.add((node_id, text))
            logger.warning(text, node_id)

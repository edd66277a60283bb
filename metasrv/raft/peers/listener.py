"""Accepted peer connections: the listening socket, how many there are, and which one of a node is its current one.

A newer connection of a node replaces the older one before its first message is delivered, so messages of two
connections never mix (D9, D12). Knows nothing of dialling. Runs on the event loop.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Coroutine
from itertools import chain
from typing import Any

from metasrv.model.errors import BindError
from metasrv.model.limits import PEER_CONNECTIONS_MAX, PEER_CONNECTIONS_RESERVED, REMOTE_GATEWAYS_MAX
from metasrv.model.loop_work import LoopWork
from metasrv.model.types import Endpoint
from metasrv.process.accepting import AcceptingSocket, Server, StartAccepting
from metasrv.process.clock import Clock
from metasrv.process.listening_socket import OpenSocket, listening_socket
from metasrv.process.loop_steps import timed
from metasrv.raft.observer import RaftObserver
from metasrv.raft.peers.accepted_connection import AcceptedConnection
from metasrv.raft.peers.connection import Connection
from metasrv.raft.peers.contacts import PeerContacts
from metasrv.raft.peers.gateway_streams import GatewayDoor
from metasrv.raft.peers.handshake import LocalIdentity, RemoteIdentity, Role
from metasrv.raft.peers.peer_handler import PeerHandler
from metasrv.raft.peers.quiet_log import QuietLog
from metasrv.raft.peers.security import PeerSecurity

_LOGGER = logging.getLogger(__name__)

PORT_NAME = "raft"
"""In logs and metrics."""
_BACKLOG = 128
"""Connections that the system holds until this process accepts them."""


class PeerListener:
    """The accepting half of the transport."""

    def __init__(
        self,
        identity: LocalIdentity,
        security: PeerSecurity,
        handler: PeerHandler,
        observer: RaftObserver,
        clock: Clock,
        contacts: PeerContacts,
        open_socket: OpenSocket = listening_socket,
        start_accepting: StartAccepting = AcceptingSocket,
    ) -> None:
        self._identity = identity
        self.security = security
        """What is proved and demanded from the next connection on."""
        self.gateways: GatewayDoor | None = None
        """Who serves gateways on other machines; they are refused while nobody does."""
        self._handler = handler
        self._observer = observer
        self._contacts = contacts
        self._open_socket = open_socket
        self._start_accepting = start_accepting
        self._log = QuietLog(_LOGGER, clock)
        self._server: Server | None = None
        self._accepted: dict[AcceptedConnection, None] = {}
        """In the order in which they came, which is the order in which they are closed; so with `_serving`."""
        self._current: dict[int, AcceptedConnection] = {}
        self._serving: dict[asyncio.Task[None], None] = {}
        self._generation = 0

    async def listen(self, host: str, port: int) -> Endpoint:
        """Open the listener on the first address of `host`; returns the bound address. Raises BindError."""
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(host or None, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            family, _, _, _, (address, _, *scope) = found[0]
            listening = self._open_socket(family, (address, port, *scope), _BACKLOG)
            bound = listening.getsockname()
            self._server = self._start_accepting(
                PORT_NAME, listening, self.new_connection, lambda: self.security.server_context, self._observer
            )
        except (OSError, UnicodeError, OverflowError) as error:
            reason = (isinstance(error, OSError) and error.strerror) or error
            raise BindError(f"cannot listen for peers on {Endpoint(host, port)}: {reason}") from error
        return Endpoint(str(bound[0]), int(bound[1]))

    def give_descriptor(self) -> bool:
        """Free a spare descriptor, so that this node can dial a peer; False when there is none."""
        return self._server is not None and self._server.give_descriptor()

    def new_connection(self) -> AcceptedConnection:
        """The protocol of a connection that is being accepted."""
        self._generation += 1
        return AcceptedConnection(self._identity, self.security, self._generation, self)

    @property
    def connections(self) -> tuple[AcceptedConnection, ...]:
        """All accepted connections that are not yet gone, oldest first."""
        return tuple(self._accepted)

    def stop(self, reason: str) -> None:
        """Accept no more, send what waits on each connection, close it, and end the requests that are being served."""
        if self._server is not None:
            self._server.close()
        for task in list(self._serving):
            task.cancel()
        for connection in self.connections:
            connection.close(reason)

    async def wait_stopped(self, timeout_ms: int) -> None:
        """Return when the requests that `stop` ended are over, or at the timeout."""
        if self._serving:
            await asyncio.wait(self._serving, timeout=timeout_ms / 1000)
        if self._server is not None:
            await self._server.wait_closed()

    # ------------------------------------------------------------------------- events of the connections

    def begun(self, connection: AcceptedConnection) -> str | None:
        """Strangers must not keep members out: one who was refused and does not go makes room, then the oldest."""
        self._accepted[connection] = None
        if len(self._accepted) <= PEER_CONNECTIONS_MAX:
            return None
        refused = (one for one in self._accepted if one.closed)
        strangers = (one for one in self._accepted if one.remote is None)
        oldest = next(chain(refused, strangers))
        if oldest is connection:
            return f"there are {PEER_CONNECTIONS_MAX} peer connections already"
        oldest.abort("it had not finished its handshake, and made room for a newer connection")
        self._accepted.pop(oldest, None)
        return None

    def admit(self, connection: AcceptedConnection, remote: RemoteIdentity) -> str | None:
        if connection.role is Role.GATEWAY:
            refusal = self._refuse_gateway()
            if refusal is not None:
                return refusal
        if connection.role is not Role.PEER or remote.node_id is None:
            others = sum(one.remote is not None and one.role is not Role.PEER for one in self._accepted)
            limit = PEER_CONNECTIONS_MAX - PEER_CONNECTIONS_RESERVED
            return f"there are {limit} connections of callers that are no peers already" if others >= limit else None
        current = self._current.get(remote.node_id)
        if current is not None and current.generation > connection.generation:
            return f"a newer connection of node {remote.node_id} is open"
        return self._handler.admit(remote)

    def _refuse_gateway(self) -> str | None:
        if self.gateways is None:
            return "this node serves no gateways on other machines now"
        if self._identity.cluster_id is None:
            return "this node belongs to no cluster yet, so no gateway can be linked to it"
        linked = sum(one.remote is not None and one.role is Role.GATEWAY for one in self._accepted)
        return (
            f"there are {linked} gateways on other machines already, the limit" if linked >= REMOTE_GATEWAYS_MAX else None
        )

    def established(self, connection: Connection) -> None:
        remote = connection.remote
        if remote is None or not isinstance(connection, AcceptedConnection):
            return
        if connection.unproven:
            self._log.warn(
                ("unproven", remote.node_id, _host(connection)),
                f"node {remote.node_id} at {_host(connection)} was let in without the shared secret, "
                "because raft_secret_strict is off",
            )
        if connection.role is Role.GATEWAY and self.gateways is not None:
            connection.gateway = self.gateways(connection)
        if remote.node_id is None or connection.role is not Role.PEER:
            return
        older = self._current.get(remote.node_id)
        self._current[remote.node_id] = connection
        self._contacts.introduced(remote)
        if older is not None:
            older.abort("a newer connection of the same node replaced it")

    def flow_changed(self, connection: Connection) -> None:
        del connection  # it holds back its own requests; nothing else depends on it

    def lost(self, connection: Connection) -> None:
        if not isinstance(connection, AcceptedConnection):
            return
        self._accepted.pop(connection, None)
        remote = connection.remote
        if remote is None:
            self._log.warn(
                ("stranger", _host(connection)),
                f"a connection from {_host(connection)} to the raft port came to nothing: {connection.failure}",
                whenever_it_changes=False,
            )
        elif remote.node_id is not None and self._current.get(remote.node_id) is connection:
            del self._current[remote.node_id]
            _LOGGER.info("node %d no longer sends to this node: %s", remote.node_id, connection.failure)
            self._handler.peer_lost(remote.node_id)

    def sent(self, connection: Connection, size_bytes: int) -> None:
        remote = connection.remote
        if remote is not None and remote.node_id is not None:
            self._observer.sent_bytes(remote.node_id, size_bytes)

    def received(self, connection: Connection, size_bytes: int) -> None:
        remote = connection.remote
        if remote is None or remote.node_id is None or connection.role is not Role.PEER:
            return
        self._contacts.heard(remote.node_id)
        self._observer.received_bytes(str(remote.endpoint), size_bytes)

    def raft_message(self, connection: AcceptedConnection, payload: bytes) -> None:
        remote = connection.remote
        if remote is not None and remote.node_id is not None:
            self._handler.message_received(remote.node_id, connection.generation, payload)

    def raft_message_arrives(self, connection: AcceptedConnection) -> None:
        remote = connection.remote
        if remote is not None and remote.node_id is not None and self._current.get(remote.node_id) is connection:
            self._handler.message_arrives(remote.node_id)

    async def request(self, remote: RemoteIdentity, method: str, payload: bytes) -> bytes:
        answer = self._handler.request_received(remote, method, payload)
        return await timed(LoopWork.PEER_REQUEST, self._observer.step_took, answer)

    def frames_took(self, seconds: float) -> None:
        self._observer.step_took(LoopWork.PEER_FRAMES, seconds)

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._serving[task] = None
        task.add_done_callback(self._serving.pop)


def _host(connection: Connection) -> str:
    """The host only; the port changes with every attempt."""
    return connection.address.rpartition(":")[0] or connection.address

"""Messages and requests between nodes: one object that the node's consensus holds.

Every node dials every peer it needs to send to, and sends raft messages only there; it receives them on connections
that it accepted. So nobody compares addresses to find out who dials (D18), and the two directions fail
apart. Knows nothing of what the messages say. Runs on the event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from metasrv.model.errors import NotDoneError, PeerUnreachableError, StoppingError
from metasrv.model.limits import PEER_BUFFER_SIZE_BYTES_MAX, PEER_REQUESTS_ASIDE_MAX
from metasrv.model.types import Endpoint
from metasrv.process.accepting import AcceptingSocket, StartAccepting
from metasrv.process.clock import Clock
from metasrv.process.listening_socket import OpenSocket, listening_socket
from metasrv.raft.observer import RaftObserver
from metasrv.raft.peers.connection import Connection
from metasrv.raft.peers.contacts import PeerContacts
from metasrv.raft.peers.dialling import Dialler, PeerLink
from metasrv.raft.peers.gateway_streams import GatewayDoor
from metasrv.raft.peers.handshake import LocalIdentity, RemoteIdentity, Role, other_cluster_in
from metasrv.raft.peers.listener import PeerListener
from metasrv.raft.peers.peer_handler import PeerHandler
from metasrv.raft.peers.quiet_log import QuietLog
from metasrv.raft.peers.security import PeerSecurity

__all__ = ["LocalIdentity", "PeerHandler", "PeerSecurity", "PeerTransport", "RemoteIdentity"]

_LOGGER = logging.getLogger(__name__)

CLOSE_GRACE_MS = 500
"""Time for the last messages to leave when the transport is closed."""
ASIDE_SIZE_BYTES = 256 * 1024
"""A larger request has a connection of its own: answers to the leader would wait behind it, and the leader step down."""
ASIDE_BUFFERED_SIZE_BYTES = 1024 * 1024
"""While so much waits to be sent, so have all requests."""


class PeerTransport:
    """The connections of one node to all others."""

    def __init__(
        self,
        identity: LocalIdentity,
        security: PeerSecurity,
        handler: PeerHandler,
        observer: RaftObserver,
        clock: Clock,
        open_socket: OpenSocket = listening_socket,
        start_accepting: StartAccepting = AcceptingSocket,
    ) -> None:
        self._identity = identity
        self._handler = handler
        self._observer = observer
        self._clock = clock
        self._log = QuietLog(_LOGGER, clock)
        self._contacts = PeerContacts(clock)
        self._listener = PeerListener(
            identity, security, handler, observer, clock, self._contacts, open_socket, start_accepting
        )
        self._dialler = Dialler(identity, security, self._listener.give_descriptor)
        self._links: dict[int, PeerLink] = {}
        self._told_up: set[int] = set()
        self._dialled: dict[Connection, None] = {}
        """In the order in which they were established."""
        self._aside = asyncio.Semaphore(PEER_REQUESTS_ASIDE_MAX)
        self._closed = False

    # ------------------------------------------------------------------------- life

    async def listen(self, host: str, port: int) -> Endpoint:
        """Accept peers on the first address of `host`; returns the bound address. Raises BindError."""
        return await self._listener.listen(host, port)

    def secure(self, security: PeerSecurity) -> None:
        """Prove and demand this from the next connection on; those that are open have shown enough, and stay."""
        self._dialler.security = self._listener.security = security

    def serve_gateways(self, door: GatewayDoor | None) -> None:
        """Let `door` serve gateways on other machines from now on; None: refuse further ones."""
        self._listener.gateways = door

    def set_peers(self, endpoints: Mapping[int, Endpoint]) -> None:
        """Keep a connection to each of these; dial those anew whose endpoint changed, drop those that are not named.

        Calls nothing of the handler before it returns. This node's own id is ignored.
        """
        wanted = {} if self._closed else {i: e for i, e in endpoints.items() if i != self._identity.node_id}
        for node_id, link in list(self._links.items()):
            if wanted.get(node_id) != link.endpoint:
                del self._links[node_id]
                link.stop("its address changed" if node_id in wanted else "it is no longer a peer")
            if node_id not in wanted:
                self._contacts.forget(node_id)
        for node_id, endpoint in wanted.items():
            if node_id not in self._links:
                self._links[node_id] = PeerLink(node_id, endpoint, self._dialler, self, self._clock)

    async def close(self) -> None:
        """Stop listening and dialling, send what waits for up to `CLOSE_GRACE_MS`, close everything."""
        if self._closed:
            return
        self._closed = True
        links, self._links = self._links, {}
        for link in links.values():
            link.finish("this node is shutting down")
        self._listener.stop("this node is shutting down")
        await self._wait_gone(CLOSE_GRACE_MS)
        for connection in self._open_connections():
            connection.abort("this node is shutting down")
        await self._wait_gone(CLOSE_GRACE_MS)
        await self._listener.wait_stopped(CLOSE_GRACE_MS)
        for link in links.values():
            await link.wait_stopped()

    async def _wait_gone(self, timeout_ms: int) -> None:
        gone = [connection.gone for connection in self._open_connections()]
        if gone:
            await asyncio.wait(gone, timeout=timeout_ms / 1000)

    def _open_connections(self) -> list[Connection]:
        return [*self._dialled, *self._listener.connections]

    # ------------------------------------------------------------------------- sending

    def send(self, node_id: int, payload: bytes) -> bool:
        """Send a raft message; False, and counted, when the peer is not connected or too much waits for it already.

        Messages sent in one iteration of the loop leave together at its end. Raises TooLargeError past the limit.
        """
        link = self._links.get(node_id)
        connection = None if link is None else link.connection
        if connection is None or not connection.is_open or _is_full(connection):
            self._observer.send_failed(node_id)
            return False
        connection.send_raft(payload)
        return True

    async def request(self, target: int | Endpoint, method: str, payload: bytes, timeout_ms: int) -> bytes:
        """Ask a peer by its id, over the dialled connection, or any node by its endpoint, over a temporary one.

        A large request to a peer has a temporary one as well, so that raft messages do not wait behind it.
        Raises PeerUnreachableError or another NotDoneError when it was certainly not sent (TooLargeError when it never
        will be), UnknownOutcomeError when it was sent and no answer came, otherwise what the other node raised.
        Cancelling the caller forgets the request.
        """
        if self._closed:
            raise StoppingError
        if isinstance(target, Endpoint):
            return await self._request_once(target, None, method, payload, timeout_ms)
        link = self._links.get(target)
        if link is None:
            raise PeerUnreachableError(f"node {target} is not a peer of this node")
        if link.connection is None:
            raise PeerUnreachableError(f"there is no connection to node {target}: {link.failure}")
        if len(payload) > ASIDE_SIZE_BYTES or link.connection.buffered_bytes > ASIDE_BUFFERED_SIZE_BYTES:
            return await self._request_aside(link, method, payload, timeout_ms)
        return await link.connection.request(method, payload, timeout_ms)

    async def _request_aside(self, link: PeerLink, method: str, payload: bytes, timeout_ms: int) -> bytes:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_ms / 1000
        try:
            async with asyncio.timeout_at(deadline):
                await self._aside.acquire()
        except TimeoutError:
            raise NotDoneError(
                f"{PEER_REQUESTS_ASIDE_MAX} other large requests to peers took all the time of this one"
            ) from None
        try:
            left_ms = int((deadline - loop.time()) * 1000)
            return await self._request_once(link.endpoint, link.node_id, method, payload, left_ms)
        finally:
            self._aside.release()

    async def _request_once(
        self, endpoint: Endpoint, node_id: int | None, method: str, payload: bytes, timeout_ms: int
    ) -> bytes:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_ms / 1000
        try:
            async with asyncio.timeout_at(deadline):
                connection = await self._dialler.dial(endpoint, Role.CLIENT, node_id, _Temporary(self._dialled))
        except TimeoutError:
            raise PeerUnreachableError(f"{endpoint} could not be reached within {timeout_ms} ms") from None
        try:
            if self._closed:
                raise StoppingError
            return await connection.request(method, payload, int((deadline - loop.time()) * 1000))
        finally:
            connection.close("the request is over")

    # ------------------------------------------------------------------------- questions

    def is_connected(self, node_id: int) -> bool:
        """Whether the connection to it is established. It may be paused all the same; then `send` takes nothing."""
        link = self._links.get(node_id)
        return link is not None and link.is_open

    def hurry(self, node_id: int) -> None:
        """The peer dialled this node, so it is up: dial it now instead of at the next attempt."""
        link = self._links.get(node_id)
        if link is not None:
            link.hurry()

    def last_contact(self, node_id: int) -> float | None:
        """Monotonic seconds of the last bytes from it on any connection; None when there were none."""
        return self._contacts.last_contact(node_id)

    def other_cluster(self, node_id: int) -> str | None:
        """The cluster that answers at the peer's address instead of this node's own; None while none does."""
        link = self._links.get(node_id)
        return None if link is None else link.other_cluster

    def known_endpoint(self, node_id: int) -> Endpoint | None:
        """Where it can be dialled, as it said in its last handshake."""
        return self._contacts.endpoint(node_id)

    def known_directory(self, node_id: int) -> str | None:
        """The data directory (incarnation) that it named in its last handshake."""
        return self._contacts.directory(node_id)

    # ------------------------------------------------------------------------- events of the links

    def link_established(self, link: PeerLink) -> None:
        connection = link.connection
        if connection is None or connection.remote is None:
            return
        link.other_cluster = None
        self._dialled[connection] = None
        self._contacts.introduced(connection.remote)
        self._log.recovered(("link", link.node_id), f"connected to node {link.node_id} at {link.endpoint}")
        self._observer.peer_connected(link.node_id, str(link.endpoint), True)
        self._tell(link.node_id)

    def link_lost(self, link: PeerLink, connection: Connection) -> None:
        self._dialled.pop(connection, None)
        self._observer.peer_connected(link.node_id, str(link.endpoint), False)
        if self._links.get(link.node_id) is link:
            self._log.warn(("link", link.node_id), f"the connection to node {link.node_id} ended: {link.failure}")
        if link.node_id in self._told_up:
            self._tell(link.node_id)
        else:
            # Paused: the handler knows that it cannot send, but not that what it sent is lost.
            self._handler.peer_disconnected(link.node_id)

    def link_failed(self, link: PeerLink, reason: str) -> None:
        self._observer.connect_failed(link.node_id, str(link.endpoint))
        link.other_cluster = other_cluster_in(reason, self._identity.cluster_id)
        if link.other_cluster is None:
            self._log.warn(("link", link.node_id), f"no connection to node {link.node_id}: {reason}")
            return
        sentence = (
            f"ANOTHER CLUSTER, {link.other_cluster}, answers at {link.endpoint}, the address of node {link.node_id} "
            f"of this cluster, {self._identity.cluster_id}: clients that know the address may read and write there; "
            "see docs/runbooks/another-cluster.md"
        )
        self._log.warn(("link", link.node_id), sentence, level=logging.ERROR)

    def link_flow_changed(self, link: PeerLink) -> None:
        # It may come from within `send`, where the handler does not expect to be called.
        asyncio.get_running_loop().call_soon(self._tell, link.node_id)

    def link_sent(self, link: PeerLink, size_bytes: int) -> None:
        self._observer.sent_bytes(link.node_id, size_bytes)

    def link_received(self, link: PeerLink, remote: RemoteIdentity, size_bytes: int) -> None:
        self._contacts.heard(link.node_id)
        self._observer.received_bytes(str(remote.endpoint), size_bytes)

    def _tell(self, node_id: int) -> None:
        """Tell the handler when a peer came up, went down or was paused since it was last told."""
        link = self._links.get(node_id)
        up = link is not None and link.is_up
        if up == (node_id in self._told_up):
            return
        if up:
            self._told_up.add(node_id)
            self._handler.peer_connected(node_id)
        else:
            self._told_up.discard(node_id)
            self._handler.peer_disconnected(node_id)


def _is_full(connection: Connection) -> bool:
    return connection.paused and connection.buffered_bytes >= PEER_BUFFER_SIZE_BYTES_MAX


class _Temporary:
    """Owner of a connection for one request: only keeps it among the open ones."""

    def __init__(self, connections: dict[Connection, None]) -> None:
        self._connections = connections

    def established(self, connection: Connection) -> None:
        self._connections[connection] = None

    def lost(self, connection: Connection) -> None:
        self._connections.pop(connection, None)

    def flow_changed(self, connection: Connection) -> None:
        del connection

    def sent(self, connection: Connection, size_bytes: int) -> None:
        del connection, size_bytes

    def received(self, connection: Connection, size_bytes: int) -> None:
        del connection, size_bytes

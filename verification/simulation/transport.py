"""The peer transport of a simulated process: what `PeerTransport` promises, over the virtual network.

Keeps one dialled connection to each peer, dials again while it is down, takes the newest accepted connection of each
node, and carries requests with their answers. Handshakes are made of values, not of bytes: who the other is, and whether
this node admits it, is asked as in the real one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from zlib import crc32

from metasrv.model.errors import NotDoneError, PeerUnreachableError, RequestError, StoppingError, UnknownOutcomeError
from metasrv.model.types import Endpoint
from metasrv.process.clock import Clock
from metasrv.raft.observer import RaftObserver
from metasrv.raft.peers.contacts import PeerContacts
from metasrv.raft.peers.dialling import CONNECT_TIMEOUT_MS, HURRIED_DELAY_MS, REDIAL_DELAY_MS_MAX, REDIAL_DELAY_MS_MIN
from metasrv.raft.peers.handshake import LocalIdentity, RemoteIdentity
from metasrv.raft.peers.peer_handler import PeerHandler
from metasrv.raft.peers.security import PeerSecurity
from metasrv.raft.peers.wire_errors import decode_error, encode_error
from verification.simulation.loop import SimulatedLoop
from verification.simulation.network import Connection, Network

_HANDSHAKE_TRIPS = 3


class _Link:
    """What this node knows of one peer that it dials."""

    def __init__(self, node_id: int, endpoint: Endpoint) -> None:
        self.node_id = node_id
        self.endpoint = endpoint
        self.connection: Connection | None = None
        self.established_at = 0.0
        self.delay_ms = REDIAL_DELAY_MS_MIN
        self.timer: asyncio.TimerHandle | None = None
        self.dialling = False
        self.dropped = False
        self.failure = "it was not yet dialled"


class SimulatedTransport:
    """Implements `Transport` and `End`."""

    def __init__(
        self,
        network: Network,
        machine: int,
        loop: SimulatedLoop,
        identity: LocalIdentity,
        security: PeerSecurity,
        handler: PeerHandler,
        observer: RaftObserver,
        clock: Clock,
    ) -> None:
        del security
        self.machine = machine
        self.identity = identity
        self.handler = handler
        self.loop = loop
        self._network = network
        self._observer = observer
        self._clock = clock
        self._contacts = PeerContacts(clock)
        self._links: dict[int, _Link] = {}
        self._told_up: set[int] = set()
        self._accepted: dict[int, Connection] = {}
        """The current connection of each node that dialled this one."""
        self._remotes: dict[Connection, RemoteIdentity] = {}
        self._handshakes: dict[Connection, Callable[[], None]] = {}
        """What to call when a connection breaks before its handshake is over."""
        self._waiting: dict[Connection, dict[int, asyncio.Future[bytes]]] = {}
        self._generation = 0
        self._requests = 0
        self._closed = False
        self.sending: Callable[[int, bytes], None] = lambda _node_id, _payload: None
        """Hears of each raft message before it leaves."""

    @property
    def alive(self) -> bool:
        return not self.loop.dead

    # ------------------------------------------------------------------ life

    async def listen(self, host: str, port: int) -> Endpoint:
        endpoint = Endpoint(host, port)
        self._network.listen(endpoint, self)
        return endpoint

    def set_peers(self, endpoints: Mapping[int, Endpoint]) -> None:
        wanted = {} if self._closed else {i: e for i, e in endpoints.items() if i != self.identity.node_id}
        for node_id, link in list(self._links.items()):
            if wanted.get(node_id) != link.endpoint:
                del self._links[node_id]
                self._drop(link)
            if node_id not in wanted:
                self._contacts.forget(node_id)
        for node_id, endpoint in wanted.items():
            if node_id not in self._links:
                link = self._links[node_id] = _Link(node_id, endpoint)
                self.loop.call_soon(self._dial, link)

    def _drop(self, link: _Link) -> None:
        link.dropped = True
        if link.timer is not None:
            link.timer.cancel()
        connection, link.connection = link.connection, None
        if connection is not None:
            self._network.close(connection, 0, "it is no longer a peer")
            self.loop.call_soon(self._tell, link.node_id)

    async def close(self) -> None:
        self._closed = True
        links, self._links = self._links, {}
        for link in links.values():
            self._drop(link)
        for connection in list(self._accepted.values()):
            self._network.close(connection, 1, "this node is shutting down")
        self._network.process_ended(self, power_lost=False)
        await asyncio.sleep(0)

    # ------------------------------------------------------------------ sending

    def send(self, node_id: int, payload: bytes) -> bool:
        link = self._links.get(node_id)
        connection = None if link is None else link.connection
        if connection is None:
            self._observer.send_failed(node_id)
            return False
        self.sending(node_id, payload)
        if self._network.note is not None:
            self._network.note(f"{self.machine}>{node_id} {len(payload)} bytes, {crc32(payload):08x}")
        acceptor = _transport_at(connection, 1)
        self._network.send(connection, 0, lambda: acceptor.message_arrived(connection, payload), raft=True)
        return True

    def message_arrived(self, connection: Connection, payload: bytes) -> None:
        self.loop.call_soon(self._take_message, connection, payload)

    def _take_message(self, connection: Connection, payload: bytes) -> None:
        remote = self._remotes.get(connection)
        if remote is None or remote.node_id is None or not connection.open[1]:
            return
        self._contacts.heard(remote.node_id)
        self.handler.message_received(remote.node_id, connection.generation, payload)

    async def request(self, target: int | Endpoint, method: str, payload: bytes, timeout_ms: int) -> bytes:
        if self._closed:
            raise StoppingError
        if isinstance(target, Endpoint):
            return await self._request_once(target, method, payload, timeout_ms)
        link = self._links.get(target)
        if link is None:
            raise PeerUnreachableError(f"node {target} is not a peer of this node")
        if link.connection is None:
            raise PeerUnreachableError(f"there is no connection to node {target}: {link.failure}")
        return await self._request(link.connection, method, payload, timeout_ms)

    async def _request_once(self, endpoint: Endpoint, method: str, payload: bytes, timeout_ms: int) -> bytes:
        deadline = self.loop.time() + timeout_ms / 1000
        dialled: asyncio.Future[Connection | None] = self.loop.create_future()
        self._attempt(endpoint, None, _set_once(dialled))
        try:
            async with asyncio.timeout_at(deadline):
                connection = await dialled
        except TimeoutError:
            raise PeerUnreachableError(f"{endpoint} could not be reached within {timeout_ms} ms") from None
        if connection is None:
            raise PeerUnreachableError(f"{endpoint} can not be reached")
        try:
            return await self._request(connection, method, payload, int((deadline - self.loop.time()) * 1000))
        finally:
            self._network.close(connection, 0, "the request is over")

    async def _request(self, connection: Connection, method: str, payload: bytes, timeout_ms: int) -> bytes:
        if not connection.open[0]:  # it broke while this process was paused, between dialling and asking
            raise PeerUnreachableError("there is no connection: it broke before the request was sent")
        if timeout_ms <= 0:
            raise NotDoneError(f"no time was left to send the request {method!r} to a peer")
        self._requests += 1
        number = self._requests
        waiting = self._waiting.setdefault(connection, {})
        answer: asyncio.Future[bytes] = self.loop.create_future()
        waiting[number] = answer
        acceptor = _transport_at(connection, 1)
        self._network.send(connection, 0, lambda: acceptor.request_arrived(connection, number, method, payload))
        overdue = UnknownOutcomeError(f"the peer did not answer {method!r} within {timeout_ms} ms")
        timer = self.loop.call_later(timeout_ms / 1000, _fail, answer, overdue)
        try:
            return await answer
        finally:
            timer.cancel()
            waiting.pop(number, None)

    def request_arrived(self, connection: Connection, number: int, method: str, payload: bytes) -> None:
        self.loop.call_soon(self._serve, connection, number, method, payload)

    def _serve(self, connection: Connection, number: int, method: str, payload: bytes) -> None:
        remote = self._remotes.get(connection)
        if remote is not None and not self._closed:
            self.loop.create_task(self._answer(connection, remote, number, method, payload))

    async def _answer(
        self, connection: Connection, remote: RemoteIdentity, number: int, method: str, payload: bytes
    ) -> None:
        try:
            succeeded, body = True, await self.handler.request_received(remote, method, payload)
        except RequestError as error:
            succeeded, body = False, encode_error(error)
        dialler = _transport_at(connection, 0)
        self._network.send(connection, 1, lambda: dialler.answer_arrived(connection, number, succeeded, body))

    def answer_arrived(self, connection: Connection, number: int, succeeded: bool, body: bytes) -> None:
        def take() -> None:
            answer = self._waiting.get(connection, {}).get(number)
            if answer is None or answer.done():
                return
            if succeeded:
                answer.set_result(body)
            else:
                _fail(answer, decode_error(body))

        self.loop.call_soon(take)

    # ------------------------------------------------------------------ questions

    def is_connected(self, node_id: int) -> bool:
        link = self._links.get(node_id)
        return link is not None and link.connection is not None

    def hurry(self, node_id: int) -> None:
        link = self._links.get(node_id)
        if link is not None and link.timer is not None and not link.dialling and link.connection is None:
            link.timer.cancel()
            link.timer = self.loop.call_later(HURRIED_DELAY_MS / 1000, self._dial, link)

    def last_contact(self, node_id: int) -> float | None:
        return self._contacts.last_contact(node_id)

    def known_endpoint(self, node_id: int) -> Endpoint | None:
        return self._contacts.endpoint(node_id)

    # ------------------------------------------------------------------ dialling

    def _dial(self, link: _Link) -> None:
        if link.dropped or link.connection is not None or link.dialling:
            return
        link.dialling = True

        def dialled(connection: Connection | None) -> None:
            link.dialling = False
            if link.dropped or self._closed:
                if connection is not None:
                    self._network.close(connection, 0, "it is no longer a peer")
                return
            if connection is None:
                link.failure = "it could not be reached"
                self._dial_later(link)
                return
            link.connection = connection
            link.established_at = self.loop.time()
            self._contacts.introduced(_remote_of(_transport_at(connection, 1).identity))
            self._tell(link.node_id)

        self._attempt(link.endpoint, link.node_id, dialled)

    def _dial_later(self, link: _Link) -> None:
        link.timer = self.loop.call_later(max(HURRIED_DELAY_MS, link.delay_ms) / 1000, self._dial, link)
        link.delay_ms = min(2 * link.delay_ms, REDIAL_DELAY_MS_MAX)

    def _attempt(self, endpoint: Endpoint, expected_id: int | None, dialled: Callable[[Connection | None], None]) -> None:
        """Connect and shake hands; `dialled` is called in this process's loop."""
        network, loop = self._network, self.loop
        target = network.listener(endpoint)
        own = self.machine
        if (
            not isinstance(target, SimulatedTransport)
            or network.is_cut(own, target.machine)
            or network.is_cut(target.machine, own)
        ):
            refused = target is None
            loop.call_later(0.001 if refused else CONNECT_TIMEOUT_MS / 1000, dialled, None)
            return
        connection = network.connect(self, target)

        def answered(agreed: bool) -> None:
            if not agreed or (expected_id is not None and target.identity.node_id != expected_id):
                network.close(connection, 0, "the handshake failed")
                agreed = False
            loop.call_soon(dialled, connection if agreed else None)

        def broken() -> None:
            loop.call_soon(dialled, None)

        self._handshakes[connection] = broken
        seconds = sum(network.delay(own, target.machine) for _ in range(_HANDSHAKE_TRIPS))
        loop.call_later(
            seconds,
            lambda: network.send(
                connection, 0, lambda: target.greeted(connection, expected_id is not None, lambda ok: done(ok))
            ),
        )

        def done(agreed: bool) -> None:
            if self._handshakes.pop(connection, None) is not None:
                answered(agreed)

    def greeted(self, connection: Connection, as_peer: bool, answered: Callable[[bool], None]) -> None:
        """A handshake arrived."""
        self.loop.call_soon(self._shake_hands, connection, as_peer, answered)

    def _shake_hands(self, connection: Connection, as_peer: bool, answered: Callable[[bool], None]) -> None:
        remote = _remote_of(_transport_at(connection, 0).identity)
        own = self.identity
        strange = None not in (own.cluster_id, remote.cluster_id) and own.cluster_id != remote.cluster_id
        namesake = remote.node_id == own.node_id and (as_peer or remote.incarnation != own.incarnation)
        refused = strange or namesake or self._closed
        if not refused and as_peer:
            refused = self.handler.admit(remote) is not None
        if not refused:
            self._generation += 1
            connection.generation = self._generation
            self._remotes[connection] = remote
            if as_peer and remote.node_id is not None:
                older = self._accepted.get(remote.node_id)
                self._accepted[remote.node_id] = connection
                self._contacts.introduced(remote)
                if older is not None:
                    self._network.close(older, 1, "a newer connection of the same node replaced it")
        self._network.send(connection, 1, lambda: answered(not refused))

    # ------------------------------------------------------------------ endings

    def connection_broken(self, connection: Connection, reason: str) -> None:
        """Called by the network when this side of a connection is closed, whoever closed it."""
        self.loop.call_soon(self._lost, connection, reason)

    def _lost(self, connection: Connection, reason: str) -> None:
        remote = self._remotes.pop(connection, None)
        if remote is not None and remote.node_id is not None and self._accepted.get(remote.node_id) is connection:
            del self._accepted[remote.node_id]
            self.handler.peer_lost(remote.node_id)
        broken = self._handshakes.pop(connection, None)
        if broken is not None:
            broken()
        for answer in self._waiting.pop(connection, {}).values():
            _fail(answer, UnknownOutcomeError(f"the connection ended before the peer answered: {reason}"))
        for link in self._links.values():
            if link.connection is connection:
                link.connection = None
                link.failure = reason
                if self.loop.time() - link.established_at >= REDIAL_DELAY_MS_MAX / 1000:
                    link.delay_ms = REDIAL_DELAY_MS_MIN
                self._dial_later(link)
                self._tell(link.node_id)

    def _tell(self, node_id: int) -> None:
        up = self.is_connected(node_id)
        if up == (node_id in self._told_up):
            return
        if up:
            self._told_up.add(node_id)
            self.handler.peer_connected(node_id)
        else:
            self._told_up.discard(node_id)
            self.handler.peer_disconnected(node_id)


def _transport_at(connection: Connection, side: int) -> SimulatedTransport:
    end = connection.ends[side]
    assert isinstance(end, SimulatedTransport)
    return end


def _remote_of(identity: LocalIdentity) -> RemoteIdentity:
    return RemoteIdentity(identity.node_id, identity.incarnation, identity.endpoint, identity.cluster_id)


def _set_once(future: asyncio.Future[Connection | None]) -> Callable[[Connection | None], None]:
    def done(connection: Connection | None) -> None:
        if not future.done():
            future.set_result(connection)

    return done


def _fail(answer: asyncio.Future[bytes], error: RequestError) -> None:
    if not answer.done():
        answer.set_exception(error)
        answer.exception()  # whoever waited may have been cancelled meanwhile

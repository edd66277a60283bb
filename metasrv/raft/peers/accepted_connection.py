"""The end of a peer connection that accepted: receives raft messages and requests, sends answers.

Nothing of a caller reaches the node before its handshake is over. Knows nothing of listeners, nor which connection of a
node is its current one. Runs on the event loop.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Coroutine
from time import perf_counter
from typing import Any, Protocol

from metasrv.model.errors import (
    FrameError,
    OverloadedError,
    PeerUnreachableError,
    RequestError,
    TooLargeError,
    UnknownOutcomeError,
)
from metasrv.model.limits import REQUESTS_IN_FLIGHT_PER_PEER_MAX
from metasrv.model.wire import pack
from metasrv.raft.peers.connection import Connection, ConnectionEvents, triple
from metasrv.raft.peers.frames import Frame, FrameKind
from metasrv.raft.peers.handshake import AcceptorHandshake, LocalIdentity, RemoteIdentity, Role, encode_refusal
from metasrv.raft.peers.security import NONCE_SIZE_BYTES, PeerSecurity
from metasrv.raft.peers.wire_errors import encode_error

_LOGGER = logging.getLogger(__name__)


PROGRESS_SIZE_BYTES = 64 * 1024
"""What must arrive of a large message to count as a sign of life; a connection that trickles gives none."""


class AcceptorEvents(ConnectionEvents, Protocol):
    """What an accepted connection tells and asks its owner in addition."""

    def begun(self, connection: AcceptedConnection) -> str | None:
        """The stream is open; the reason to close it when there is no room for it, or None."""
        ...

    def admit(self, connection: AcceptedConnection, remote: RemoteIdentity) -> str | None:
        """The reason to refuse the proven caller, or None. `connection.role` and `.generation` are set."""
        ...

    def raft_message(self, connection: AcceptedConnection, payload: bytes) -> None: ...

    def raft_message_arrives(self, connection: AcceptedConnection) -> None:
        """Another `PROGRESS_SIZE_BYTES` of a raft message that is not yet here as a whole."""
        ...

    async def request(self, remote: RemoteIdentity, method: str, payload: bytes) -> bytes: ...

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` in a task that outlives the connection."""
        ...

    def frames_took(self, seconds: float) -> None:
        """How long the loop was kept by what arrived at once."""
        ...


class AcceptedConnection(Connection):
    """The end that accepted: receives raft messages and requests, sends answers."""

    def __init__(self, identity: LocalIdentity, security: PeerSecurity, generation: int, events: AcceptorEvents) -> None:
        super().__init__(events)
        self.generation = generation
        """Increases from one accepted connection of this process to the next."""
        self.unproven = False
        """Let in without a proof although this node holds a secret."""
        self._acceptor_events = events
        self._security = security
        self._handshake = AcceptorHandshake(identity, security, secrets.token_bytes(NONCE_SIZE_BYTES))
        self._expected_kind = FrameKind.HELLO
        self._serving = 0
        self._unfinished_size_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        no_room = self._acceptor_events.begun(self)
        if no_room is not None:
            self.abort(no_room)

    def data_received(self, data: bytes) -> None:
        started = perf_counter()
        super().data_received(data)
        self._note_progress(len(data))
        self._acceptor_events.frames_took(perf_counter() - started)

    def _note_progress(self, size_bytes: int) -> None:
        """Tell of a large raft message while it arrives: heartbeats wait behind it on this connection."""
        if self.closed or self.role is not Role.PEER or self._reader.unfinished_kind != FrameKind.RAFT:
            self._unfinished_size_bytes = 0
            return
        self._unfinished_size_bytes += size_bytes
        if self._unfinished_size_bytes >= PROGRESS_SIZE_BYTES:
            self._unfinished_size_bytes = 0
            self._acceptor_events.raft_message_arrives(self)

    def pause_writing(self) -> None:
        """The peer does not read its answers: take no more requests from it until it does."""
        super().pause_writing()
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _frame_received(self, frame: Frame) -> None:
        remote = self.remote
        if remote is None:
            self._handshake_frame_received(frame)
        elif frame.kind == FrameKind.RAFT and self.role is Role.PEER:
            self._acceptor_events.raft_message(self, frame.payload)
        elif self.role is Role.GATEWAY:
            if frame.kind != FrameKind.GATEWAY or self.gateway is None:
                raise FrameError(f"a gateway sent a frame of kind {frame.kind}, which only nodes may")
            self.gateway.frame_received(frame.payload)
        elif frame.kind == FrameKind.REQUEST:
            self._request_received(remote, frame.payload)
        else:
            raise FrameError(f"a frame of kind {frame.kind} came where it may not")

    def _handshake_frame_received(self, frame: Frame) -> None:
        if frame.kind != self._expected_kind:
            raise FrameError(f"a frame of kind {frame.kind} came during the handshake, {self._expected_kind} was due")
        if frame.kind == FrameKind.HELLO:
            self._expected_kind = FrameKind.PROOF
            self._send(FrameKind.CHALLENGE, self._handshake.greeted(frame.payload))
            return
        remote, self.role = self._handshake.proved(frame.payload)
        self.unproven = self._handshake.unproven
        is_node = remote.node_id is not None or self.role is Role.GATEWAY
        host = remote.endpoint.addr if is_node else None  # a gateway shows a certificate as a node does
        self._security.check_caller(self.certificate, host, self._handshake.secret_proved)
        refusal = self._acceptor_events.admit(self, remote)
        if refusal is not None:
            raise PeerUnreachableError(refusal)
        payload, agreement = self._handshake.welcome()
        self._send(FrameKind.WELCOME, payload)
        self._agreed(agreement, dialled=False)
        self._events.established(self)

    def _fail(self, reason: str) -> None:
        if self.remote is not None:
            self.abort(reason)
            return
        self._send(FrameKind.REFUSAL, encode_refusal(reason))
        self.close(reason)

    def _request_received(self, remote: RemoteIdentity, payload: bytes) -> None:
        number, method, body = triple(payload)
        if type(number) is not int or type(method) is not str or type(body) is not bytes:
            raise FrameError("a request is not understood")
        if self._serving >= REQUESTS_IN_FLIGHT_PER_PEER_MAX:
            overloaded = OverloadedError(f"{self._serving} requests of this peer are already being served")
            self._answer(number, False, encode_error(overloaded))
            return
        self._serving += 1
        self._acceptor_events.start(self._serve(remote, number, method, body))

    async def _serve(self, remote: RemoteIdentity, number: int, method: str, payload: bytes) -> None:
        try:
            succeeded, body = True, await self._acceptor_events.request(remote, method, payload)
        except RequestError as error:
            succeeded, body = False, encode_error(error)
        except Exception as error:
            _LOGGER.exception("the request %r of %s failed unexpectedly", method, self.address)
            succeeded, body = False, encode_error(error)
        finally:
            self._serving -= 1
        self._answer(number, succeeded, body)

    def _answer(self, number: int, succeeded: bool, body: bytes) -> None:
        if self.closed:
            return
        try:
            self._send(FrameKind.RESPONSE, pack((number, succeeded, body)))
        except TooLargeError as error:
            unknown = UnknownOutcomeError(f"the request was executed, but its answer cannot be sent: {error}")
            self._send(FrameKind.RESPONSE, pack((number, False, encode_error(unknown))))

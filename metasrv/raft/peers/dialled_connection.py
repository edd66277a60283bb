"""The end of a peer connection that dialled: sends raft messages and requests, receives answers.

A request ends as answered, *certainly not sent* or *unknown*; nothing is sent twice. Knows nothing of redialling or
addresses. Runs on the event loop.
"""

from __future__ import annotations

import asyncio
import secrets

from metasrv.model.errors import (
    AuthenticationError,
    FrameError,
    NotDoneError,
    OverloadedError,
    PeerUnreachableError,
    RequestError,
    UnknownOutcomeError,
)
from metasrv.model.limits import REQUESTS_IN_FLIGHT_PER_PEER_MAX
from metasrv.model.wire import pack
from metasrv.raft.peers.connection import Connection, ConnectionEvents, triple
from metasrv.raft.peers.frames import Frame, FrameKind
from metasrv.raft.peers.handshake import Agreement, DiallerHandshake, LocalIdentity, Role, decode_refusal
from metasrv.raft.peers.security import NONCE_SIZE_BYTES, PeerSecurity
from metasrv.raft.peers.wire_errors import decode_error


class DialledConnection(Connection):
    """The end that dialled: sends raft messages and requests, receives answers."""

    def __init__(
        self,
        identity: LocalIdentity,
        security: PeerSecurity,
        role: Role,
        expected_node_id: int | None,
        events: ConnectionEvents,
        host: str = "",
    ) -> None:
        """`host` is what was dialled, for which the other side needs a certificate if there is TLS."""
        super().__init__(events)
        self.ready: asyncio.Future[str | None] = self._loop.create_future()
        """None once the connection is established, or why it will never be."""
        self._expected_node_id = expected_node_id
        self._security = security
        self._host = host
        self._handshake = DiallerHandshake(identity, security, role, secrets.token_bytes(NONCE_SIZE_BYTES))
        self._expected_kind = FrameKind.CHALLENGE
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        self._last_request = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self.closed:
            return
        try:
            self._security.check_answerer(self.certificate, self._host)
        except AuthenticationError as error:
            self.abort(str(error))
        else:
            self._send(FrameKind.HELLO, self._handshake.hello())

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is None and not self.ready.done() and self._expected_kind == FrameKind.CHALLENGE:
            # A server of TLS tells no plain caller why, and with TLS 1.3 not at once whose certificate it does not take.
            self._end(
                "the other side closed the connection before it said a word: it may demand TLS, or a certificate of its "
                "own authority (raft_tls_ca, raft_tls_cert, raft_tls_key)"
            )
        super().connection_lost(exc)

    def send_raft(self, payload: bytes) -> None:
        """Send a raft message on an open connection. Raises TooLargeError."""
        self._send(FrameKind.RAFT, payload)

    async def request(self, method: str, payload: bytes, timeout_ms: int) -> bytes:
        """Ask the peer; errors as in `PeerTransport.request`."""
        if not self.is_open:
            raise PeerUnreachableError(f"there is no connection: {self.failure or 'the handshake is not over'}")
        if self.paused or len(self._waiting) >= REQUESTS_IN_FLIGHT_PER_PEER_MAX:
            raise OverloadedError(
                f"{len(self._waiting)} requests and {self.buffered_bytes} bytes wait for the peer at {self.address}"
            )
        if timeout_ms <= 0:
            raise NotDoneError(f"no time was left to send the request {method!r} to a peer")
        self._last_request = number = self._last_request + 1
        self._send(FrameKind.REQUEST, pack((number, method, payload)))
        answer: asyncio.Future[bytes] = self._loop.create_future()
        self._waiting[number] = answer
        overdue = UnknownOutcomeError(f"the peer at {self.address} did not answer {method!r} within {timeout_ms} ms")
        timer = self._loop.call_later(timeout_ms / 1000, _fail_future, answer, overdue)
        try:
            return await answer
        finally:
            timer.cancel()
            self._waiting.pop(number, None)

    def _frame_received(self, frame: Frame) -> None:
        if self.remote is not None:
            if self.gateway is not None and frame.kind == FrameKind.GATEWAY:
                self.gateway.frame_received(frame.payload)
                return
            if frame.kind != FrameKind.RESPONSE:
                raise FrameError(f"a frame of kind {frame.kind} came where only answers may")
            self._answer_received(frame.payload)
        elif frame.kind == FrameKind.REFUSAL:
            raise PeerUnreachableError(f"it refused: {decode_refusal(frame.payload)}")
        elif frame.kind != self._expected_kind:
            raise FrameError(f"a frame of kind {frame.kind} came during the handshake, {self._expected_kind} was due")
        elif frame.kind == FrameKind.CHALLENGE:
            self._expected_kind = FrameKind.WELCOME
            self._send(FrameKind.PROOF, self._handshake.challenged(frame.payload))
        else:
            self._welcomed(self._handshake.welcomed(frame.payload))

    def _welcomed(self, agreement: Agreement) -> None:
        node_id = agreement.remote.node_id
        if self._expected_node_id is not None and node_id != self._expected_node_id:
            raise PeerUnreachableError(f"node {node_id} answers there, node {self._expected_node_id} was expected")
        self._agreed(agreement, dialled=True)
        self.ready.set_result(None)
        self._events.established(self)

    def _answer_received(self, payload: bytes) -> None:
        number, succeeded, body = triple(payload)
        if type(number) is not int or type(succeeded) is not bool or type(body) is not bytes:
            raise FrameError("an answer is not understood")
        answer = self._waiting.get(number)
        if answer is None or answer.done():
            return  # nobody waits for it any more
        if succeeded:
            answer.set_result(body)
        else:
            _fail_future(answer, decode_error(body))

    def _end(self, reason: str) -> None:
        super()._end(reason)
        if not self.ready.done():
            self.ready.set_result(self.failure)
        for answer in self._waiting.values():
            _fail_future(answer, UnknownOutcomeError(f"the connection ended before the peer answered: {self.failure}"))


def _fail_future(answer: asyncio.Future[bytes], error: RequestError) -> None:
    if not answer.done():
        answer.set_exception(error)
        answer.exception()  # whoever waited may have been cancelled meanwhile: then nobody is left to be told

"""One call on the server: the request as it arrives, the task that runs the handler, the response and its status.

A call is one stream of a connection. Implements `metasrv.grpc_api.calls.Call`. Runs on the event loop. A call with one
small message each way is the hot path and touches no queue.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, NoReturn

from metasrv.grpc_api.http2.frames import ErrorCode, Http2StreamError, rst_stream
from metasrv.grpc_api.http2.headers import (
    ENCODINGS,
    OK_TRAILERS,
    Metadata,
    Request,
    response_headers,
    status_trailers,
)
from metasrv.grpc_api.http2.interfaces import StreamConnection
from metasrv.grpc_api.http2.messages import (
    PREFIX_SIZE_BYTES,
    Compressed,
    MessageError,
    is_message,
    length_prefixed,
    message_prefix,
)
from metasrv.grpc_api.http2.output import Output
from metasrv.grpc_api.http2.portions import Standing
from metasrv.grpc_api.http2.receiving import Receiver, Requests
from metasrv.grpc_api.http2.route import Route, Waiting
from metasrv.grpc_api.http2.sending import TICK_SECONDS, Sender
from metasrv.grpc_api.http2.status import CallAbortedError, CallEndedError, StatusCode

logger = logging.getLogger(__name__)

SMALL_SIZE_BYTES_MAX = 4 * 1024
"""Headers and requests up to this size are not counted as held: the number of calls bounds them."""
WRITES_PER_STEP, WRITE_SIZE_BYTES = 64, 1024
"""A stream that always finds room lets the rest of the loop run after this number of writes; one counts for each KiB."""


class ServerCall:
    """A stream of a connection, from its headers to its trailers."""

    __slots__ = (
        "_connection",
        "_headers_bytes",
        "_initial_metadata",
        "_receiver",
        "_request",
        "_route",
        "_stream_id",
        "_task",
        "_unsent_bytes",
        "_writes",
        "closed",
        "deadline",
        "held_bytes",
        "request_ended",
        "request_ticks",
        "sender",
    )

    def __init__(
        self, connection: StreamConnection, stream_id: int, request: Request, route: Route, deadline: float | None
    ) -> None:
        self._connection = connection
        self._stream_id = stream_id
        self._request = request
        self._route = route
        self._initial_metadata: Metadata = ()
        self._receiver: Receiver | None = None
        self.request_ended = False
        """Whether the client has sent all of its request."""
        self._headers_bytes = request.size_bytes if request.size_bytes > SMALL_SIZE_BYTES_MAX else 0
        self.held_bytes = 0
        """What the budget counts of the request: large headers, what arrived, and what the handler works on."""
        self.request_ticks = 0
        """Ticks of the server in which the request, a single message, was not complete."""
        self._task: asyncio.Task[None] | Waiting | None = None
        self._writes = 0
        self._unsent_bytes = request.content_length
        """What is still to come of the request by its content-length, None without one."""
        self.deadline = deadline
        """On the event loop's clock."""
        self.closed = False
        self.sender = Sender(connection, stream_id, self._sent)

    # ------------------------------------------------------------------------- for handlers

    def invocation_metadata(self) -> Metadata:
        return self._request.metadata

    def time_remaining(self) -> float | None:
        """Seconds until the client's deadline, None without one."""
        return None if self.deadline is None else self.deadline - self._connection.loop.time()

    def peer(self) -> str:
        return self._connection.peer

    def peer_certificate(self) -> Any:
        """The verified certificate of the client, as `ssl.SSLSocket.getpeercert` gives it; falsy without one."""
        return self._connection.peer_certificate

    def done(self) -> bool:
        """Whether the call has its status, or its client is gone."""
        return self.closed

    def standing(self) -> Standing:
        return self._connection.standing

    def prove(self) -> None:
        if self._connection.standing is Standing.STRANGER:
            self._connection.prove()

    def stalled_seconds(self) -> float:
        return self.sender.stalled_ticks * TICK_SECONDS if self.sender.waits else 0.0

    async def send_initial_metadata(self, metadata: Metadata) -> None:
        """Set the metadata of the response's headers, before the first message; raises CallEndedError.

        A stream sends its headers now; a single reply sends them together with its message.
        """
        if self.closed:
            raise CallEndedError
        self._initial_metadata = metadata
        if not self._route.single_reply:
            self._start()

    async def write(self, message: bytes) -> None:
        """Send one message of a stream; return once the connection has taken it. Raises CallEndedError."""
        await self.write_prefixed(length_prefixed(message))

    async def write_prefixed(self, messages: bytes) -> None:
        """The same for messages that have their prefixes."""
        if self.closed:
            raise CallEndedError
        sender = self.sender
        self._start()
        sender.send(messages)
        self._writes += 1 + len(messages) // WRITE_SIZE_BYTES
        if sender.waits:
            if self._is_too_much():
                self.give_up(self._too_much())
                raise CallEndedError
            await sender.drained()
        elif self._writes >= WRITES_PER_STEP:
            self._writes = 0
            await asyncio.sleep(0)

    def write_now(self, messages: bytes) -> bool:
        """The same in one step, if headers were sent, nothing waits and the client takes it now; otherwise do nothing."""
        return not self.closed and self.sender.send_now(messages)

    async def abort(self, code: StatusCode, details: str = "", trailing_metadata: Metadata = ()) -> NoReturn:
        """End the call with a status; raises CallAbortedError, which the handler must let through."""
        self.end(code, details, trailing_metadata)
        raise CallAbortedError

    # ------------------------------------------------------------------------- for the connection

    def begin(self, refusal: str | None) -> None:
        """Start after the headers; a handler that takes a stream of messages runs from now on.

        `refusal` says why there is no place for the call.
        """
        if refusal is not None:
            self.end(StatusCode.RESOURCE_EXHAUSTED, refusal, self._connection.refusal_metadata)
            return
        if self._request.encoding not in ENCODINGS:
            self.end(
                StatusCode.UNIMPLEMENTED,
                f"the encoding {self._request.encoding!r} is not known here",
                (("grpc-accept-encoding", ",".join(ENCODINGS)),),
            )
            return
        if self._headers_bytes:
            self._hold(0)
            if self._is_too_much():
                self._refuse_for_room()
                return
        if not self._route.single_request:
            self._receiver = self._new_receiver()
            self._run(Requests(self.next_message))

    def receive(self, data: bytes, ended: bool) -> None:
        """Take a piece of the request; `ended` with the last one. Raises Http2StreamError."""
        if self.request_ended:
            raise Http2StreamError(ErrorCode.STREAM_CLOSED)
        self.request_ended = ended
        if self._unsent_bytes is not None:
            self._unsent_bytes -= len(data)
            if self._unsent_bytes < 0 or (ended and self._unsent_bytes):
                raise Http2StreamError(ErrorCode.PROTOCOL_ERROR)  # RFC 9113 section 8.1.1
        receiver = self._receiver
        is_whole = ended and receiver is None and self._route.single_request
        if is_whole and is_message(data, self._connection.message_size_bytes_max):
            if len(data) > SMALL_SIZE_BYTES_MAX:
                self._work_on(data)
            self._run(data[PREFIX_SIZE_BYTES:])
            return
        if receiver is None:
            receiver = self._receiver = self._new_receiver()
        try:
            receiver.feed(data, ended)
            self._hold(receiver.held_bytes)
            if receiver.incomplete and self._is_too_much():
                self._refuse_for_room()
            elif self._route.single_request:
                message = receiver.single()
                if message is not None:
                    self._work_on(message.data if isinstance(message, Compressed) else message)
                    self._run(message)
        except MessageError as problem:
            self.refuse(problem.code, str(problem))

    def close(self) -> None:
        """End without a status: the client reset the stream, or is gone."""
        self._close()
        self._cancel()

    def expire(self) -> None:
        """End the call because the client's deadline has passed."""
        self.cut(StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")

    def cut(self, code: StatusCode, text: str) -> None:
        """End the call now: cancel its handler and drop what is queued of its response."""
        self.sender.drop()
        self.end(code, text)
        self._cancel()

    def give_up(self, text: str) -> None:
        """End a call whose client does not take the response."""
        # The handler of a single reply may have executed its request: ABORTED says that the outcome is unknown.
        self.cut(StatusCode.ABORTED if self._route.single_reply else StatusCode.RESOURCE_EXHAUSTED, text)

    def refuse(self, code: StatusCode, text: str) -> None:
        """End a call because of its request."""
        self.end(code, text)
        self._cancel()

    def give_way(self) -> None:
        """End a call that keeps much, for those that keep less."""
        if not self.held_bytes and not self.sender.waits:
            return
        if self._task is None:
            self._refuse_for_room()
        else:
            self.give_up(self._too_much())

    @property
    def awaits_request(self) -> bool:
        """Whether the request is a single message that has not arrived whole."""
        return not self.request_ended and self._route.single_request and not self.closed

    def end(self, code: StatusCode, text: str, metadata: Metadata = ()) -> None:
        """Send the status. When nothing was sent before, headers and status are one HEADERS frame."""
        if self.closed:
            return
        trailers = status_trailers(code, text, metadata)
        headers = b"" if self.sender.started else response_headers(self._initial_metadata)
        self.sender.finish(headers + trailers)

    # ------------------------------------------------------------------------- the request

    def _new_receiver(self) -> Receiver:
        return Receiver(self._connection, self._stream_id, self._request.encoding, self._route.single_request)

    async def next_message(self) -> bytes | None:
        """The next message of a stream of requests, None after the last one; raises CallAbortedError."""
        receiver = self._receiver
        if receiver is None:
            raise CallEndedError
        try:
            message = await receiver.next_message()
            plain = await self._connection.inflate(message) if isinstance(message, Compressed) else message
        except MessageError as problem:
            await self.abort(problem.code, str(problem))
        self._hold(receiver.held_bytes + len(plain or b""))
        if plain is not message and self._is_too_much():
            self._refuse_for_room()
            raise CallAbortedError
        return plain

    def _hold(self, size_bytes: int) -> None:
        """Let the budget count this many bytes of the request, beside its headers."""
        size_bytes += self._headers_bytes
        self._connection.hold(size_bytes - self.held_bytes)
        self.held_bytes = size_bytes

    def _work_on(self, message: bytes) -> None:
        """Count a message until the call ends: its handler keeps it."""
        self._hold(len(message) if len(message) > SMALL_SIZE_BYTES_MAX else 0)

    def _is_too_much(self) -> bool:
        """Whether more is held than may be, and no other client gives way."""
        return self._connection.is_over and not self._connection.make_room()

    def _too_much(self) -> str:
        return self._connection.budget.sentence(self._connection.account)

    def _refuse_for_room(self) -> None:
        connection = self._connection
        self.end(StatusCode.RESOURCE_EXHAUSTED, self._too_much(), connection.refusal_metadata)
        self._cancel()

    # ------------------------------------------------------------------------- the response

    def _run(self, request: Any) -> None:
        begin = self._route.begin
        waiting = begin(request, self) if begin is not None and isinstance(request, bytes) else None
        self._task = waiting or self._connection.loop.create_task(self.run_handler(request))

    async def _inflated(self, message: Compressed) -> bytes:
        plain = await self._connection.inflate(message)
        self._work_on(plain)
        if self.held_bytes and self._is_too_much():
            self._refuse_for_room()
            raise CallAbortedError
        return plain

    async def run_handler(self, request: Any) -> None:
        try:
            if isinstance(request, Compressed):
                request = await self._inflated(request)
            reply = await self._route.function(request, self)
            if self.closed:
                return
            if self.held_bytes:
                self._hold(0)  # the handler is done with the request
            if reply is None:
                self._start()
                self.sender.finish(OK_TRAILERS)
            else:
                self._reply(reply)
        except (CallAbortedError, CallEndedError):
            return
        except MessageError as problem:
            self.end(problem.code, str(problem))
        except asyncio.CancelledError:
            self.end(StatusCode.CANCELLED, "the call was cancelled")
            raise
        except Exception as error:
            logger.exception("a handler of %s failed", self._request.path)
            self.end(StatusCode.INTERNAL, f"internal error, see this node's log: {type(error).__name__}")

    def _reply_in_pieces(self, *pieces: bytes) -> None:
        """Send the response as the windows allow; its message consists of these pieces."""
        sender = self.sender
        self._start()
        size_bytes = sum(map(len, pieces))
        prefix = message_prefix(size_bytes)
        for piece in (b"".join((prefix, *pieces)),) if size_bytes <= SMALL_SIZE_BYTES_MAX else (prefix, *pieces):
            sender.send(piece)
        sender.finish(OK_TRAILERS)
        if sender.waits and self._is_too_much():
            self.give_up(self._too_much())

    def answer(self, message: bytes | list[bytes], metadata: Metadata, joined: list[Output] | None) -> None:
        """Send the only message of a call that `Route.begin` took, and its status; see `Sender.send_reply`."""
        if not self.closed:
            self._initial_metadata = metadata
            if self.held_bytes:
                self._hold(0)
            self._reply(message, joined)

    def _reply(self, reply: bytes | list[bytes], joined: list[Output] | None = None) -> None:
        """Send the whole response in one piece if the windows allow it."""
        if isinstance(reply, list):
            self._reply_in_pieces(*reply)
        elif not self.sender.send_reply(self._initial_metadata, reply, joined):
            self._reply_in_pieces(reply)

    def _start(self) -> None:
        if not self.sender.started:
            self.sender.start(response_headers(self._initial_metadata))

    def _sent(self) -> None:
        """Close the call: the response is sent. Tell a client that is still sending to stop (RFC 9113 section 8.1)."""
        if not self.closed and not self.request_ended:
            self._connection.write(rst_stream(self._stream_id, ErrorCode.NO_ERROR))
        self._close()

    def _close(self) -> None:
        if not self.closed:
            self.closed = True
            self.sender.drop()
            self._headers_bytes = 0
            if self.held_bytes:
                self._hold(0)
            self._connection.forget(self._stream_id)

    def _cancel(self) -> None:
        task = self._task
        if task is not None and not task.done() and task is not asyncio.current_task(self._connection.loop):
            task.cancel()

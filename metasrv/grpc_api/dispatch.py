"""What happens around every call: admission, decoding, metrics, and the status of an error.

Handlers take raw bytes from gRPC: a message that does not parse becomes INVALID_ARGUMENT here instead of gRPC's own
INTERNAL, and sizes are counted for free. Knows no method's meaning. Runs on the event loop; this is the outermost
frame of the hot path.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from functools import partial
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError, Message

from metasrv.grpc_api.calls import Call, Stream, metadata_value
from metasrv.grpc_api.context import GrpcContext
from metasrv.grpc_api.ended_requests import WATCHED_STREAMS, ended_request
from metasrv.grpc_api.failures import Failure, StatusError, failure_of, failure_reason
from metasrv.grpc_api.handshake import Authenticator
from metasrv.grpc_api.http2.portions import Standing
from metasrv.grpc_api.http2.route import Route
from metasrv.grpc_api.leader import LeaderHint
from metasrv.grpc_api.quick_admission import QuickAdmission
from metasrv.grpc_api.quick_reads import QuickReads
from metasrv.grpc_api.quick_writes import QuickWrites
from metasrv.grpc_api.rights import readable_keys, require_stream, require_unary
from metasrv.grpc_api.written_keys import written_by
from metasrv.model.errors import DamagedCopyError, DataDamagedError, InvalidRequestError, OverloadedError, StoppingError
from metasrv.model.failure_reasons import FailureReason
from metasrv.model.limits import GRPC_STREAMS_PER_CONNECTION_MAX
from metasrv.model.loop_work import LoopWork
from metasrv.model.users import User
from metasrv.process.loop_steps import timed
from metasrv.protocol.methods import (
    GET_CLIENT_INFO,
    GET_CLUSTER_STATUS,
    HANDSHAKE,
    KV_GET_MANY,
    KV_LIST,
    KV_READ_V1,
    KV_TRANSACTION,
    MEMBER_LIST,
    Kind,
    Method,
)
from metasrv.tracing.request_ids import begin_request

Answer = bytes | list[bytes] | None
Handler = Callable[[Any, Call], Coroutine[Any, Any, Answer]]
Body = Callable[[Any, Any], Awaitable[Any]]
"""Unary: (request, call) -> reply message, or its encoding in pieces.
Streaming: (request or iterator of requests, Stream) -> the last message, or None when all are sent."""

LEADER_ONLY = frozenset((KV_LIST, KV_GET_MANY, KV_TRANSACTION))
"""Methods that are never forwarded: a client is sent to the leader instead."""
LARGE_SIZE_BYTES = 64 * 1024
"""A larger request is parsed in a step of its own, after the one in which its last bytes came."""
SERVED_WHILE_DRAINING = frozenset((GET_CLUSTER_STATUS, GET_CLIENT_INFO, MEMBER_LIST))
"""Methods that only look at the node; they are served until the listener closes."""


class _OpenStream(NamedTuple):
    """A streaming call of a user beyond root, to be looked at again when users change."""

    user: User
    method: Method
    request: Any


class Dispatcher:
    """Builds the server's routes from the method table and the bodies of the methods."""

    def __init__(self, context: GrpcContext, authenticator: Authenticator, hint: LeaderHint) -> None:
        self._context = context
        self._metrics = context.metrics
        self._authenticator = authenticator
        self._hint = hint
        self._tasks: set[asyncio.Task[Any]] = set()
        self._stopping = False
        self._streams: dict[str, int] = {}
        """Streaming calls under way, by the client's address."""
        self._admission = QuickAdmission(context, authenticator)
        self._quick_reads = QuickReads(
            context, self._admission, authenticator, hint, self._streams, partial(self._failure_of, KV_READ_V1)
        )
        self._quick_writes = QuickWrites(context, self._admission, hint, self._failure_of)
        self._open: dict[asyncio.Task[Any], _OpenStream] = {}
        self._refused: dict[asyncio.Task[Any], StatusError] = {}
        """Streams that end because of their user, and why."""
        self._seen_secrets = context.machine.secrets

    def routes(self, bodies: Mapping[Method, Body]) -> dict[str, Route]:
        """The methods of MetaService by path."""
        return {method.path: self.route(method, body) for method, body in bodies.items()}

    def route(self, method: Method, body: Body) -> Route:
        """How one method is served."""
        if method.kind is Kind.UNARY:
            handle = self._timed(self._unary(method, body))
            return Route(handle, single_request=True, single_reply=True, begin=self._quick_writes.begin_of(method))
        if method.kind is Kind.SERVER_STREAM:
            begin = self._quick_reads.begin if method is KV_READ_V1 else None
            return Route(
                self._timed(self._server_stream(method, body)), single_request=True, single_reply=False, begin=begin
            )
        return Route(self._timed(self._bidirectional(method, body)), single_request=False, single_reply=False)

    def _timed(self, handle: Handler) -> Callable[[Any, Call], Awaitable[Answer]]:
        """The same handler; it is counted how long it keeps the loop between two of its waits."""
        took = self._metrics.step_took
        return lambda request, call: timed(LoopWork.GRPC_CALL, took, handle(request, call))

    def end_streams(self) -> None:
        """End every streaming call with UNAVAILABLE, so that a stop does not wait for watchers."""
        self._stopping = True
        self._admission.stopping = True
        self._quick_reads.end(StoppingError())
        for task in tuple(self._tasks):
            task.cancel()

    def drop_streams(self) -> None:
        """End every streaming call with UNAVAILABLE: this node's copy of the state is damaged."""
        self._quick_reads.end(DamagedCopyError())
        for task in tuple(self._tasks):
            task.cancel()

    def end_refused_streams(self) -> None:
        """End the streams of users who may no longer have them. Costs nothing while no user changes."""
        if self._context.machine.secrets is self._seen_secrets:
            return
        self._seen_secrets = self._context.machine.secrets
        for task, (user, method, request) in tuple(self._open.items()):
            try:
                now = self._authenticator.current(user)
                require_stream(now, method, request)
            except StatusError as error:
                self._refused[task] = error
                task.cancel()

    # ------------------------------------------------------------------------- kinds of methods

    def _unary(self, method: Method, body: Body) -> Handler:
        metrics = self._metrics
        parse = method.request.FromString
        clock, watch = self._context.clock.monotonic, self._context.watch
        slow_writes = self._context.slow_writes if method.write else None

        async def handle(data: bytes, call: Call) -> bytes | list[bytes]:
            metrics.rpc_started()
            started = clock()
            times = watch.begin(started, method.name, partial(metadata_value, call))
            request: Any = None
            failed: FailureReason | None = FailureReason.CLIENT_GONE
            user: User | None = None
            try:
                metrics.client_received_bytes(len(data))
                user = await self._admit(method, call)
                if len(data) > LARGE_SIZE_BYTES:
                    await asyncio.sleep(0)  # its last bytes were handled in this step
                request = _parsed(parse, data)
                if user is not None:
                    await require_unary(user, method, request)
                reply: Message | list[bytes] = await body(request, call)
                if isinstance(reply, list):
                    metrics.client_sent_bytes(sum(map(len, reply)))
                    failed = None
                    return reply
                answer = reply.SerializeToString()
                metrics.client_sent_bytes(len(answer))
                failed = None
                return answer
            except Exception as error:
                failed = failure_reason(error)
                await self._fail(method, call, error)
                return b""
            finally:
                ended = clock()
                metrics.rpc_finished(failed, ended - started, method)
                if times is not None:
                    watch.end(times, ended, partial(ended_request, method, data, call, user, failed))
                if slow_writes is not None and request is not None:  # it was admitted
                    slow_writes.note(ended, ended - started, len(data), method.name, partial(written_by, request), failed)

        return handle

    def _server_stream(self, method: Method, body: Body) -> Handler:
        parse = method.request.FromString
        watched = method in WATCHED_STREAMS

        async def run(data: bytes, stream: Stream, user: User | None) -> bytes | None:
            request = _parsed(parse, data)
            if user is not None:
                require_stream(user, method, request)
                self._keep_open(_OpenStream(user, method, request))
            last: bytes | None = await body(request, stream)
            return last

        async def handle(data: bytes, call: Call) -> bytes | None:
            self._metrics.client_received_bytes(len(data))
            return await self._stream(method, call, data, watched, run)

        return handle

    def _bidirectional(self, method: Method, body: Body) -> Handler:
        watched = method in WATCHED_STREAMS

        async def run(requests: AsyncIterator[bytes], stream: Stream, user: User | None) -> bytes | None:
            parsed = self._parsed_all(method, requests)
            if user is not None:
                parsed = readable_keys(parsed, lambda: self._authenticator.current(user))
            last: bytes | None = await body(parsed, stream)
            return last

        async def handle(requests: AsyncIterator[bytes], call: Call) -> bytes | None:
            return await self._stream(method, call, requests, watched, run)

        return handle

    async def _stream(
        self,
        method: Method,
        call: Call,
        request: Any,
        watched: bool,
        run: Callable[[Any, Stream, User | None], Awaitable[bytes | None]],
    ) -> bytes | None:
        self._metrics.rpc_started()
        clock, watch = self._context.clock.monotonic, self._context.watch
        started = clock()
        header = partial(metadata_value, call)
        times = None
        if watched:
            times = watch.begin(started, method.name, header)
        else:
            begin_request(watch.node_id, header)
        failed: FailureReason | None = FailureReason.CLIENT_GONE
        user: User | None = None
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
        peer = call.peer()
        self._streams[peer] = self._streams.get(peer, 0) + 1
        try:
            if self._streams[peer] > GRPC_STREAMS_PER_CONNECTION_MAX:
                raise OverloadedError(
                    f"this connection already has {GRPC_STREAMS_PER_CONNECTION_MAX} streams under way, the limit"
                )
            user = await self._admit(method, call)
            last = await run(request, Stream(call, self._metrics), user)
            if last is not None:
                self._metrics.client_sent_bytes(len(last))
            failed = None
            if method is HANDSHAKE:
                call.prove()  # it has a token now; calls that follow at once are a client's
            return last
        except asyncio.CancelledError:
            error = self._why_cancelled(task)
            if error is None or call.done() or task is None:
                raise  # the client went away
            task.uncancel()
            failed = failure_reason(error)
            await self._fail(method, call, error)
        except Exception as error:
            failed = failure_reason(error)
            await self._fail(method, call, error)
        finally:
            if task is not None:
                self._tasks.discard(task)
                self._open.pop(task, None)
                self._refused.pop(task, None)
            self._streams[peer] -= 1
            if not self._streams[peer]:
                del self._streams[peer]
            ended = clock()
            self._metrics.rpc_finished(failed, ended - started, method)
            if times is not None:
                watch.end(times, ended, partial(ended_request, method, request, call, user, failed))
        return None

    def _keep_open(self, stream: _OpenStream) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._open[task] = stream

    def _why_cancelled(self, task: asyncio.Task[Any] | None) -> Exception | None:
        """Why this node ends the stream itself; None when it does not."""
        if self._stopping:
            return StoppingError()
        if not self._context.copies.serves:
            return DamagedCopyError()
        return None if task is None else self._refused.get(task)

    async def _parsed_all(self, method: Method, requests: AsyncIterator[bytes]) -> AsyncIterator[Any]:
        parse = method.request.FromString
        async for data in requests:
            self._metrics.client_received_bytes(len(data))
            yield _parsed(parse, data)

    # ------------------------------------------------------------------------- around a call

    async def _admit(self, method: Method, call: Call) -> User | None:
        """The user that calls, None for root, and where nobody has to say who it is."""
        if (self._context.draining or self._stopping) and method not in SERVED_WHILE_DRAINING:
            raise StoppingError
        if not self._context.copies.serves and method not in SERVED_WHILE_DRAINING:
            raise DamagedCopyError
        if method.token or (method is not HANDSHAKE and self._needs_token()):
            user = await self._authenticator.check(call)
            call.prove()
            return user
        if method is not HANDSHAKE and call.standing() is Standing.STRANGER and self._authenticator.knows(call):
            call.prove()
        return None

    def _needs_token(self) -> bool:
        return self._context.config.grpc_tokens_for_all or self._authenticator.has_users

    async def _fail(self, method: Method, call: Call, error: Exception) -> None:
        """End the call with the status of `error`, unless the client is gone."""
        if call.done():
            if isinstance(error, DataDamagedError):
                self._context.damage_found(str(error))
            return
        failure = self._failure_of(method, error)
        await call.abort(failure.code, failure.text, failure.metadata)

    def _failure_of(self, method: Method, error: Exception) -> Failure:
        if isinstance(error, DataDamagedError):
            self._context.damage_found(str(error))
        return failure_of(error, self._hint.address, leader_only=method in LEADER_ONLY)


def _parsed(parse: Callable[[bytes], Any], data: bytes) -> Any:
    try:
        return parse(data)
    except DecodeError as error:
        raise InvalidRequestError(f"the request is not the message of this method: {error}") from error

"""Small writes as they usually are, in one coroutine from the message to the answer.

The dispatcher's way puts five around each other, of which each costs as much as its work. A write that is not usual, or
that is refused before it is proposed, goes the dispatcher's way after all, and nothing of it was counted before. Runs on
the event loop; this is the hot path.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from time import perf_counter
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError

from metasrv.grpc_api import kv_json, kv_json_slices
from metasrv.grpc_api.calls import metadata_value, timeout_ms_of
from metasrv.grpc_api.context import GrpcContext
from metasrv.grpc_api.ended_requests import ended_request
from metasrv.grpc_api.failures import Failure, failure_reason, unexpected_reply
from metasrv.grpc_api.http2.call import ServerCall
from metasrv.grpc_api.http2.status import StatusCode
from metasrv.grpc_api.large_replies import has_large_value, reply_in_pieces
from metasrv.grpc_api.leader import LeaderHint
from metasrv.grpc_api.quick_admission import QuickAdmission
from metasrv.grpc_api.replies import RESPONSES_AT_ONCE, transaction_reply, transaction_reply_at_once
from metasrv.grpc_api.requests import transaction_from
from metasrv.grpc_api.rights import require, require_command
from metasrv.grpc_api.written_keys import written_by
from metasrv.model.commands import Command, Reply, Transaction, TransactionReply, Upsert, UpsertReply
from metasrv.model.errors import MetasrvError
from metasrv.model.failure_reasons import FailureReason
from metasrv.model.loop_work import LoopWork
from metasrv.model.users import Right, User
from metasrv.protocol.methods import KV_API, TRANSACTION, Method
from metasrv.protocol.proto import meta_pb2 as pb
from metasrv.state.command_rules import validate_command
from metasrv.tracing.request_ids import begin_request
from metasrv.tracing.times import CURRENT, RequestTimes

SMALL_SIZE_BYTES_MAX = 16 * 1024
"""Larger requests are looked at in steps of their own."""


class _Kind(NamedTuple):
    """How the requests of one method become commands, and replies become messages."""

    parse: Callable[[bytes], Any]
    command_of: Callable[[Any], Any]
    """Raises MetasrvError."""
    require: Callable[[User, Any], None]
    """Raises RightMissingError unless the user may send this command."""
    encode: Callable[[Any], bytes | None]
    """The message for a small reply; None for one that `encode_large` has to encode, or that is none at all."""
    encode_large: Callable[[Any], Coroutine[Any, Any, bytes | list[bytes]]]
    names_leader: bool
    """Whether a follower's answer names the leader."""


def _encode_transaction(reply: Reply) -> bytes | None:
    if type(reply) is not TransactionReply or len(reply.responses) > RESPONSES_AT_ONCE:
        return None
    return None if has_large_value(reply.responses) else transaction_reply_at_once(reply).SerializeToString()


async def _encode_large_transaction(reply: Reply) -> bytes | list[bytes]:
    if type(reply) is not TransactionReply:
        raise unexpected_reply(reply)
    if has_large_value(reply.responses):
        head = pb.TxnReply(success=reply.success, execution_path=reply.execution_path)
        return await reply_in_pieces(head, reply.responses)
    return (await transaction_reply(reply)).SerializeToString()


async def _encode_upsert(reply: Reply) -> bytes | list[bytes]:
    if type(reply) is not UpsertReply:
        raise unexpected_reply(reply)
    message = await kv_json_slices.upsert_reply(reply)
    return message if isinstance(message, list) else message.SerializeToString()


def _upsert_from(request: pb.RaftRequest) -> Upsert:
    return kv_json.parse_write(request.data)


def _require_upsert(user: User, command: Upsert) -> None:
    require(user, Right.WRITE, command.key)


def _require_transaction(user: User, command: Transaction) -> None:
    require_command(user, command)


_KINDS = {
    TRANSACTION: _Kind(
        pb.TxnRequest.FromString,
        transaction_from,
        _require_transaction,
        _encode_transaction,
        _encode_large_transaction,
        names_leader=True,
    ),
    KV_API: _Kind(
        pb.RaftRequest.FromString, _upsert_from, _require_upsert, lambda _: None, _encode_upsert, names_leader=False
    ),
}


class _Write:
    """One write, before it is parsed."""

    __slots__ = ("arrived_at", "call", "data", "kind", "method", "task", "user")

    def __init__(
        self,
        method: Method,
        kind: _Kind,
        data: bytes,
        call: ServerCall,
        user: User | None,
        arrived_at: float,
    ) -> None:
        self.method = method
        self.kind = kind
        self.data = data
        self.call = call
        self.user = user
        self.arrived_at = arrived_at
        self.task: asyncio.Task[None]


class QuickWrites:
    """See the module. `status_of` names the failure of a method's call."""

    def __init__(
        self,
        context: GrpcContext,
        admission: QuickAdmission,
        hint: LeaderHint,
        status_of: Callable[[Method, Exception], Failure],
    ) -> None:
        self._context = context
        self._metrics = context.metrics
        self._clock = context.clock.monotonic
        self._watch = context.watch
        self._slow_writes = context.slow_writes
        self._admission = admission
        self._hint = hint
        self._status_of = status_of

    def begin_of(self, method: Method) -> Callable[[bytes, Any], asyncio.Task[None] | None] | None:
        """What takes the calls of a method (`Route.begin`); None for one that always goes the other way."""
        kind = _KINDS.get(method)
        return None if kind is None else partial(self._begin, method, kind)

    def _begin(self, method: Method, kind: _Kind, data: bytes, call: ServerCall) -> asyncio.Task[None] | None:
        if len(data) > SMALL_SIZE_BYTES_MAX or self._context.machine.limits.read_only is not None:
            return None
        recognized = self._admission.recognize(call)
        if recognized is None:
            return None
        call.prove()
        write = _Write(method, kind, data, call, recognized.user, self._clock())
        # Parsing is left to the task: frames of all connections share two milliseconds of a turn.
        task = write.task = asyncio.get_running_loop().create_task(self._carry_out(write))
        return task

    async def _carry_out(self, write: _Write) -> None:
        kind, call, metrics, watch = write.kind, write.call, self._metrics, self._watch
        try:
            request = kind.parse(write.data)
            command: Command = kind.command_of(request)
            validate_command(command)
            if write.user is not None:
                kind.require(write.user, command)
        except (DecodeError, MetasrvError):
            await call.run_handler(write.data)  # says what is wrong
            return
        metrics.call_received(len(write.data))
        begin_request(watch.node_id, partial(metadata_value, call), write.task)
        times = None
        if watch.on:
            times = RequestTimes(write.arrived_at)
            CURRENT.set(times)
        failed: FailureReason | None = FailureReason.CLIENT_GONE
        sent_bytes = 0
        try:
            reply = await self._context.consensus.propose(command, timeout_ms_of(call))
            began_at = perf_counter()
            answer: bytes | list[bytes] | None = kind.encode(reply)
            if answer is None:
                answer = await kind.encode_large(reply)
                began_at = perf_counter()
            sent_bytes = sum(map(len, answer)) if isinstance(answer, list) else len(answer)
            call.answer(answer, self._hint.metadata() if kind.names_leader else (), None)
            metrics.step_took(LoopWork.GRPC_CALL, perf_counter() - began_at)
            failed = None
        except asyncio.CancelledError:
            call.end(StatusCode.CANCELLED, "the call was cancelled")
            raise
        except Exception as error:
            failed = failure_reason(error)
            failure = self._status_of(write.method, error)
            call.end(failure.code, failure.text, failure.metadata)
        finally:
            self._count(write, request, times, failed, sent_bytes)

    def _count(
        self, write: _Write, request: Any, times: RequestTimes | None, failed: FailureReason | None, sent_bytes: int
    ) -> None:
        """The write has ended."""
        ended, size_bytes, method = self._clock(), len(write.data), write.method
        seconds = ended - write.arrived_at
        if failed is None:
            self._metrics.call_answered(method, seconds, sent_bytes)
        else:
            self._metrics.rpc_finished(failed, seconds, method)
        if times is not None and seconds >= self._watch.slow_seconds:
            self._watch.end(times, ended, partial(ended_request, method, write.data, write.call, write.user, failed))
        self._slow_writes.note(ended, seconds, size_bytes, method.name, partial(written_by, request), failed)

"""From errors to gRPC statuses: the one place where an error of metasrv becomes a code (docs/contract/grpc.md section e).

A status that certainly changed nothing carries `x-metasrv-outcome: not-done`, so that a client need not guess from
codes or texts whether it may send a write again (invariant 4). Pure.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NamedTuple

from metasrv.grpc_api.http2.headers import Metadata
from metasrv.grpc_api.http2.status import StatusCode
from metasrv.model.commands import ErrorReply, RefusedReply, Reply
from metasrv.model.errors import (
    NOT_LEADER_TEXT,
    InvalidRequestError,
    InvariantError,
    MetasrvError,
    NoLeaderError,
    NotDoneError,
    NotLeaderError,
    OverloadedError,
    UnknownOutcomeError,
    ViewLostError,
    WriteRefusedError,
)
from metasrv.model.failure_reasons import FailureReason, reason_of
from metasrv.protocol.methods import LEADER_METADATA_KEY, NOT_DONE, OUTCOME_METADATA_KEY

logger = logging.getLogger(__name__)

_REASONS_OF_CODES = {
    StatusCode.UNAUTHENTICATED: FailureReason.DENIED,
    StatusCode.PERMISSION_DENIED: FailureReason.DENIED,
    StatusCode.RESOURCE_EXHAUSTED: FailureReason.OVERLOADED,
    StatusCode.DATA_LOSS: FailureReason.DAMAGED,
}
"""The others are refused for what the client sent."""

NOT_DONE_METADATA: Metadata = ((OUTCOME_METADATA_KEY, NOT_DONE),)


class StatusError(MetasrvError):
    """Ends a call with exactly this status; nothing was changed."""

    def __init__(self, code: StatusCode, text: str) -> None:
        super().__init__(text)
        self.code = code


def failure_reason(error: Exception) -> FailureReason:
    """Why the call failed, for the metrics."""
    if isinstance(error, StatusError):
        return _REASONS_OF_CODES.get(error.code, FailureReason.INVALID)
    return reason_of(error)


def unexpected_reply(reply: Reply) -> Exception:
    """The error that consensus has answered a write with."""
    if isinstance(reply, RefusedReply):
        return WriteRefusedError(reply.text)
    if isinstance(reply, ErrorReply):
        return InvalidRequestError(reply.text)
    return InvariantError(f"consensus answered with a {type(reply).__name__}")


class Failure(NamedTuple):
    """The status that ends a call."""

    code: StatusCode
    text: str
    metadata: Metadata


def failure_of(error: Exception, leader_address: Callable[[], str | None], *, leader_only: bool) -> Failure:
    """The status for `error`.

    `leader_address` tells the leader's client address when this node is not the leader and knows it; it is asked only
    when the client needs it, because that costs more than an answer. `leader_only` says that the method is never
    forwarded, so that a missing leader reads as `not leader` too.
    """
    if isinstance(error, StatusError):
        return Failure(error.code, str(error), NOT_DONE_METADATA)
    if isinstance(error, InvalidRequestError):
        return Failure(StatusCode.INVALID_ARGUMENT, str(error), NOT_DONE_METADATA)
    if isinstance(error, UnknownOutcomeError):
        return Failure(StatusCode.ABORTED, str(error), ())
    if isinstance(error, NotDoneError):
        return _not_done(error, leader_address, leader_only)
    # The text of an unexpected exception may contain anything: it goes to the log, and the client gets a sentence.
    logger.error("a client call failed unexpectedly", exc_info=error)
    return Failure(StatusCode.INTERNAL, f"internal error, see this node's log: {type(error).__name__}", ())


def _not_done(error: NotDoneError, leader_address: Callable[[], str | None], leader_only: bool) -> Failure:
    metadata = NOT_DONE_METADATA
    if isinstance(error, NotLeaderError) or (leader_only and isinstance(error, NoLeaderError)):
        if address := leader_address():
            metadata = (*metadata, (LEADER_METADATA_KEY, address))
        return Failure(StatusCode.UNAVAILABLE, NOT_LEADER_TEXT, metadata)
    if isinstance(error, NoLeaderError):
        return Failure(StatusCode.INTERNAL, f"can not forward any more: {error}", metadata)
    if isinstance(error, ViewLostError):
        return Failure(StatusCode.ABORTED, str(error), metadata)
    if isinstance(error, WriteRefusedError):
        return Failure(StatusCode.FAILED_PRECONDITION, str(error), metadata)
    if isinstance(error, OverloadedError):
        return Failure(StatusCode.RESOURCE_EXHAUSTED, str(error), metadata)
    return Failure(StatusCode.UNAVAILABLE, str(error), metadata)

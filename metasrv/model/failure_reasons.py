"""Why a client's request failed, in words that are few enough to be labels of a metric.

Pure; must not know gRPC. Runs on the event loop, once for a failed request.
"""

from __future__ import annotations

from enum import StrEnum

from metasrv.model.errors import (
    DamagedCopyError,
    DataDamagedError,
    InvalidRequestError,
    NoLeaderError,
    NotDoneError,
    NotLeaderError,
    OverloadedError,
    PeerUnreachableError,
    StoppingError,
    UnknownOutcomeError,
    ViewLostError,
)


class FailureReason(StrEnum):
    """The label `reason` of `metasrv_grpc_requests_failed_total`."""

    NO_LEADER = "no_leader"
    NOT_LEADER = "not_leader"
    """Only the leader answers this, and the client was sent there."""
    OVERLOADED = "overloaded"
    STOPPING = "stopping"
    TIMEOUT = "timeout"
    """Certainly not done, within the time that there was."""
    UNKNOWN_OUTCOME = "unknown_outcome"
    UNREACHABLE = "unreachable"
    """The leader could not be reached."""
    VIEW_LOST = "view_lost"
    DAMAGED = "damaged"
    INVALID = "invalid"
    DENIED = "denied"
    """No valid token, or not the right."""
    CLIENT_GONE = "client_gone"
    INTERNAL = "internal"


_REASONS: tuple[tuple[type[Exception], FailureReason], ...] = (
    (NoLeaderError, FailureReason.NO_LEADER),
    (OverloadedError, FailureReason.OVERLOADED),
    (StoppingError, FailureReason.STOPPING),
    (PeerUnreachableError, FailureReason.UNREACHABLE),
    (ViewLostError, FailureReason.VIEW_LOST),
    (DamagedCopyError, FailureReason.DAMAGED),
    (DataDamagedError, FailureReason.DAMAGED),
    (InvalidRequestError, FailureReason.INVALID),
    (UnknownOutcomeError, FailureReason.UNKNOWN_OUTCOME),
    (NotDoneError, FailureReason.TIMEOUT),
    (TimeoutError, FailureReason.TIMEOUT),
)
"""The first that fits counts: `NotDoneError` is what others are made of."""


def reason_of(error: Exception) -> FailureReason:
    """The reason behind an error of a request; what nobody expected is `internal`."""
    if isinstance(error, NotLeaderError):
        return FailureReason.NO_LEADER if error.leader_id is None else FailureReason.NOT_LEADER
    return next((reason for kind, reason in _REASONS if isinstance(error, kind)), FailureReason.INTERNAL)

"""What a failed call means: certainly not done, perhaps done, or never possible (invariant 4).

A write is only called "not done" if the server says so or the call was never sent, never because its connection
broke. Pure; runs anywhere.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import grpc

from metasrv.model.errors import (
    NOT_LEADER_TEXT,
    InvalidRequestError,
    NoLeaderError,
    NotDoneError,
    NotLeaderError,
    OverloadedError,
    RequestError,
    UnknownOutcomeError,
    WriteRefusedError,
)
from metasrv.protocol.methods import LEADER_METADATA_KEY, NOT_DONE, OUTCOME_METADATA_KEY

Code = grpc.StatusCode

_NEVER_POSSIBLE = frozenset(
    (Code.INVALID_ARGUMENT, Code.UNIMPLEMENTED, Code.OUT_OF_RANGE, Code.PERMISSION_DENIED, Code.NOT_FOUND)
)
_TOO_LARGE_FOR_THE_SERVER = "SERVER: Received message larger than max"
"""gRPC's own words for a request that no handler saw."""


class TokenRefusedError(NotDoneError):
    """The server refuses this client's token; a new handshake is needed."""


class OtherClusterError(NotDoneError):
    """The endpoint belongs to another cluster than this client; the request was not sent to it."""


class ClientClosedError(NotDoneError):
    """The client was closed; no endpoint is asked any more."""

    def __init__(self) -> None:
        super().__init__("the client is closed")


class Outcome(NamedTuple):
    error: RequestError
    leader_address: str | None
    """Where the server says the leader is."""
    silent: bool = False
    """The server said nothing: the call ran out of time."""


def outcome_of(error: grpc.aio.AioRpcError, endpoint: str, *, write: bool) -> Outcome:
    """What the failure of a call that was sent to `endpoint` means."""
    trailing: Any = error.trailing_metadata()
    metadata = dict(trailing or ())
    leader = metadata.get(LEADER_METADATA_KEY)
    leader_address = leader if isinstance(leader, str) and leader else None
    not_done = metadata.get(OUTCOME_METADATA_KEY) == NOT_DONE
    silent = error.code() is Code.DEADLINE_EXCEEDED
    return Outcome(_error_of(error, endpoint, write and not not_done, not_done), leader_address, silent)


def _error_of(error: grpc.aio.AioRpcError, endpoint: str, uncertain: bool, not_done: bool) -> RequestError:
    code: grpc.StatusCode = error.code()
    details = error.details() or "no reason given"
    text = f"{endpoint}: {details}"
    if code is Code.UNAUTHENTICATED:
        return TokenRefusedError(text)
    if code in _NEVER_POSSIBLE:
        return InvalidRequestError(text)
    if code is Code.UNAVAILABLE and details == NOT_LEADER_TEXT:
        return NotLeaderError(None, text)
    if code is Code.RESOURCE_EXHAUSTED and details.startswith(_TOO_LARGE_FOR_THE_SERVER):
        return InvalidRequestError(text)
    if uncertain:
        return UnknownOutcomeError(f"{endpoint}: the outcome is unknown: {code.name.lower()}: {details}")
    if code is Code.RESOURCE_EXHAUSTED:
        # Without the server's mark it is gRPC's own limit on the size of a message.
        return OverloadedError(text) if not_done else InvalidRequestError(text)
    if code is Code.FAILED_PRECONDITION and not_done:
        return WriteRefusedError(text)
    if code is Code.INTERNAL and not_done:
        return NoLeaderError(text)
    return NotDoneError(text)

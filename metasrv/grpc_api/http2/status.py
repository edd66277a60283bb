"""How a gRPC call ends: the status codes as gRPC numbers them, and what tells a handler that its call is over. Pure."""

from __future__ import annotations

from enum import IntEnum


class StatusCode(IntEnum):
    """The value of `grpc-status`."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class CallAbortedError(Exception):
    """Leaves a handler whose call already has its status."""


class CallEndedError(Exception):
    """A handler writes to a call that is over: its client left, or its deadline passed."""

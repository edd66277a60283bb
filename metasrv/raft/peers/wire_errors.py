"""Request errors across the wire: a refusal on one node is the same refusal on the node that asked.

An explicit table of classes and codes; nothing is built by name (invariant 7). What a caller may do next depends on
the class, so an error that is not understood becomes `UnknownOutcomeError`, never one that allows a retry. Knows nothing
of connections. Runs on the event loop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from metasrv.model.errors import (
    ChangeInProgressError,
    CodecError,
    DamagedCopyError,
    InvalidRequestError,
    JoinEndedError,
    LeaveSelfError,
    MembershipError,
    NoLeaderError,
    NotDoneError,
    NotLeaderError,
    OverloadedError,
    PeerUnreachableError,
    RequestError,
    StoppingError,
    TooLargeError,
    UnknownOutcomeError,
    ViewLostError,
    WriteRefusedError,
)
from metasrv.model.limits import ERROR_TEXT_CHARACTERS_MAX
from metasrv.model.wire import integer, pack, string, unpack, unsigned, unsigned_or_none


def _not_leader(text: str, leader_id: Any = None) -> NotLeaderError:
    return NotLeaderError(unsigned_or_none(leader_id), text)


def _too_large(_text: str, what: Any, actual: Any, limit: Any) -> TooLargeError:
    return TooLargeError(string(what), integer(actual), integer(limit))


def _leave_self(_text: str, node_id: Any) -> LeaveSelfError:
    return LeaveSelfError(unsigned(node_id))


_Fields = tuple[int | str | None, ...]
_TABLE: dict[int, tuple[type[RequestError], Callable[..., RequestError]]] = {
    1: (InvalidRequestError, InvalidRequestError),
    2: (TooLargeError, _too_large),
    3: (NotDoneError, NotDoneError),
    4: (NotLeaderError, _not_leader),
    5: (NoLeaderError, NoLeaderError),
    6: (OverloadedError, OverloadedError),
    7: (StoppingError, StoppingError),
    8: (UnknownOutcomeError, UnknownOutcomeError),
    9: (MembershipError, MembershipError),
    10: (ChangeInProgressError, ChangeInProgressError),
    11: (LeaveSelfError, _leave_self),
    12: (PeerUnreachableError, PeerUnreachableError),
    13: (ViewLostError, ViewLostError),
    14: (JoinEndedError, JoinEndedError),
    15: (DamagedCopyError, DamagedCopyError),
    16: (WriteRefusedError, WriteRefusedError),
}
"""Code, class, and how it is built from its text and fields. Append; never reorder or reuse a code."""
_CODES: dict[type[RequestError], int] = {kind: code for code, (kind, _) in _TABLE.items()}


def encode_error(error: Exception) -> bytes:
    """Bytes of an error; one that is not in the table is sent as its nearest base class, or as an unknown outcome."""
    text = (str(error) or type(error).__name__)[:ERROR_TEXT_CHARACTERS_MAX]
    for kind in type(error).__mro__:
        code = _CODES.get(kind)
        if code is not None:
            return pack((code, _printable(text), _fields(kind, error)))
    return pack((_CODES[UnknownOutcomeError], f"{type(error).__name__}: {_printable(text)}", ()))


def decode_error(data: bytes) -> RequestError:
    """The error in `data`; what is not understood is an `UnknownOutcomeError` that says so. Never raises."""
    try:
        code, text, fields = unpack(data)
        _, build = _TABLE[unsigned(code)]
        return build(string(text), *fields)
    except (CodecError, TypeError, ValueError, LookupError) as error:
        return UnknownOutcomeError(f"the peer answered with an error that is not understood here ({error})")


def _fields(kind: type[RequestError], error: Exception) -> _Fields:
    if kind is NotLeaderError and isinstance(error, NotLeaderError):
        return (error.leader_id,)
    if kind is TooLargeError and isinstance(error, TooLargeError):
        return (error.what, error.actual, error.limit)
    if kind is LeaveSelfError and isinstance(error, LeaveSelfError):
        return (error.node_id,)
    return ()


def _printable(text: str) -> str:
    """`text` as valid UTF-8: an error may quote a key that is not valid."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")

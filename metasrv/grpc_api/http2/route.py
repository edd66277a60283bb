"""How one path is served: the handler, and which side sends more than one message. Pure data."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, Protocol


class Waiting(Protocol):
    """A call that waits for its answer without a task of its own."""

    def done(self) -> bool:
        """Whether it has its answer, or is given up."""

    def cancel(self) -> object:
        """Give it up: its client is gone, or its time is over."""


class Route(NamedTuple):
    """The handler of one path, called as `function(request, call)`.

    The request is the bytes of one message, or an asynchronous iterator of them. A handler with a single reply returns
    its bytes; others write to the call and return None, or their last message. The call is a `call.ServerCall`.
    """

    function: Callable[[Any, Any], Awaitable[bytes | list[bytes] | None]]
    single_request: bool
    single_reply: bool
    begin: Callable[[bytes, Any], Waiting | None] | None = None
    """Called before `function`, with the message and the call, where the request is a single message.

    Takes the call and answers it later with `call.answer` or `call.end`; or returns None and has done nothing.
    """

"""How one path is served: the handler, and which side sends more than one message. Pure data."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple


class Route(NamedTuple):
    """The handler of one path, called as `function(request, call)`.

    The request is the bytes of one message, or an asynchronous iterator of them. A handler with a single reply returns
    its bytes; others write to the call and return None, or their last message. The call is a `call.ServerCall`.
    """

    function: Callable[[Any, Any], Awaitable[bytes | list[bytes] | None]]
    single_request: bool
    single_reply: bool

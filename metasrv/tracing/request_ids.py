"""Which request the running code works for, so that each line of the log that is written for it carries the request's id.

Who takes a request marks its task with `begin_request`; helper threads and tasks that it starts inherit the mark. The id
is what the client calls the request, or one that nobody else has, and is made only when somebody asks for it: a request
that nothing is written about costs one small object. Runs wherever lines are written.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

REQUEST_ID_KEY = "x-request-id"
"""The metadata key, and the header, in which a client names its request."""
_DECENT = re.compile(r"[!-~]{1,64}")
"""What is taken of a client: it stands in lines of the log."""

Header = Callable[[str], str | bytes | None]
"""The value of a metadata key of the request."""


class RequestMark:
    """One request, from its first step to the end of its task."""

    __slots__ = ("_header", "_id", "_node_id", "_task")

    def __init__(self, node_id: int, header: Header, task: asyncio.Task[Any] | None) -> None:
        self._node_id = node_id
        self._header = header
        self._task = task
        self._id = ""

    @property
    def id(self) -> str:
        """The same at each call."""
        if not self._id:
            named = self._header(REQUEST_ID_KEY)
            self._id = named if isinstance(named, str) and _DECENT.fullmatch(named) else self._made_up()
        return self._id

    def rename(self, request_id: str) -> None:
        """Give it the id of the trace that it belongs to."""
        self._id = request_id

    def covers_this_code(self) -> bool:
        """Whether the running code works for the request.

        Callbacks of the loop and tasks that outlive the request inherit the mark as well, and work for everybody.
        """
        if self._task is None:
            return True
        try:
            running = asyncio.current_task()
        except RuntimeError:  # a helper thread
            return not self._task.done()
        return running is not None and (running is self._task or not self._task.done())

    def _made_up(self) -> str:
        return f"{self._node_id}-{secrets.token_hex(6)}"


_MARK: ContextVar[RequestMark | None] = ContextVar("request_mark", default=None)


def begin_request(node_id: int, header: Header, task: asyncio.Task[Any] | None = None) -> RequestMark:
    """Mark the running task: it works for a request that this node took. Who knows which task that is passes it."""
    if task is None:
        try:
            task = asyncio.current_task()
        except RuntimeError:  # there is no loop: the context is the request's own
            task = None
    mark = RequestMark(node_id, header, task)
    _MARK.set(mark)
    return mark


def current_request_id() -> str | None:
    """The id of the request that the running code works for; None when it works for none."""
    mark = _MARK.get()
    return mark.id if mark is not None and mark.covers_this_code() else None

"""HEAD for every route that answers GET: the same work, code and headers, without the body.

As upstream's server does it, so that load balancers and link checkers get an answer from any route. A plain ASGI layer
inside `guard.py`, which counts and records the request as the HEAD that it is. Runs on the event loop.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HEAD = "metasrv.head"
"""Among a request's own entries: its answer will have no body."""


def is_head(scope: Scope) -> bool:
    """Whether nobody gets the body, so that an answer without an end needs none."""
    return _HEAD in scope


class HeadAsGet:
    """Wraps the routes."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def without_body(message: Message) -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        as_get = {**scope, "method": "GET", _HEAD: True}
        try:
            await self._app(as_get, receive, without_body)
        finally:
            scope["route"] = as_get.get("route")  # the guard counts by route

"""What caches may keep: nothing, but for what seldom changes, which they ask about each time (`ETag`, 304).

A plain ASGI layer says `no-store` of every answer that says nothing of its own. Must not know the routes. Runs on the
event loop.
"""

from __future__ import annotations

import hashlib

from fastapi import Request
from fastapi.responses import Response
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

NO_STORE, ASK_EACH_TIME = "no-store", "no-cache"
_DIGITS = 20


def etag_of(body: bytes) -> str:
    """The name of a body, as the header has it."""
    return f'"{hashlib.sha256(body).hexdigest()[:_DIGITS]}"'


def is_known(request: Request, etag: str) -> bool:
    """Whether the caller has this body already (RFC 9110 section 13.1.2: the comparison is the weak one)."""
    given = ",".join(request.headers.getlist("if-none-match"))
    return any(name.strip().removeprefix("W/") in (etag, "*") for name in given.split(","))


def revalidated(request: Request, response: Response) -> Response:
    """The response with the name of its body; without the body for a caller that has it."""
    etag = etag_of(bytes(response.body))
    headers = {"ETag": etag, "Cache-Control": ASK_EACH_TIME}
    if is_known(request, etag):
        return Response(status_code=304, headers=headers)
    response.headers.update(headers)
    return response


class NoStore:
    """Wraps the routes."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=message["headers"])
                headers.setdefault("Cache-Control", NO_STORE)
                message = {**message, "headers": headers.raw}
            await send(message)

        await self._app(scope, receive, sending if scope["type"] == "http" else send)

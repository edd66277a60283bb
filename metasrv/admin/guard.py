"""Runs before every route: size limits, names, the token, refusal of web pages, the audit line, the request count.

A plain ASGI layer, so that it also sees requests that no route takes. Routes that change state and everything under
/debug are protected. They refuse what a web page may have sent (`browsers.py`). With `admin_token` set they need the
token. Each of their requests leaves one JSON line on the logger `metasrv.audit`. Everything but probes and metrics is
answered only under a name of this node (`hosts.py`). Reads and probes need no token. Headers that proxies add are never
trusted. Runs on the event loop.
"""

from __future__ import annotations

import hmac
import json
import logging
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from metasrv.admin.browsers import ACTION_HEADER, comes_from_a_page
from metasrv.admin.control import CONTROL_PATHS
from metasrv.admin.hosts import AllowedHosts
from metasrv.admin.problem import fault
from metasrv.admin.responses import TextResponse
from metasrv.model.limits import ADMIN_BODY_SIZE_BYTES_MAX, ADMIN_QUERY_AUDITED_CHARACTERS_MAX
from metasrv.model.loop_work import LoopWork
from metasrv.node.context import NodeContext
from metasrv.process.loop_steps import timed

audit_logger = logging.getLogger("metasrv.audit")

DEBUG_PREFIX = "/debug/"
HOME_PATH = "/debug/home"
"""A page of links for people. It does nothing itself, and what is opened from it comes from this node's own page."""
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})
NAMELESS_PATHS = frozenset({"/livez", "/readyz", "/v1/health", "/v1/metrics"})
"""Answered under any name: orchestrators and collectors use names that this node does not know."""
FROM_A_PAGE = (
    "a web page may not change or profile this node; a program sends no mark of a browser, such as Origin, Referer, "
    "Sec-Fetch-Site or a User-Agent with Mozilla"
)
NO_ACTION_HEADER = (
    "a POST to this route needs the header X-Metasrv-Action, with any value: no form of a web page can set it"
)
NO_GET_ACTIONS = "`admin_get_actions` is off: send POST with the header X-Metasrv-Action"
UNKNOWN_NAME = "this node is not known under the name in the Host header; add the name to `admin_allowed_hosts`"
UNAUTHORIZED = "this route needs the admin token: Authorization: Bearer <admin_token>"


class BodyTooLargeError(Exception):
    """The body of a request exceeds its limit."""


@dataclass(slots=True)
class _Exchange:
    """What the count and the audit line need to know of one request."""

    status_code: int = 500
    authenticated: bool = False
    started: bool = False


class Guard:
    """Wraps the application; `context` gives the token, the metrics and the clock."""

    def __init__(self, app: ASGIApp, context: NodeContext) -> None:
        self._app = app
        self._context = context
        self._hosts = AllowedHosts(context.config)
        self._takes_get = context.config.admin_get_actions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        clock = self._context.clock
        begun = clock.monotonic()
        exchange = _Exchange()

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.started = True
                exchange.status_code = message["status"]
            await send(message)

        try:
            answer = self._serve(scope, receive, sending, exchange)
            await timed(LoopWork.ADMIN_REQUEST, self._context.metrics.slow_step, answer)
        finally:
            method = scope["method"] if scope["method"] in METHODS else "other"
            self._context.metrics.admin_request(_route_path(scope), method, exchange.status_code)
            if _is_protected(scope["path"]):
                self._audit(scope, exchange, clock.monotonic() - begun)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, exchange: _Exchange) -> None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        refusal = self._refusal(scope["method"], scope["path"], headers, exchange)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        try:
            await self._app(scope, _Counted(receive), send)
        except BodyTooLargeError:
            if exchange.started:
                raise
            await _too_large()(scope, receive, send)

    def _refusal(self, method: str, path: str, headers: dict[bytes, bytes], exchange: _Exchange) -> TextResponse | None:
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or len(length) > 20 or int(length) > ADMIN_BODY_SIZE_BYTES_MAX:
            return _too_large()
        if path not in NAMELESS_PATHS and not self._hosts.allow(headers.get(b"host")):
            return fault(421, UNKNOWN_NAME)
        if not _is_protected(path):
            return None
        if path == HOME_PATH:
            return self._unauthorized(headers, exchange)
        if comes_from_a_page(headers):
            return fault(403, FROM_A_PAGE)
        if method == "POST" and ACTION_HEADER not in headers:
            return fault(403, NO_ACTION_HEADER)
        if method != "POST" and not self._takes_get:
            return TextResponse(NO_GET_ACTIONS, status_code=405, headers={"Allow": "POST"})
        return self._unauthorized(headers, exchange)

    def _unauthorized(self, headers: dict[bytes, bytes], exchange: _Exchange) -> TextResponse | None:
        token = self._context.config.admin_token  # asked for each time: it changes when its file does
        if token is None:
            return None
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer" or not hmac.compare_digest(given.strip(), token.get_secret_value().encode()):
            return TextResponse(UNAUTHORIZED, status_code=401, headers={"WWW-Authenticate": "Bearer"})
        exchange.authenticated = True
        return None

    def _audit(self, scope: Scope, exchange: _Exchange, seconds: float) -> None:
        status = self._context.consensus.status()
        client = scope.get("client")
        line: dict[str, Any] = {
            "at_ms": self._context.clock.wall_ms(),
            "node_id": status.node_id,
            "client": f"{client[0]}:{client[1]}" if client else None,
            "authenticated": exchange.authenticated,
            "method": scope["method"],
            "path": scope["path"],
            "query": scope["query_string"].decode("latin-1")[:ADMIN_QUERY_AUDITED_CHARACTERS_MAX],
            "status_code": exchange.status_code,
            "seconds": round(seconds, 6),
            "term": status.term,
            "last_applied": status.last_applied.index,
        }
        audit_logger.info("%s", json.dumps(line))


class _Counted:
    """Passes a body on; raises BodyTooLargeError past the limit."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._size_bytes = 0

    async def __call__(self) -> Message:
        message = await self._receive()
        self._size_bytes += len(message.get("body", b""))
        if self._size_bytes > ADMIN_BODY_SIZE_BYTES_MAX:
            raise BodyTooLargeError
        return message


def _too_large() -> TextResponse:
    text = f"the body of a request may have at most {ADMIN_BODY_SIZE_BYTES_MAX} bytes"
    return TextResponse(text, status_code=413, headers={"Connection": "close"})


def _is_protected(path: str) -> bool:
    return path in CONTROL_PATHS or path.startswith(DEBUG_PREFIX)


def _route_path(scope: Scope) -> str:
    """The path of the route that took the request; paths that clients make up must not become labels."""
    route = scope.get("route")
    return getattr(route, "path", None) or "unknown"

"""Runs before every route: size limits, names, the token, refusal of web pages, the audit line, the request count.

A plain ASGI layer, so that it also sees requests that no route takes. Routes that change state and everything under
/debug are protected. They refuse what a web page may have sent (`browsers.py`). What needs a token or a certificate is
said by `access.py`. The audit log is told of each request for a protected route (`audit.py`). Everything but probes and
metrics is answered only under a name of this node (`hosts.py`). Headers that proxies add are never trusted. Runs on the
event loop.
"""

from __future__ import annotations

from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from metasrv.admin.access import PROBE_PATHS, Access, Caller, WrongTokenError, is_protected
from metasrv.admin.actions import DIAGNOSTICS_PATH, LOG_LEVELS_PATH, USERS_LIST_PATH, is_of_members, needs_header
from metasrv.admin.audit import Audit, AuditedRequest
from metasrv.admin.browsers import ACTION_HEADER, comes_from_a_page
from metasrv.admin.hosts import AllowedHosts
from metasrv.admin.problem import as_spoken, fault
from metasrv.admin.responses import TextResponse
from metasrv.admin.turns import Turns
from metasrv.model.limits import ADMIN_BODY_SIZE_BYTES_MAX
from metasrv.model.loop_work import LoopWork
from metasrv.node.context import NodeContext
from metasrv.process.loop_steps import timed
from metasrv.tracing.request_ids import REQUEST_ID_KEY, begin_request

HOME_PATH = "/debug/home"
"""A page of links for people. It does nothing itself, and what is opened from it comes from this node's own page."""
READ_PATHS = frozenset({HOME_PATH, USERS_LIST_PATH})
"""They need the token and do nothing, so a GET is fine, whoever sent it: no page of another origin reads the answer."""
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})
NAMELESS_PATHS = frozenset({"/livez", "/readyz", "/v1/health", "/v1/metrics"})
"""Answered under any name: orchestrators and collectors use names that this node does not know."""
FROM_A_PAGE = (
    "a web page may not change or profile this node; a program sends no mark of a browser, such as Origin, Referer, "
    "Sec-Fetch-Site or a User-Agent with Mozilla"
)
NO_ACTION_HEADER = (
    "a {method} to this route needs the header X-Metasrv-Action, with any value: no form of a web page can set it"
)
NO_GET_ACTIONS = "`admin_get_actions` is off: send POST with the header X-Metasrv-Action"
UNKNOWN_NAME = "this node is not known under the name in the Host header; add the name to `admin_allowed_hosts`"
UNAUTHORIZED = "this route needs a token or a client certificate of scope {scope}: Authorization: Bearer <token>"
NOT_VALID = "the Authorization header has no valid token; it must be Bearer <token>"
UNKNOWN_CERTIFICATE = "; the certificate of {name} is not in `admin_tls_client_names`"
SCOPE_TOO_SMALL = "{caller} has the scope {scope}, this route needs {needed}"
NOBODY = Caller(None, None, None)


@dataclass(slots=True)
class _Exchange:
    """What the count and the audit line need to know of one request."""

    status_code: int = 500
    caller: Caller = NOBODY
    authenticated: bool = False
    """Whether the caller proved the scope that the route needs."""
    is_refused: bool = False
    """Whether it is answered here, and no route takes it."""


class Guard:
    """Wraps the application; `context` gives the metrics and the clock."""

    def __init__(self, app: ASGIApp, context: NodeContext, access: Access, audit: Audit) -> None:
        self._app = app
        self._audit = audit
        self._context = context
        self._hosts = AllowedHosts(context.config)
        self._takes_get = context.config.admin_get_actions
        self._access = access
        self._turns = Turns()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        clock = self._context.clock
        begun = clock.monotonic()
        exchange = _Exchange()
        begin_request(self._context.config.raft_config.id, lambda _key: _request_id_of(scope))

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status_code = message["status"]
            await send(message)

        try:
            answer = self._serve(scope, receive, sending, exchange)
            await timed(LoopWork.ADMIN_REQUEST, self._context.metrics.step_took, answer)
        finally:
            method = scope["method"] if scope["method"] in METHODS else "other"
            self._context.metrics.admin_request(_route_path(scope), method, exchange.status_code)
            if is_protected(scope["method"], scope["path"]):
                self._audit.write(self._audit_line(scope, exchange, clock.monotonic() - begun))

    async def _serve(self, scope: Scope, receive: Receive, send: Send, exchange: _Exchange) -> None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        refusal = self._refusal(scope["method"], scope["path"], headers)
        if refusal is None:
            refusal = self._unauthorized(scope, headers, exchange)
        if refusal is not None:
            exchange.is_refused = True
            await as_spoken(scope["path"], refusal)(scope, receive, send)
            return
        if scope["path"] not in PROBE_PATHS:
            await self._turns.take()
        await self._app(scope, receive, send)

    def _refusal(self, method: str, path: str, headers: dict[bytes, bytes]) -> TextResponse | None:
        # A body without a length is counted where it arrives, in `connection.py`.
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or len(length) > 20 or int(length) > ADMIN_BODY_SIZE_BYTES_MAX:
            return _too_large()
        if path not in NAMELESS_PATHS and not self._hosts.allow(headers.get(b"host")):
            return fault(421, UNKNOWN_NAME)
        if not is_protected(method, path) or path in READ_PATHS:
            return None
        if comes_from_a_page(headers):
            return fault(403, FROM_A_PAGE)
        if needs_header(method, path) and ACTION_HEADER not in headers:
            return fault(403, NO_ACTION_HEADER.format(method=method))
        has_own_methods = is_of_members(path) or path in (LOG_LEVELS_PATH, DIAGNOSTICS_PATH)
        if method != "POST" and not self._takes_get and not has_own_methods:
            return TextResponse(NO_GET_ACTIONS, status_code=405, headers={"Allow": "POST"})
        return None

    def _unauthorized(self, scope: Scope, headers: dict[bytes, bytes], exchange: _Exchange) -> TextResponse | None:
        needed = self._access.needed(scope["method"], scope["path"])
        if needed is None:
            return None
        try:
            caller = exchange.caller = self._access.caller(headers, scope.get("extensions") or {})
        except WrongTokenError:
            return _challenge(401, NOT_VALID, "Bearer")
        if caller.scope is None:
            text = UNAUTHORIZED.format(scope=needed)
            if caller.certificate is not None:
                text += UNKNOWN_CERTIFICATE.format(name=caller.certificate)
            return _challenge(401, text, "Bearer")
        if not caller.scope.covers(needed):
            text = SCOPE_TOO_SMALL.format(caller=caller.described(), scope=caller.scope, needed=needed)
            return _challenge(403, text, f'Bearer error="insufficient_scope", scope="{needed}"')
        exchange.authenticated = True
        return None

    def _audit_line(self, scope: Scope, exchange: _Exchange, seconds: float) -> AuditedRequest:
        client = scope.get("client")
        caller = exchange.caller
        return AuditedRequest(
            client=(client[0], client[1]) if client else None,
            authenticated=exchange.authenticated,
            token=caller.token,
            certificate=caller.certificate,
            scope=caller.scope,
            method=scope["method"],
            path=scope["path"],
            query=scope["query_string"].decode("latin-1"),
            status_code=exchange.status_code,
            seconds=seconds,
            is_refused=exchange.is_refused,
        )


def _request_id_of(scope: Scope) -> str | None:
    named = dict(scope["headers"]).get(REQUEST_ID_KEY.encode())
    return None if named is None else named.decode("latin-1")


def _too_large() -> TextResponse:
    text = f"the body of a request may have at most {ADMIN_BODY_SIZE_BYTES_MAX} bytes"
    return TextResponse(text, status_code=413, headers={"Connection": "close"})


def _challenge(status_code: int, text: str, challenge: str) -> TextResponse:
    return TextResponse(text, status_code=status_code, headers={"WWW-Authenticate": challenge})


def _route_path(scope: Scope) -> str:
    """The path of the route that took the request; paths that clients make up must not become labels."""
    route = scope.get("route")
    return getattr(route, "path", None) or "unknown"

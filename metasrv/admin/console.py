"""Routes of the console: the state of the cluster, its history and events, runbooks, and the keys behind a switch.

    GET /v1/console            the state as this node knows it
    GET /v1/console/history    the last 15 minutes of this node
    GET /v1/console/stream     both, and all that changes, as lines of JSON
    GET /v1/events             what happened, of all nodes
    GET /v1/runbooks/{slug}    what to do about a problem
    GET /v1/console/keys       one level of the tree of keys; /v1/console/key one record

Errors are problems in JSON (RFC 9457). Runs on the event loop.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from metasrv.admin.caching import revalidated
from metasrv.admin.head import is_head
from metasrv.admin.line_stream import MEDIA_TYPE, LineStreamResponse
from metasrv.admin.problem import KEY_PATH, KEYS_PATH, problem
from metasrv.admin.query import parse_query, unsigned
from metasrv.admin.responses import PROBLEM_MEDIA_TYPE, JsonResponse, codes, parameters
from metasrv.console.console import EVENTS_SHOWN, Console
from metasrv.console.keys import KeyBrowser
from metasrv.console.runbooks import runbook
from metasrv.model.errors import NotDoneError
from metasrv.node.context import NodeContext

KEYS_ARE_OFF = "the key browser is off; `admin_key_browser = true` in the configuration of this node turns it on"
STOPPED = codes(PROBLEM_MEDIA_TYPE, ok="as this node knows it", s500="the node has stopped")
KEY_CODES = codes(
    PROBLEM_MEDIA_TYPE,
    ok="from this node's applied state",
    s400="no key is named",
    s403="it is off",
    s404="no record",
    s503="too many reads",
)


def console_router(context: NodeContext, console: Console) -> APIRouter:
    router = APIRouter(tags=["console"])

    @router.get("/v1/console", operation_id="console", responses=STOPPED)
    async def state() -> Response:
        """The cluster, every node and what is wrong; other members are asked while somebody looks."""
        await console.look()
        return JsonResponse(console.state())

    @router.get("/v1/console/history", operation_id="consoleHistory", responses=STOPPED)
    async def history() -> Response:
        """The last 15 minutes of this node, a point every two seconds; what is not known is null."""
        return JsonResponse(console.history.view(context.clock.wall_ms()))

    query = parameters(
        since_ms=("only events from this wall clock on, in milliseconds", "integer", False),
        limit=(f"at most so many, the newest; {EVENTS_SHOWN} by default", "integer", False),
        node=("only events that this node tells", "integer", False),
    )

    @router.get("/v1/events", operation_id="events", responses=STOPPED, openapi_extra=query)
    async def events(request: Request) -> Response:
        """What happened, from every node that answers, newest last."""
        given = parse_query(request.scope["query_string"], {"since_ms": unsigned, "limit": unsigned, "node": unsigned})
        await console.look()
        return JsonResponse(
            console.events(given.get("since_ms", 0), given.get("limit", EVENTS_SHOWN) or EVENTS_SHOWN, given.get("node"))
        )

    lines = codes(PROBLEM_MEDIA_TYPE, ok="lines of JSON, without an end", s503="too many follow this node already")
    lines[200]["content"] = {MEDIA_TYPE: {"schema": {"type": "string"}}}

    @router.get("/v1/console/stream", operation_id="consoleStream", responses=lines, response_class=Response)
    async def stream(request: Request) -> Response:
        """State, history and events, then what changes: a line of JSON each."""
        if is_head(request.scope):
            return Response(media_type=MEDIA_TYPE)
        await console.look()
        try:
            opened = await console.open_stream()
        except NotDoneError as error:
            return problem(503, str(error))
        return LineStreamResponse(opened, console.streams.close)

    found = codes(PROBLEM_MEDIA_TYPE, ok="Markdown", s404="there is no such runbook")
    found[200]["content"] = {"text/markdown": {"schema": {"type": "string"}}}
    slug = {"name": "slug", "in": "path", "required": True, "description": "its name, as `no-leader`"}
    named = {"parameters": [{**slug, "schema": {"type": "string"}}]}

    async def one_runbook(request: Request) -> Response:
        """What to do about a problem, step by step, as Markdown."""
        text = runbook(request.path_params["slug"])
        if text is None:
            return problem(404, "there is no such runbook")
        return revalidated(request, Response(text.encode(), media_type="text/markdown; charset=utf-8"))

    one: dict[str, Any] = {"response_class": Response, "responses": found, "openapi_extra": named}
    router.add_api_route("/v1/runbooks/{slug}", one_runbook, methods=["GET"], operation_id="runbook", **one)
    _add_key_routes(router, context, KeyBrowser(context))
    return router


def _add_key_routes(router: APIRouter, context: NodeContext, browser: KeyBrowser) -> None:
    tree = parameters(
        prefix=("what the keys begin with; empty: all", "string", False),
        delimiter=("what ends a group, `/` by default", "string", False),
    )

    @router.get(KEYS_PATH, operation_id="consoleKeys", responses=KEY_CODES, openapi_extra=tree)
    async def keys(request: Request) -> Response:
        """One level of the tree of keys, with counts and sizes."""
        if not context.config.admin_key_browser:
            return problem(403, KEYS_ARE_OFF)
        given = parse_query(request.scope["query_string"], {"prefix": _text, "delimiter": _text})
        try:
            return JsonResponse(await browser.level(given.get("prefix", ""), given.get("delimiter", "/")))
        except NotDoneError as error:
            return problem(503, str(error))

    one = parameters(key=("the whole key", "string", True))

    @router.get(KEY_PATH, operation_id="consoleKey", responses=KEY_CODES, openapi_extra=one)
    async def key(request: Request) -> Response:
        """One record; of a large value the beginning."""
        if not context.config.admin_key_browser:
            return problem(403, KEYS_ARE_OFF)
        given = parse_query(request.scope["query_string"], {"key": _text})
        if "key" not in given:
            return problem(400, "the query has no `key`")
        try:
            record = await browser.record(given["key"])
        except NotDoneError as error:
            return problem(503, str(error))
        return problem(404, "there is no such record") if record is None else JsonResponse(record)


def _text(text: str) -> str:
    return text

"""The API's description in OpenAPI, `/openapi.json`: made once, by a helper thread, because it takes tens of ms.

The framework describes what each route declares. Added here is what holds for all of them: the codes that any request may
be answered with, how callers prove who they are, what each area is for, and an example of each answer. The examples are
those of the reference (`scripts/make_reference.py` writes both). Must not know the routes. Runs on the event loop.
"""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Iterator
from http import HTTPStatus
from importlib import resources
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import Response

from metasrv.admin.access import is_protected
from metasrv.admin.caching import revalidated
from metasrv.admin.problem import speaks_problems, title_of
from metasrv.admin.responses import PROBLEM_MEDIA_TYPE, JsonResponse

DESCRIPTION_PATH = "/openapi.json"
EXAMPLES_FILE = "openapi_examples.json"

AREAS = {
    "health": "Whether to send requests here, for orchestrators and load balancers.",
    "cluster": "The cluster as this node knows it.",
    "members": "Who the members are, how each of them is, and how they change.",
    "metrics": "Numbers for Prometheus.",
    "console": "What the console shows: state, history, events, runbooks, keys.",
    "control": "Snapshots, leadership, and features that every node has to know before they may be used.",
    "users": "Users beyond root, and their rights.",
    "backup": "The backups that the leader makes by itself.",
    "maintenance": "Read-only, draining, compaction.",
    "logs": "What the node logs, and from which level on.",
    "diagnostics": "What is known about the node, as one archive.",
    "profiling": "Where processor time and memory go.",
}
UNAUTHORIZED = "tokens or client certificates are configured, and the request has none that counts"
FORBIDDEN = "the scope of the token or certificate is too small"
PAGES_REFUSED = f"{FORBIDDEN}, a web page may have sent the request, or the header X-Metasrv-Action is missing"
COMMON = {
    413: "the body is too large",
    421: "this node is not known under the name in the Host header",
    431: "the head of the request is too large",
    500: "the node has stopped, or failed; the sentence says why",
    503: "the node has too many connections",
}
SENT_BY_THE_SERVER = frozenset({431, 503})
"""Bare text everywhere: no route has seen the request."""
SECURITY = {
    "token": {"type": "http", "scheme": "bearer", "description": "A token of the scope that the route needs."},
    "certificate": {"type": "mutualTLS", "description": "A client certificate whose name is configured."},
}
PROBLEM_SCHEMA = {
    "title": "Problem",
    "description": "RFC 9457.",
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What is wrong, as a sentence."},
    },
}


def description_router(app: FastAPI) -> APIRouter:
    """The route that describes the routes that `app` has when it is asked for the first time."""
    router = APIRouter(include_in_schema=False)
    made: bytes | None = None

    def make() -> bytes:
        return bytes(JsonResponse(description(app)).body)

    @router.get(DESCRIPTION_PATH)
    async def described(request: Request) -> Response:
        """The description."""
        nonlocal made
        if made is None:
            made = await asyncio.to_thread(make)
        return revalidated(request, Response(made, media_type="application/json"))

    return router


def description(app: FastAPI, examples: dict[str, Any] | None = None) -> dict[str, Any]:
    """The whole description; `examples` by method and path, by default those that come with the program."""
    whole: dict[str, Any] = copy.deepcopy(app.openapi())
    given = load_examples() if examples is None else examples
    used = {operation["tags"][0] for _, _, operation in operations(whole)}
    whole["tags"] = [{"name": name, "description": text} for name, text in AREAS.items() if name in used]
    components = whole.setdefault("components", {})
    components["securitySchemes"] = SECURITY
    components.setdefault("schemas", {})["Problem"] = PROBLEM_SCHEMA
    whole["security"] = [{}, *({name: []} for name in SECURITY)]
    for path, method, operation in operations(whole):
        _complete(path, method, operation, components.setdefault("responses", {}))
        _add_example(operation, given.get(f"{method} {path}"))
    return whole


def operations(whole: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Each path with each of its methods and what is said of it."""
    for path, methods in whole["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def load_examples() -> dict[str, Any]:
    """The examples that come with the program."""
    text = resources.files("metasrv.admin").joinpath(EXAMPLES_FILE).read_text(encoding="utf-8")
    examples: dict[str, Any] = json.loads(text)
    return examples


def _complete(path: str, method: str, operation: dict[str, Any], shared: dict[str, Any]) -> None:
    """Every code that a request for this route may be answered with, each fault with its form and an example.

    What is the same for many routes stands in `shared`, and is referred to.
    """
    responses = operation["responses"]
    for code, answer in responses.items():
        for content_type, content in answer.get("content", {}).items():
            if int(code) >= HTTPStatus.BAD_REQUEST:
                content.update(_fault(content_type, int(code), answer["description"]))
    forbidden = PAGES_REFUSED if is_protected(method.upper(), path) else FORBIDDEN
    for code, meaning in {401: UNAUTHORIZED, 403: forbidden, **COMMON}.items():
        plain = code in SENT_BY_THE_SERVER or not speaks_problems(path)
        content_type = "text/plain" if plain else PROBLEM_MEDIA_TYPE
        own = responses.get(str(code))
        if own is None:
            name = f"{code}{'Page' if meaning == PAGES_REFUSED else ''}{'Text' if plain else 'Problem'}"
            shared.setdefault(
                name, {"description": meaning, "content": {content_type: _fault(content_type, code, meaning)}}
            )
            responses[str(code)] = {"$ref": f"#/components/responses/{name}"}
        else:
            own["description"] += f"; or {meaning}"
            own.setdefault("content", {}).setdefault(content_type, _fault(content_type, code, meaning))
    operation["responses"] = dict(sorted(responses.items()))


def _fault(content_type: str, code: int, meaning: str) -> dict[str, Any]:
    if content_type != PROBLEM_MEDIA_TYPE:
        return {"schema": {"type": "string"}, "example": meaning}
    example = {"type": "about:blank", "title": title_of(code), "status": code, "detail": meaning}
    return {"schema": {"$ref": "#/components/schemas/Problem"}, "example": example}


def _add_example(operation: dict[str, Any], example: Any) -> None:
    if example is None:
        return
    for content in operation["responses"].get("200", {}).get("content", {}).values():
        content["example"] = example

"""Probes: Databend's health, which always passes, and liveness and readiness, which check the node.

    GET /v1/health         {"status":"pass"}, with or without quorum
    GET /livez[/check]     this process works
    GET /readyz[/check]    requests may be sent here

`?verbose` lists every check, `?exclude=name` (repeatable) leaves one out. They answer 200 or 503, so machines need
only the code. The checks themselves are in `metasrv/node/health.py`. Runs on the event loop.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qsl

from fastapi import APIRouter, Request

from metasrv.admin.problem import fault
from metasrv.admin.responses import JsonResponse, TextResponse, codes
from metasrv.admin.schemas import HealthSchema
from metasrv.model.limits import ADMIN_QUERY_FIELDS_MAX
from metasrv.node.health import LIVENESS_CHECKS, READINESS_CHECKS, Check, HealthMonitor, judge

ProbeParameters: dict[str, Any] = {
    "parameters": [
        {"name": "verbose", "in": "query", "description": "List every check.", "schema": {"type": "string"}},
        {
            "name": "exclude",
            "in": "query",
            "description": "A check that must not fail the probe.",
            "schema": {"type": "array", "items": {"type": "string"}},
        },
    ]
}
FAILING = codes(ok="every check passes", s503="a check fails; the text lists why")
UNKNOWN_CHECK = codes(s404="the probe has no check of that name")

PURPOSES = {
    "livez": "Whether this process works; restart it when this fails.",
    "readyz": "Whether requests may be sent to this node.",
}


def health_router(monitor: HealthMonitor) -> APIRouter:
    router = APIRouter(tags=["health"])

    @router.get("/v1/health", response_model=HealthSchema, operation_id="health")
    async def health() -> JsonResponse:
        """Passes whenever this process answers, with or without a quorum."""
        return JsonResponse({"status": "pass"})

    _add_probe(router, "livez", LIVENESS_CHECKS, monitor.liveness)
    _add_probe(router, "readyz", READINESS_CHECKS, monitor.readiness)
    return router


def _add_probe(router: APIRouter, probe: str, names: tuple[str, ...], take: Callable[[], Awaitable[list[Check]]]) -> None:
    """Add the routes of one probe, for all its checks and for each alone."""

    async def whole(request: Request) -> TextResponse:
        return await _answer(request, probe, await take())

    async def single(request: Request) -> TextResponse:
        name = request.path_params["check"]
        if name not in names:
            return fault(404, f"{probe} has no check {name!r}; it has {', '.join(names)}")
        return await _answer(request, name, [check for check in await take() if check.name == name])

    common: dict[str, Any] = {
        "response_class": TextResponse,
        "responses": FAILING,
        "openapi_extra": ProbeParameters,
    }
    single_parameters = [
        *ProbeParameters["parameters"],
        {"name": "check", "in": "path", "required": True, "schema": {"type": "string", "enum": list(names)}},
    ]
    purpose = PURPOSES[probe]
    router.add_api_route(
        f"/{probe}", whole, methods=["GET"], operation_id=probe, description=f"{purpose} Every check.", **common
    )
    described = {**FAILING, **UNKNOWN_CHECK}
    one = {**common, "responses": described, "openapi_extra": {"parameters": single_parameters}}
    alone = f"{purpose} One check alone."
    path = f"/{probe}/{{check}}"
    router.add_api_route(path, single, methods=["GET"], operation_id=f"{probe}Check", description=alone, **one)


async def _answer(request: Request, probe: str, checks: list[Check]) -> TextResponse:
    try:
        query = request.scope["query_string"].decode("latin-1")
        pairs = parse_qsl(query, keep_blank_values=True, errors="replace", max_num_fields=ADMIN_QUERY_FIELDS_MAX)
    except ValueError:
        pairs = []
    excluded = [text for name, text in pairs if name == "exclude"]
    verbose = any(name == "verbose" and text not in ("false", "0") for name, text in pairs)
    verdict = judge(probe, checks, excluded, verbose)
    headers = {"Cache-Control": "no-store"}
    return TextResponse(verdict.text, status_code=200 if verdict.passed else 503, headers=headers)

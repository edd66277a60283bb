"""What is kept of earlier moments: the continuous profile of the last minutes, and memory profiles to compare with.

    GET /v1/profile/minutes    the minutes that are kept, and how busy each was
    GET /v1/profile/history    the profile of some of them
    GET /v1/profile/captures   memory profiles that a later one can be compared with

They only read, so the scope `read` is enough, and they start no profiler. Errors are problems in JSON (RFC 9457). Runs on
the event loop; encoding runs in a helper thread, one at a time.
"""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request
from fastapi.responses import Response

from metasrv.admin.problem import PROFILE_PATH, problem
from metasrv.admin.profiling import form_parameter, profile_response, read_form, wants_idle
from metasrv.admin.query import parse_query, unsigned
from metasrv.admin.responses import PROBLEM_MEDIA_TYPE, JsonResponse, codes, parameters
from metasrv.admin.schemas import CapturesSchema, MinutesSchema
from metasrv.model.errors import InvalidRequestError
from metasrv.model.types import U64_MAX
from metasrv.node.context import NodeContext
from metasrv.profiling.captures import Captures
from metasrv.profiling.continuous import MINUTE_MS, ContinuousProfile, Minute, samples_of
from metasrv.profiling.forms import WALL, encode_times
from metasrv.profiling.profile import CPU_FORMATS, Profile, ProfileFormat, Subject

CONTINUOUS = "continuous"
NO_STORE = {"Cache-Control": "no-store"}
IS_OFF = "this node keeps no continuous profile: `continuous_profile_hertz` is 0 in its configuration"


def profile_history_router(context: NodeContext, continuous: ContinuousProfile, captures: Captures) -> APIRouter:
    router = APIRouter(tags=["profiling"])
    encoding = asyncio.Lock()

    @router.get(
        f"{PROFILE_PATH}/minutes",
        operation_id="profileMinutes",
        response_model=MinutesSchema,
        responses=codes(PROBLEM_MEDIA_TYPE, ok="oldest first; the last one may be under way"),
    )
    async def minutes() -> JsonResponse:
        """The minutes whose stacks this node has kept, each with how often it looked and how often it was busy."""
        kept = [
            {"start_ms": one.start_ms, "looks": one.looks, "busy_looks": one.busy_looks} for one in continuous.minutes()
        ]
        return JsonResponse({"frequency_hertz": continuous.frequency_hertz, "minutes": kept}, headers=NO_STORE)

    query = parameters(
        from_ms=("wall clock in milliseconds; without it from the oldest minute on", "integer", False),
        to_ms=("until there; without it to the newest minute", "integer", False),
        idle=("`true` shows threads while they wait for work as well", "boolean", False),
    )
    query["parameters"].append({"in": "query", **form_parameter(CPU_FORMATS)})

    @router.get(
        f"{PROFILE_PATH}/history",
        operation_id="profileHistory",
        response_class=Response,
        openapi_extra=query,
        responses=codes(
            PROBLEM_MEDIA_TYPE,
            ok="the profile",
            s400="there is no such form",
            s404="no minute of this time is kept",
        ),
    )
    async def history(request: Request) -> Response:
        """What the threads were doing in the minutes of a time, as the continuous profile saw it."""
        query_string = request.scope["query_string"]
        try:
            form = read_form(query_string, CPU_FORMATS)
        except InvalidRequestError as error:
            return problem(400, str(error))
        if not continuous.frequency_hertz:
            return problem(404, IS_OFF)
        given = parse_query(query_string, {"from_ms": unsigned, "to_ms": unsigned})
        found = continuous.between(given.get("from_ms", 0), given.get("to_ms", U64_MAX))
        if not found:
            return problem(404, _none_kept(continuous))
        async with encoding:
            arguments = (found, context.config.raft_config.id, continuous.frequency_hertz, form, wants_idle(query_string))
            body = await asyncio.to_thread(_encode, *arguments)
        return profile_response(Profile(body, form, CONTINUOUS), {})

    _add_captures(router, captures)
    return router


def _add_captures(router: APIRouter, captures: Captures) -> None:
    @router.get(
        f"{PROFILE_PATH}/captures",
        operation_id="memoryCaptures",
        response_model=CapturesSchema,
        responses=codes(PROBLEM_MEDIA_TYPE, ok="oldest first"),
    )
    async def kept_captures() -> JsonResponse:
        """Memory profiles that `/debug/mem/pprof/profile?base=` takes."""
        kept = [
            {
                "capture": one.capture_id,
                "started_at_ms": one.subject.started_ns // 1_000_000,
                "seconds": one.subject.seconds,
            }
            for one in captures.all()
        ]
        return JsonResponse({"captures": kept}, headers=NO_STORE)


def _encode(minutes: tuple[Minute, ...], node_id: int, frequency_hertz: int, form: ProfileFormat, idle: bool) -> bytes:
    start_ms = min(one.start_ms for one in minutes)
    end_ms = max(one.start_ms for one in minutes) + MINUTE_MS
    subject = Subject(node_id, start_ms * 1_000_000, (end_ms - start_ms) // 1000)
    return encode_times(samples_of(minutes, idle), subject, frequency_hertz, WALL, form)


def _none_kept(continuous: ContinuousProfile) -> str:
    kept = continuous.minutes()
    if not kept:
        return "no minute is kept yet"
    return (
        f"no minute of this time is kept; kept is what was between {kept[0].start_ms} and {kept[-1].start_ms + MINUTE_MS}"
    )

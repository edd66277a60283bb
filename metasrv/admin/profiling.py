"""Profiles of this process, on request.

    GET /debug/home                 a page with links
    GET /debug/pprof/profile        CPU; answers after `seconds` (5), sampled `frequency` times a second (99)
    GET /debug/mem/pprof/profile    memory allocated within `seconds` (5), or how it differs from an earlier one (`base`)

`format` is `pprof` (the default, not gzipped), `svg`, `folded`, `speedscope`, and `memray` for memory. One profile at a
time. A caller that hangs up ends its profile. What is kept of earlier ones is told by `profile_history.py`. Runs on the
event loop; the profilers run elsewhere.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from metasrv.admin.actions import action
from metasrv.admin.problem import fault
from metasrv.admin.query import boolean, nonzero_signed, parse_query, unsigned
from metasrv.admin.responses import codes
from metasrv.model.errors import InvalidRequestError
from metasrv.model.limits import PROFILE_FREQUENCY_HERTZ_MAX, PROFILE_SECONDS_MAX
from metasrv.node.context import NodeContext
from metasrv.profiling.captures import Captures
from metasrv.profiling.cpu import record_cpu
from metasrv.profiling.flamegraph import CONTENT_SECURITY_POLICY
from metasrv.profiling.memory import record_memory
from metasrv.profiling.profile import (
    CPU_FORMATS,
    MEMORY_FORMATS,
    Profile,
    ProfileFormat,
    ProfilerBusyError,
    ProfilerUnavailableError,
    ProfileSlot,
    UnknownCaptureError,
)

SECONDS_DEFAULT = 5
FREQUENCY_HERTZ_DEFAULT = 99
SAMPLER_HEADER = "X-Profile-Sampler"
CAPTURE_HEADER = "X-Profile-Capture"
"""Names a memory profile, so that a later one can give it as `base`."""
STATUS_CLIENT_CLOSED_REQUEST = 499
"""Nobody reads it; the log and the metrics show it."""

HOME = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>metasrv debug</title></head><body>
<p><a href="/debug/pprof/profile?seconds=5">/debug/pprof/profile?seconds=5</a><br>
<a href="/debug/pprof/profile?seconds=5&amp;format=svg">CPU flame graph</a><br>
<a href="/debug/pprof/profile?seconds=5&amp;format=svg&amp;idle=true">CPU flame graph, with waiting threads</a></p>
<p><a href="/debug/mem/pprof/profile?seconds=5">/debug/mem/pprof/profile?seconds=5</a><br>
<a href="/debug/mem/pprof/profile?seconds=5&amp;format=svg">memory flame graph</a></p>
<p><a href="/v1/profile/history?format=svg">what it was doing in the last ten minutes</a></p>
</body></html>
"""

PROFILE_CODES = {
    "ok": "the profile, after `seconds`",
    "s400": "a parameter is out of range",
    "s409": "another profile is being taken",
    "s500": "the profiler failed",
}

Result = TypeVar("Result")


class _Asked(NamedTuple):
    """What a request wants."""

    seconds: int
    frequency_hertz: int
    form: ProfileFormat
    idle: bool
    base: str | None
    small_objects: bool


def profiling_router(context: NodeContext, captures: Captures, slot: ProfileSlot) -> APIRouter:
    """`slot` is shared with whatever else takes profiles."""
    router = APIRouter(tags=["profiling"])
    node_id = context.config.raft_config.id
    act = partial(action, router)

    @router.get("/debug/home", response_class=HTMLResponse, operation_id="debugHome")
    async def home() -> HTMLResponse:
        """A page with links to the profiles."""
        return HTMLResponse(HOME)

    @act(
        "/debug/pprof/profile",
        response_class=Response,
        operation_id="cpuProfile",
        openapi_extra=_parameters(CPU_FORMATS, _FREQUENCY, _IDLE),
        responses=codes(**PROFILE_CODES),
    )
    async def cpu(request: Request) -> Response:
        """Where this process spends processor time."""
        try:
            asked = _read(request, CPU_FORMATS)
            with slot.take("CPU"):
                work = record_cpu(node_id, asked.seconds, asked.frequency_hertz, asked.form, asked.idle)
                profile = await _unless_disconnected(request, work)
        except InvalidRequestError as error:
            return fault(400, str(error))
        except ProfilerBusyError as error:
            return fault(409, str(error))
        return _respond(profile, attachment=None)

    @act(
        "/debug/mem/pprof/profile",
        response_class=Response,
        operation_id="memoryProfile",
        openapi_extra=_parameters(MEMORY_FORMATS, _BASE, _SMALL_OBJECTS),
        responses=codes(**PROFILE_CODES, s404="memray is not installed, or the capture to compare with is not kept"),
    )
    async def memory(request: Request) -> Response:
        """Where memory is allocated within `seconds`, or how that differs from an earlier capture."""
        try:
            asked = _read(request, MEMORY_FORMATS)
            base = None if asked.base is None else captures.get(asked.base)
            with slot.take("memory"):
                work = record_memory(node_id, asked.seconds, asked.form, captures, base, asked.small_objects)
                profile = await _unless_disconnected(request, work)
        except InvalidRequestError as error:
            return fault(400, str(error))
        except (ProfilerUnavailableError, UnknownCaptureError) as error:
            return fault(404, str(error))
        except ProfilerBusyError as error:
            return fault(409, str(error))
        suffix = {ProfileFormat.PPROF: "prof", ProfileFormat.MEMRAY: "bin"}.get(asked.form)
        return _respond(profile, f"heap_dump_{time.time_ns() // 1_000_000}.{suffix}" if suffix else None)

    return router


def _read(request: Request, formats: Sequence[ProfileFormat]) -> _Asked:
    """Unparsable numbers count as absent, impossible ones raise InvalidRequestError."""
    query_string = request.scope["query_string"]
    numbers = parse_query(query_string, {"seconds": unsigned, "frequency": nonzero_signed})
    seconds = numbers.get("seconds", SECONDS_DEFAULT)
    frequency_hertz = numbers.get("frequency", FREQUENCY_HERTZ_DEFAULT)
    if not 1 <= seconds <= PROFILE_SECONDS_MAX:
        raise InvalidRequestError(f"seconds is {seconds}, it must be between 1 and {PROFILE_SECONDS_MAX}")
    if not 1 <= frequency_hertz <= PROFILE_FREQUENCY_HERTZ_MAX:
        text = f"frequency is {frequency_hertz}, it must be between 1 and {PROFILE_FREQUENCY_HERTZ_MAX}"
        raise InvalidRequestError(text)
    form = read_form(query_string, formats)
    base = parse_query(query_string, {"base": str}).get("base")
    if base is not None and form is ProfileFormat.MEMRAY:
        raise InvalidRequestError(
            "memray's raw capture cannot be a difference; leave base out, or ask for another format"
        )
    small_objects = parse_query(query_string, {"small_objects": boolean}).get("small_objects", False)
    return _Asked(seconds, frequency_hertz, form, wants_idle(query_string), base, small_objects)


def read_form(query_string: bytes, formats: Sequence[ProfileFormat]) -> ProfileFormat:
    """The form that is asked for; raises InvalidRequestError for one that is not offered."""
    name = parse_query(query_string, {"format": str}).get("format", ProfileFormat.PPROF.value)
    if name not in formats:
        raise InvalidRequestError(f"format is {name!r}, it must be one of {', '.join(formats)}")
    return ProfileFormat(name)


def wants_idle(query_string: bytes) -> bool:
    """Whether threads are to be shown while they wait for work."""
    return parse_query(query_string, {"idle": boolean}).get("idle", False)


async def _unless_disconnected(request: Request, work: Coroutine[Any, Any, Result]) -> Result | None:
    """The result of `work`; None when the caller hung up first, and then the work is cancelled."""
    working = asyncio.create_task(work, name="profile")
    watching = asyncio.create_task(_disconnected(request), name="profile-caller")
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        return await working if working.done() else None
    finally:
        working.cancel()
        watching.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        continue


def _respond(profile: Profile | None, attachment: str | None) -> Response:
    if profile is None:
        return fault(STATUS_CLIENT_CLOSED_REQUEST, "the caller hung up")
    headers = {} if profile.capture_id is None else {CAPTURE_HEADER: profile.capture_id}
    if attachment is not None:
        headers["Content-Disposition"] = f'attachment; filename="{attachment}"'
    return profile_response(profile, headers)


def profile_response(profile: Profile, headers: Mapping[str, str]) -> Response:
    """The answer with a profile; a picture may run its own script and nothing else."""
    common = {SAMPLER_HEADER: profile.sampler, "Cache-Control": "no-store", "Content-Type": profile.content_type}
    if profile.format is ProfileFormat.SVG:
        common |= {"Content-Security-Policy": CONTENT_SECURITY_POLICY, "X-Content-Type-Options": "nosniff"}
    return Response(profile.body, headers={**common, **headers})


def _number(name: str, most: int, default: int) -> dict[str, Any]:
    return {"name": name, "schema": {"type": "integer", "minimum": 1, "maximum": most, "default": default}}


_FREQUENCY = _number("frequency", PROFILE_FREQUENCY_HERTZ_MAX, FREQUENCY_HERTZ_DEFAULT)
_IDLE = {
    "name": "idle",
    "description": "`true` shows threads while they wait for work as well.",
    "schema": {"type": "boolean", "default": False},
}
_BASE = {
    "name": "base",
    "description": "A kept capture, as `X-Profile-Capture` named it: answer with what has changed since.",
    "schema": {"type": "string"},
}

_SMALL_OBJECTS = {
    "name": "small_objects",
    "description": "`true` counts each object of at most 512 bytes as well, which slows the node down much more.",
    "schema": {"type": "boolean", "default": False},
}


def _parameters(formats: Sequence[ProfileFormat], *more: dict[str, Any]) -> dict[str, Any]:
    """Query parameters for the API's description; the framework must not parse them, because it would answer 422."""
    described = (_number("seconds", PROFILE_SECONDS_MAX, SECONDS_DEFAULT), *more, form_parameter(formats))
    return {"parameters": [{"in": "query", **parameter} for parameter in described]}


def form_parameter(formats: Sequence[ProfileFormat]) -> dict[str, Any]:
    """The query parameter `format`."""
    return {"name": "format", "schema": {"type": "string", "enum": [str(form) for form in formats], "default": "pprof"}}

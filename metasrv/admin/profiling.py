"""Profiles of this process, on request.

    GET /debug/home                 a page with links
    GET /debug/pprof/profile        CPU; answers after `seconds` (5), sampled `frequency` times a second (99)
    GET /debug/mem/pprof/profile    memory allocated within `seconds` (5)

`format` is `pprof` (the default, not gzipped), `svg`, `folded`, and `speedscope` for CPU or `memray` for memory. One
profile at a time. A caller that hangs up ends its profile. Runs on the event loop; the profilers run elsewhere.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from metasrv.admin.actions import action
from metasrv.admin.problem import fault
from metasrv.admin.query import nonzero_signed, parse_query, unsigned
from metasrv.admin.responses import codes
from metasrv.model.errors import InvalidRequestError
from metasrv.model.limits import PROFILE_FREQUENCY_HERTZ_MAX, PROFILE_SECONDS_MAX
from metasrv.profiling.cpu import record_cpu
from metasrv.profiling.memory import record_memory
from metasrv.profiling.profile import (
    CPU_FORMATS,
    MEMORY_FORMATS,
    Profile,
    ProfileFormat,
    ProfilerBusyError,
    ProfilerUnavailableError,
    ProfileSlot,
)

SECONDS_DEFAULT = 5
FREQUENCY_HERTZ_DEFAULT = 99
SAMPLER_HEADER = "X-Profile-Sampler"
STATUS_CLIENT_CLOSED_REQUEST = 499
"""Nobody reads it; the log and the metrics show it."""

HOME = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>metasrv debug</title></head><body>
<a href="/debug/pprof/profile?seconds=5">/debug/pprof/profile?seconds=5</a><br>
<a href="/debug/pprof/profile?seconds=5&amp;format=svg">CPU flame graph</a><br>
<a href="/debug/mem/pprof/profile?seconds=5">/debug/mem/pprof/profile?seconds=5</a><br>
<a href="/debug/mem/pprof/profile?seconds=5&amp;format=svg">memory flame graph</a>
</body></html>
"""

PROFILE_CODES = {
    "ok": "the profile, after `seconds`",
    "s400": "a parameter is out of range",
    "s409": "another profile is being taken",
    "s500": "the profiler failed",
}

Result = TypeVar("Result")


def profiling_router(slot: ProfileSlot) -> APIRouter:
    """`slot` is shared with whatever else takes profiles."""
    router = APIRouter(tags=["profiling"])
    act = partial(action, router)

    @router.get("/debug/home", response_class=HTMLResponse, operation_id="debugHome")
    async def home() -> HTMLResponse:
        """A page with links to the profiles."""
        return HTMLResponse(HOME)

    @act(
        "/debug/pprof/profile",
        response_class=Response,
        operation_id="cpuProfile",
        openapi_extra=_parameters(CPU_FORMATS),
        responses=codes(**PROFILE_CODES),
    )
    async def cpu(request: Request) -> Response:
        """Where this process spends processor time."""
        try:
            seconds, frequency_hertz, form = _read(request, CPU_FORMATS)
            with slot.take("CPU"):
                profile = await _unless_disconnected(request, record_cpu(seconds, frequency_hertz, form))
        except InvalidRequestError as error:
            return fault(400, str(error))
        except ProfilerBusyError as error:
            return fault(409, str(error))
        return _respond(profile, attachment=None)

    @act(
        "/debug/mem/pprof/profile",
        response_class=Response,
        operation_id="memoryProfile",
        openapi_extra=_parameters(MEMORY_FORMATS),
        responses=codes(**PROFILE_CODES, s404="memray is not installed"),
    )
    async def memory(request: Request) -> Response:
        """Where memory is allocated within `seconds`."""
        try:
            seconds, _, form = _read(request, MEMORY_FORMATS)
            with slot.take("memory"):
                profile = await _unless_disconnected(request, record_memory(seconds, form))
        except InvalidRequestError as error:
            return fault(400, str(error))
        except ProfilerUnavailableError as error:
            return fault(404, str(error))
        except ProfilerBusyError as error:
            return fault(409, str(error))
        suffix = {ProfileFormat.PPROF: "prof", ProfileFormat.MEMRAY: "bin"}.get(form)
        return _respond(profile, f"heap_dump_{time.time_ns() // 1_000_000}.{suffix}" if suffix else None)

    return router


def _read(request: Request, formats: Sequence[ProfileFormat]) -> tuple[int, int, ProfileFormat]:
    """Seconds, frequency and form; unparsable numbers count as absent, impossible ones raise InvalidRequestError."""
    query_string = request.scope["query_string"]
    numbers = parse_query(query_string, {"seconds": unsigned, "frequency": nonzero_signed})
    seconds = numbers.get("seconds", SECONDS_DEFAULT)
    frequency_hertz = numbers.get("frequency", FREQUENCY_HERTZ_DEFAULT)
    if not 1 <= seconds <= PROFILE_SECONDS_MAX:
        raise InvalidRequestError(f"seconds is {seconds}, it must be between 1 and {PROFILE_SECONDS_MAX}")
    if not 1 <= frequency_hertz <= PROFILE_FREQUENCY_HERTZ_MAX:
        text = f"frequency is {frequency_hertz}, it must be between 1 and {PROFILE_FREQUENCY_HERTZ_MAX}"
        raise InvalidRequestError(text)
    name = parse_query(query_string, {"format": str}).get("format", ProfileFormat.PPROF.value)
    if name not in formats:
        raise InvalidRequestError(f"format is {name!r}, it must be one of {', '.join(formats)}")
    return seconds, frequency_hertz, ProfileFormat(name)


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
    headers = {SAMPLER_HEADER: profile.sampler, "Cache-Control": "no-store", "Content-Type": profile.content_type}
    if attachment is not None:
        headers["Content-Disposition"] = f'attachment; filename="{attachment}"'
    return Response(profile.body, headers=headers)


def _parameters(formats: Sequence[ProfileFormat]) -> dict[str, Any]:
    """Query parameters for the API's description; the framework must not parse them, because it would answer 422."""
    described: tuple[tuple[str, dict[str, Any]], ...] = (
        ("seconds", {"type": "integer", "minimum": 1, "maximum": PROFILE_SECONDS_MAX, "default": SECONDS_DEFAULT}),
        (
            "frequency",
            {
                "type": "integer",
                "minimum": 1,
                "maximum": PROFILE_FREQUENCY_HERTZ_MAX,
                "default": FREQUENCY_HERTZ_DEFAULT,
            },
        ),
        ("format", {"type": "string", "enum": [str(form) for form in formats], "default": "pprof"}),
    )
    return {"parameters": [{"name": name, "in": "query", "schema": schema} for name, schema in described]}

"""Routes of log levels: which loggers say how much, and a change for a time.

    GET /v1/log-levels    the loggers with a level of their own, and the names of all
    PUT /v1/log-levels    give one logger of this node another level, which goes back by itself

Errors are problems in JSON (RFC 9457). The change is this node's alone and ends with it. Runs on the event loop.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import ValidationError

from metasrv.admin.actions import LOG_LEVELS_PATH
from metasrv.admin.problem import problem
from metasrv.admin.responses import NO_STORE, PROBLEM_MEDIA_TYPE, JsonResponse, codes
from metasrv.admin.schemas import LoggerLevelSchema, LogLevelChangeSchema, LogLevelsSchema
from metasrv.config.levels import NAMES
from metasrv.model.errors import InvalidRequestError, NotDoneError, OverloadedError
from metasrv.model.limits import LOG_LEVEL_SECONDS_MAX
from metasrv.node.context import NodeContext
from metasrv.process.log_levels import SECONDS_DEFAULT, known_loggers

CHANGED = codes(
    PROBLEM_MEDIA_TYPE,
    ok="changed, until then",
    s400="there is no such logger or level, or the time is too long",
    s429="too many loggers are changed",
    s503="the log is not this node's",
)
SHOWN = codes(PROBLEM_MEDIA_TYPE, ok="as they are now", s503="the log is not this node's")


def log_levels_router(context: NodeContext) -> APIRouter:
    router = APIRouter(tags=["logs"])
    levels = context.log_levels

    @router.get(LOG_LEVELS_PATH, operation_id="logLevels", response_model=LogLevelsSchema, responses=SHOWN)
    async def shown() -> Response:
        """Every logger with a level of its own, and what may be asked for."""
        try:
            return JsonResponse(levels_view(context), headers=NO_STORE)
        except NotDoneError as error:
            return problem(503, str(error))

    body = {"requestBody": {"content": {"application/json": {"schema": LogLevelChangeSchema.model_json_schema()}}}}

    @router.put(
        LOG_LEVELS_PATH,
        operation_id="setLogLevel",
        response_model=LoggerLevelSchema,
        responses=CHANGED,
        openapi_extra=body,
    )
    async def change(request: Request) -> Response:
        """Give a logger, and those below it, another level; another change of it takes the place of the first."""
        try:
            asked = LogLevelChangeSchema.model_validate_json(await request.body())
            changed = levels.change(asked.logger, asked.level, asked.seconds)
        except ValidationError as error:
            return problem(400, _sentence(error))
        except InvalidRequestError as error:
            return problem(400, str(error))
        except OverloadedError as error:
            return problem(429, str(error))
        except NotDoneError as error:
            return problem(503, str(error))
        return JsonResponse(changed._asdict(), headers=NO_STORE)

    return router


def levels_view(context: NodeContext) -> dict[str, Any]:
    """The shape of `GET /v1/log-levels`. Raises NotDoneError."""
    return {
        "levels": [level._asdict() for level in context.log_levels.levels()],
        "loggers": known_loggers(),
        "level_names": list(NAMES.values()),
        "seconds_default": SECONDS_DEFAULT,
        "seconds_max": LOG_LEVEL_SECONDS_MAX,
    }


def _sentence(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(map(str, first["loc"])) or "the body"
    return f"{where}: {first['msg']}; the body is an object with {', '.join(LogLevelChangeSchema.model_fields)}"

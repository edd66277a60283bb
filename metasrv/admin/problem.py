"""Faults as answers: a status code and one bare sentence, never 422; of metasrv's own routes a problem in JSON.

As docs/contract/admin-api.md section 1.0 requires: clients of upstream's routes expect bare text, and so do those of
probes. Must not know what the routes do. Runs on the event loop.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from metasrv.admin.actions import (
    ACTION_PATHS,
    BACKUP_PATH,
    COMPACT_PATH,
    DIAGNOSTICS_PATH,
    DRAIN_PATH,
    LOG_LEVELS_PATH,
    MEMBERS_PATH,
    POST_PATHS,
    READ_ONLY_PATH,
    is_of_members,
    member_methods,
)
from metasrv.admin.caching import NO_STORE
from metasrv.admin.responses import PROBLEM_MEDIA_TYPE, JsonResponse, TextResponse
from metasrv.model.errors import MetasrvError

logger = logging.getLogger(__name__)

CONSOLE_PATH = "/v1/console"
KEYS_PATH = "/v1/console/keys"
KEY_PATH = "/v1/console/key"
PROFILE_PATH = "/v1/profile"
SLOW_WRITES_PATH = "/v1/slow-writes"
_PROBLEM_PREFIXES = (
    f"{CONSOLE_PATH}/",
    "/v1/events/",
    "/v1/runbooks/",
    f"{LOG_LEVELS_PATH}/",
    f"{SLOW_WRITES_PATH}/",
    f"{PROFILE_PATH}/",
    f"{DIAGNOSTICS_PATH}/",
    f"{MEMBERS_PATH}/",
    "/v1/users/",
    "/v1/backup/",
    *(f"{path}/" for path in (READ_ONLY_PATH, DRAIN_PATH, COMPACT_PATH, BACKUP_PATH)),
)
"""Below these every route is metasrv's own; probes and metrics speak as others expect."""

_RENAMED = {
    413: "Content Too Large",
    414: "URI Too Long",
    416: "Range Not Satisfiable",
    422: "Unprocessable Content",
}

ALLOWED = "GET, HEAD"
"""What every route allows; those that do something also take POST."""


def install_error_handlers(app: FastAPI) -> None:
    """Make every fault of `app` a bare text."""
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(MetasrvError, _known_error)
    app.add_exception_handler(Exception, _unknown_error)


def fault(status_code: int, text: str) -> TextResponse:
    """One answer that says what is wrong."""
    return TextResponse(text, status_code=status_code)


class ProblemResponse(JsonResponse):
    """A fault as RFC 9457 has it."""

    media_type = PROBLEM_MEDIA_TYPE


def title_of(status_code: int) -> str:
    """What RFC 9110 calls the status, whichever Python runs: the names of some changed in Python 3.13."""
    return _RENAMED.get(status_code) or HTTPStatus(status_code).phrase


def problem(status_code: int, text: str, headers: Mapping[str, str] | None = None) -> ProblemResponse:
    """One answer that says what is wrong, for programs and people."""
    content = {"type": "about:blank", "title": title_of(status_code), "status": status_code, "detail": text}
    return ProblemResponse(content, status_code=status_code, headers=headers)


def speaks_problems(path: str) -> bool:
    """Whether faults of this path are problems in JSON."""
    return f"{path}/".startswith(_PROBLEM_PREFIXES)


def as_spoken(path: str, refusal: TextResponse) -> Response:
    """The refusal in the form that the path has."""
    if not speaks_problems(path):
        return refusal
    kept = {name: value for name, value in refusal.headers.items() if not name.startswith("content-")}
    return problem(refusal.status_code, bytes(refusal.body).decode(), kept)


async def _http_error(request: Request, error: Exception) -> Response:
    return as_spoken(request.url.path, await _http_text(request, error))


async def _http_text(request: Request, error: Exception) -> TextResponse:
    if not isinstance(error, HTTPException):
        return _unknown_text(request, error)
    text = HTTPStatus(error.status_code).phrase.lower() if error.status_code in (404, 405) else str(error.detail)
    headers = _allowed(request) if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED else error.headers
    return TextResponse(text, status_code=error.status_code, headers=headers)


def _allowed(request: Request) -> dict[str, str]:
    if request.url.path in POST_PATHS:
        return {"Allow": "POST"}
    if request.url.path == LOG_LEVELS_PATH:
        return {"Allow": f"{ALLOWED}, PUT"}
    if is_of_members(request.url.path):
        return {"Allow": member_methods(request.url.path)}
    return {"Allow": f"{ALLOWED}, POST" if request.url.path in ACTION_PATHS else ALLOWED}


async def _validation_error(_request: Request, error: Exception) -> TextResponse:
    logger.warning("the framework refused a route's input, which routes should parse themselves: %s", error)
    return fault(400, "the request is not valid")


async def _known_error(request: Request, error: Exception) -> Response:
    return as_spoken(request.url.path, fault(500, str(error)))


async def _unknown_error(request: Request, error: Exception) -> Response:
    response = as_spoken(request.url.path, _unknown_text(request, error))
    response.headers["Cache-Control"] = NO_STORE  # it leaves outside of the layers that say so elsewhere
    return response


def _unknown_text(request: Request, error: Exception) -> TextResponse:
    logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return fault(500, f"internal error: {type(error).__name__}: {error}")

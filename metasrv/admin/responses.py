"""The two kinds of bodies, JSON and bare text, with the content types that Databend sends; and what describes a route."""

from __future__ import annotations

import json
from typing import Any

from fastapi.responses import PlainTextResponse, Response


class JsonResponse(Response):
    """Compact JSON."""

    media_type = "application/json; charset=utf-8"

    def render(self, content: Any) -> bytes:
        return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


class TextResponse(PlainTextResponse):
    """Bare text; every error of this API is one."""


NO_STORE = {"Cache-Control": "no-store"}
"""What no cache may keep."""
PROBLEM_MEDIA_TYPE = "application/problem+json"


def codes(error_type: str = "text/plain", **meanings: str) -> dict[int | str, dict[str, Any]]:
    """A route's `responses` for the API's description: `codes(ok="…", s404="not the leader")`; errors are bare text.

    `ok` describes 200. Every route may also answer 413, 405 and, with tokens configured, 401 and 403.
    """
    described: dict[int | str, dict[str, Any]] = {}
    for name, meaning in meanings.items():
        if name == "ok":
            described[200] = {"description": meaning}
        else:
            schema = {"type": "object"} if error_type == PROBLEM_MEDIA_TYPE else {"type": "string"}
            described[int(name.removeprefix("s"))] = {"description": meaning, "content": {error_type: {"schema": schema}}}
    return described


def parameters(**described: tuple[str, str | list[str], bool]) -> dict[str, Any]:
    """Query parameters for the API's description: what each is, its type or its possible texts, whether it is needed.

    The framework must not parse them, because it would answer 422.
    """
    return {
        "parameters": [
            {
                "name": name,
                "in": "query",
                "required": required,
                "description": text,
                "schema": {"type": kind} if isinstance(kind, str) else {"type": "string", "enum": kind},
            }
            for name, (text, kind, required) in described.items()
        ]
    }

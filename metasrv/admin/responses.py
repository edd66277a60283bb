"""The two kinds of bodies, JSON and bare text, with the content types that Databend sends; and the codes of a route."""

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

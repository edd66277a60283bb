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


def codes(**meanings: str) -> dict[int | str, dict[str, Any]]:
    """A route's `responses` for the API's description: `codes(ok="…", s404="not the leader")`; errors are bare text.

    `ok` describes 200. Every route may also answer 413, 405 and, with tokens configured, 401 and 403.
    """
    described: dict[int | str, dict[str, Any]] = {}
    for name, meaning in meanings.items():
        if name == "ok":
            described[200] = {"description": meaning}
        else:
            text: dict[str, Any] = {"text/plain": {"schema": {"type": "string"}}}
            described[int(name.removeprefix("s"))] = {"description": meaning, "content": text}
    return described


def parameters(**described: tuple[str, str, bool]) -> dict[str, Any]:
    """Query parameters for the API's description: (text, kind, required) by name.

    The framework must not parse them, because it would answer 422.
    """
    return {
        "parameters": [
            {"name": name, "in": "query", "required": required, "description": text, "schema": {"type": kind}}
            for name, (text, kind, required) in described.items()
        ]
    }

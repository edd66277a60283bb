"""The two kinds of bodies: JSON and bare text, with the content types that Databend sends."""

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

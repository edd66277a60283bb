"""The API's description in OpenAPI, `/openapi.json`: made once, by a helper thread, because it takes tens of ms.

Must not know the routes. Runs on the event loop.
"""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, FastAPI
from fastapi.responses import Response

from metasrv.admin.responses import JsonResponse

DESCRIPTION_PATH = "/openapi.json"


def description_router(app: FastAPI) -> APIRouter:
    """The route that describes the routes that `app` has when it is asked for the first time."""
    router = APIRouter(include_in_schema=False)
    made: bytes | None = None

    def make() -> bytes:
        return bytes(JsonResponse(app.openapi()).body)

    @router.get(DESCRIPTION_PATH)
    async def description() -> Response:
        """The description."""
        nonlocal made
        if made is None:
            made = await asyncio.to_thread(make)
        return Response(made, media_type="application/json")

    return router

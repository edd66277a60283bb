"""`GET /v1/diagnostics`: a bundle of what is known about this node, as one archive that is sent while it is made.

One at a time, because a bundle costs the node something. A caller that hangs up ends it, its profile included. Must not
know what is in a bundle. Runs on the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.types import Receive, Scope, Send

from metasrv.admin.actions import DIAGNOSTICS_PATH
from metasrv.admin.bundle import BundleSources, bundle_pieces
from metasrv.admin.head import is_head
from metasrv.admin.problem import problem
from metasrv.admin.query import parse_query, unsigned
from metasrv.admin.responses import NO_STORE, PROBLEM_MEDIA_TYPE, codes
from metasrv.model.limits import DIAGNOSTICS_PROFILE_SECONDS_MAX

MEDIA_TYPE = "application/gzip"
PROFILE_SECONDS_DEFAULT = 2
BUSY = "another diagnostics bundle of this node is being made; try again when it is done"
SECONDS_PARAMETER = {
    "name": "seconds",
    "in": "query",
    "description": "Length of the processor's profile in the bundle; 0 leaves it out.",
    "schema": {
        "type": "integer",
        "minimum": 0,
        "maximum": DIAGNOSTICS_PROFILE_SECONDS_MAX,
        "default": PROFILE_SECONDS_DEFAULT,
    },
}


def diagnostics_router(sources: BundleSources) -> APIRouter:
    router = APIRouter(tags=["diagnostics"])
    described = codes(
        PROBLEM_MEDIA_TYPE,
        ok="a tar archive, compressed with gzip",
        s400="the profile is too long",
        s409="another bundle is being made",
    )
    described[200]["content"] = {MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}}
    turn = _Turn()

    @router.get(
        DIAGNOSTICS_PATH,
        operation_id="diagnostics",
        response_class=Response,
        responses=described,
        openapi_extra={"parameters": [SECONDS_PARAMETER]},
    )
    async def diagnostics(request: Request) -> Response:
        """Status, events, metrics, log, configuration without secrets, threads, files, slow writes and a profile."""
        seconds = parse_query(request.scope["query_string"], {"seconds": unsigned}).get(
            "seconds", PROFILE_SECONDS_DEFAULT
        )
        if seconds > DIAGNOSTICS_PROFILE_SECONDS_MAX:
            return problem(400, f"seconds is {seconds}, it must be between 0 and {DIAGNOSTICS_PROFILE_SECONDS_MAX}")
        context = sources.context
        made_at = datetime.fromtimestamp(context.clock.wall_ms() / 1000, UTC).strftime("%Y%m%dT%H%M%SZ")
        name = f"metasrv-node-{context.config.raft_config.id}-{made_at}.tar.gz"
        headers = {**NO_STORE, "Content-Disposition": f'attachment; filename="{name}"'}
        if is_head(request.scope):
            return Response(media_type=MEDIA_TYPE, headers=headers)
        return BundleResponse(turn, lambda: bundle_pieces(sources, seconds), headers)

    return router


class _Turn:
    """Whether a bundle is being made."""

    def __init__(self) -> None:
        self.is_taken = False


class BundleResponse(Response):
    """Sends the pieces as they are made, unless another answer does so already."""

    media_type = MEDIA_TYPE

    def __init__(self, turn: _Turn, pieces: Callable[[], AsyncIterator[bytes]], headers: dict[str, str]) -> None:
        super().__init__(headers=headers)
        del self.headers["content-length"]
        self._turn = turn
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._turn.is_taken:
            await problem(409, BUSY)(scope, receive, send)
            return
        self._turn.is_taken = True
        try:
            await self._unless_disconnected(receive, send)
        finally:
            self._turn.is_taken = False

    async def _unless_disconnected(self, receive: Receive, send: Send) -> None:
        sending = asyncio.create_task(self._send(send), name="diagnostics")
        watching = asyncio.create_task(_disconnected(receive), name="diagnostics-caller")
        try:
            await asyncio.wait({sending, watching}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                await sending
        finally:
            sending.cancel()
            watching.cancel()
            await asyncio.gather(sending, watching, return_exceptions=True)

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for piece in self._pieces():
            if piece:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue

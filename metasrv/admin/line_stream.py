"""An answer that does not end by itself: lines of JSON as they come, until the client leaves or the stream ends.

It waits for the client before it sends more; what comes meanwhile waits in the stream, which is bounded. Knows nothing
of what the lines say. Runs on the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from fastapi.responses import Response
from starlette.types import Receive, Scope, Send

from metasrv.console.streams import LineStream

MEDIA_TYPE = "application/x-ndjson"


class LineStreamResponse(Response):
    """Sends a stream; `closed` is called at its end, whatever ended it."""

    media_type = MEDIA_TYPE

    def __init__(self, stream: LineStream, closed: Callable[[LineStream], None]) -> None:
        super().__init__()
        del self.headers["content-length"]
        self._stream = stream
        self._closed = closed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope
        watching = asyncio.create_task(self._watch(receive), name="stream-client")
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            while (piece := await self._stream.next()) is not None:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            watching.cancel()
            self._closed(self._stream)

    async def _watch(self, receive: Receive) -> None:
        """End the stream when the client leaves."""
        message = await receive()
        while message["type"] != "http.disconnect":
            message = await receive()
        self._stream.end()

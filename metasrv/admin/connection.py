"""One HTTP connection, with a deadline for its next request.

The server's own keep-alive timer runs only between requests. A connection that never sends one, or sends it byte by
byte, would hold one of the few places forever; here it is closed if the head of a request does not arrive in time.
Runs on the event loop.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from metasrv.model.limits import ADMIN_CONNECTIONS_REFUSED_MAX, ADMIN_REQUEST_SECONDS_MAX


class DeadlineProtocol(HttpToolsProtocol):
    """Closes connections that keep the server waiting."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        limit = self.limit_concurrency
        if limit is not None and len(self.connections) > limit + ADMIN_CONNECTIONS_REFUSED_MAX:
            transport.abort()  # without an answer: an open connection takes a descriptor from the rest of the node
            return
        self._start()

    def data_received(self, data: bytes) -> None:
        if self._deadline is None and self._waits_for_request():
            self._start()
        super().data_received(data)

    def on_headers_complete(self) -> Any:
        self._end()
        return super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()
        super().connection_lost(exc)

    def _waits_for_request(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _start(self) -> None:
        self._deadline = self.loop.call_later(ADMIN_REQUEST_SECONDS_MAX, self._give_up)

    def _end(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        self._deadline = None
        self.transport.close()

"""One HTTP connection, with bounds on what it may hold and for how long.

The server's own keep-alive timer runs only between requests, and its parser keeps whatever arrives. Here the head of a
request must arrive in time and within a size, requests that wait for earlier answers are few, and an answer must be
taken. When there are too many connections a new one takes the place of an idle one, so that probes always find room;
probes are answered while everything else is refused. Runs on the event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from metasrv.admin.access import CERTIFICATE_NAME
from metasrv.model.limits import (
    ADMIN_CONNECTIONS_BUSY_MAX,
    ADMIN_HEAD_SIZE_BYTES_MAX,
    ADMIN_PIPELINED_MAX,
    ADMIN_REQUEST_SECONDS_MAX,
    ADMIN_UNREAD_SECONDS_MAX,
)

logger = logging.getLogger(__name__)

PROBES = frozenset({b"/livez", b"/readyz", b"/v1/health"})
REPORT_SECONDS = 10.0
"""Connections that were cut off are reported together, once in this time."""
HEAD_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-type: text/plain; charset=utf-8\r\nconnection: close\r\n\r\n"
) + f"The head of a request may have {ADMIN_HEAD_SIZE_BYTES_MAX} bytes.\n".encode()


class TooManyRequestsError(Exception):
    """A client sends requests faster than it takes answers."""


class CutOffs:
    """Counts connections that were cut off, and writes one line about all of them."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, loop: asyncio.AbstractEventLoop, reason: str) -> None:
        """One more connection was cut off for this reason."""
        self._counts[reason] += 1
        if self._timer is None:
            self._timer = loop.call_later(REPORT_SECONDS, self.report)

    def report(self) -> None:
        """Write the line and begin to count anew."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._counts:
            reasons = ", ".join(f"{count} ({reason})" for reason, count in self._counts.most_common())
            logger.warning("connections to the admin API were cut off: %s", reasons)
            self._counts.clear()


class BoundedProtocol(HttpToolsProtocol):
    """Closes connections that keep the server waiting, or make it keep too much."""

    def __init__(self, cut_offs: CutOffs, **given: Any) -> None:
        super().__init__(**given)
        self._cut_offs = cut_offs
        self._deadline: asyncio.TimerHandle | None = None
        self._unread_deadline: asyncio.TimerHandle | None = None
        self._head_size_bytes = 0
        """Received since the head of the next request began."""
        self._head_in_piece = False
        """Whether a head was completed within the piece that is being parsed."""
        self._certificate_name: str | None = None
        """Common name of the client's certificate, which the TLS library has verified."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._certificate_name = _common_name(transport.get_extra_info("peercert"))
        self._start()
        limit = self.limit_concurrency
        if limit is not None and len(self.connections) >= limit:
            self._take_place()
            if len(self.connections) > limit + ADMIN_CONNECTIONS_BUSY_MAX:
                self._cut_off("all connections are busy")

    def data_received(self, data: bytes) -> None:
        if self._deadline is None and self._waits_for_request():
            self._start()
        self._head_in_piece = False
        super().data_received(data)
        if self._head_in_piece or not self._waits_for_request():
            self._head_size_bytes = 0
            return
        self._head_size_bytes += len(data)
        if self._head_size_bytes > ADMIN_HEAD_SIZE_BYTES_MAX and not self.transport.is_closing():
            self.transport.write(HEAD_TOO_LARGE)
            self._cut_off("the head of a request is too large", at_once=False)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._certificate_name is not None:
            self.scope["extensions"] = {CERTIFICATE_NAME: self._certificate_name}  # type: ignore[dict-item]

    def on_headers_complete(self) -> Any:
        self._end()
        self._head_in_piece = True
        if len(self.pipeline) >= ADMIN_PIPELINED_MAX:
            self._cut_off("too many requests wait for the answers to earlier ones")
            raise TooManyRequestsError
        if self.url.partition(b"?")[0] not in PROBES:
            return super().on_headers_complete()
        limit, self.limit_concurrency = self.limit_concurrency, None
        try:
            return super().on_headers_complete()
        finally:
            self.limit_concurrency = limit

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._unread_deadline is None:
            self._unread_deadline = self.loop.call_later(ADMIN_UNREAD_SECONDS_MAX, self._give_up_unread)

    def resume_writing(self) -> None:
        self._end_unread()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()
        self._end_unread()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        if not self.transport.is_closing():
            super().send_400_response(msg)

    def _waits_for_request(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _take_place(self) -> None:
        """Cut off an idle connection: of the client that has the most, the one that has been idle for longest."""
        others = [one for one in self.connections if isinstance(one, BoundedProtocol) and one is not self]
        idle = [one for one in others if one.is_idle()]
        counts = Counter(one.client[0] if one.client else "" for one in idle)
        if not counts:
            return
        client, _ = counts.most_common(1)[0]
        mine = [one for one in idle if (one.client[0] if one.client else "") == client]
        min(mine, key=lambda one: one.idle_since()).give_place()

    def is_idle(self) -> bool:
        """Whether nothing is asked or answered on the connection."""
        return self._waits_for_request() and not self.transport.is_closing()

    def idle_since(self) -> float:
        """When it became idle, on a clock of its own kind: the earlier, the longer it has been idle."""
        timer = self._deadline or self.timeout_keep_alive_task
        return timer.when() if timer is not None else float("inf")

    def give_place(self) -> None:
        """Close at once, for another connection."""
        self._cut_off("idle for longest, to make room")

    def _cut_off(self, reason: str, *, at_once: bool = True) -> None:
        self._cut_offs.add(self.loop, reason)
        # Not in the set while the transport closes: the place is free now.
        self.connections.discard(self)
        if at_once:
            self.transport.abort()
        else:
            self.transport.close()

    def _start(self) -> None:
        self._deadline = self.loop.call_later(ADMIN_REQUEST_SECONDS_MAX, self._give_up)

    def _end(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        self._deadline = None
        self.transport.close()

    def _end_unread(self) -> None:
        if self._unread_deadline is not None:
            self._unread_deadline.cancel()
            self._unread_deadline = None

    def _give_up_unread(self) -> None:
        self._unread_deadline = None
        self._cut_off("nothing of an answer was taken")


def _common_name(certificate: Mapping[str, Any] | None) -> str | None:
    """The common name of a certificate in the form of `ssl.SSLSocket.getpeercert`; None when it has none or several."""
    pairs = [pair for part in (certificate or {}).get("subject", ()) for pair in part]
    names = [value for name, value in pairs if name == "commonName"]
    return names[0] if len(names) == 1 else None

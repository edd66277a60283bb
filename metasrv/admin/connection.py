"""One HTTP connection, with bounds on what it may hold and for how long.

The server's own keep-alive timer runs only between requests, and its parser keeps whatever arrives. Here the head of a
request must arrive in time and within a size, a body within another, requests that wait for earlier answers are few, and
an answer must be taken. When there are too many connections, in all or from one address, a new one takes the place of one
that only waits for its client, so that probes always find room; probes are answered while everything else is refused. A
connection that is being closed counts until it is gone: with TLS that takes the client's word, which may never come. A
client may leave at any time. Runs on the event loop.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from enum import IntEnum
from functools import partial
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from metasrv.admin.access import CERTIFICATE_NAME, PROBE_PATHS
from metasrv.admin.cut_offs import CountedWarnings, CutOffs
from metasrv.admin.networks import network_of
from metasrv.model.limits import (
    ADMIN_ADDRESSES_MIN,
    ADMIN_BODY_SIZE_BYTES_MAX,
    ADMIN_CONNECTIONS_BUSY_MAX,
    ADMIN_HEAD_SIZE_BYTES_MAX,
    ADMIN_PIPELINED_MAX,
    ADMIN_REQUEST_SECONDS_MAX,
    ADMIN_UNREAD_SECONDS_MAX,
)
from metasrv.process.tls import common_name

PROBES = frozenset(path.encode() for path in PROBE_PATHS)
SHARE_MIN = 4
"""Connections that an address may have however few there are in all."""
SETTLED_SECONDS = 1.0
"""A connection that has waited for this long gives its place before new ones are given places for probes alone."""


def _refusal(status: str, sentence: str) -> bytes:
    head = f"HTTP/1.1 {status}\r\ncontent-type: text/plain; charset=utf-8\r\nconnection: close\r\n\r\n"
    return (head + sentence + "\n").encode()


HEAD_TOO_LARGE = _refusal(
    "431 Request Header Fields Too Large", f"The head of a request may have {ADMIN_HEAD_SIZE_BYTES_MAX} bytes."
)
BODY_TOO_LARGE = _refusal(
    "413 Content Too Large", f"the body of a request may have at most {ADMIN_BODY_SIZE_BYTES_MAX} bytes"
)


class TooManyRequestsError(Exception):
    """A client sends requests faster than it takes answers."""


class Waits(IntEnum):
    """What the client has to do next; the smallest is the first to lose its place."""

    CLOSING = 0
    """Take notice that the connection ends. Nothing is left to be sent."""
    IDLE = 1
    """Send a request."""
    UNREAD = 2
    """Take an answer."""


class BoundedProtocol(HttpToolsProtocol):
    """Closes connections that keep the server waiting, or make it keep too much."""

    def __init__(self, cut_offs: CutOffs, **given: Any) -> None:
        super().__init__(**given)
        self._cut_offs = cut_offs
        self.logger = CountedWarnings(self.logger, self._count_warning)  # type: ignore[assignment]
        self._deadline: asyncio.TimerHandle | None = None
        self._unread_deadline: asyncio.TimerHandle | None = None
        self._closing_deadline: asyncio.TimerHandle | None = None
        self._head_size_bytes = 0
        """Received since the head of the next request began."""
        self._head_in_piece = False
        """Whether a head was completed within the piece that is being parsed."""
        self._in_body = False
        """Whether a head is complete and its body is not."""
        self._body_size_bytes = 0
        self._only_probes = False
        """Whether its address has more than its share, so that nothing else is answered here."""
        self._running: RequestResponseCycle | None = None
        """The request that is being answered; `cycle` is the newest, which may wait behind it."""
        self._was_cut_off = False
        self._certificate_name: str | None = None
        """Common name of the client's certificate, which the TLS library has verified."""
        self.network = ""
        """Where the client is, for shares."""

    # ------------------------------------------------------------------------- the connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._certificate_name = common_name(transport.get_extra_info("peercert"))
        self.network = network_of(self.client[0]) if self.client else ""
        self._start()
        limit = self.limit_concurrency
        if limit is not None:
            self._keep_to_share(max(limit // ADMIN_ADDRESSES_MIN, SHARE_MIN))
            if len(self.connections) >= limit and not self.transport.is_closing():
                self._keep_to_limit(limit)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()
        self._end_unread()
        if self._closing_deadline is not None:
            self._closing_deadline.cancel()
        running = self._running
        if running is not None and not running.response_complete:
            running.disconnected = True
            running.message_event.set()
        super().connection_lost(exc)

    def _keep_to_share(self, share: int) -> None:
        """Make an address that has more connections than its share use those that it has."""
        if len(self.connections) <= share:
            return
        mine = [one for one in self._others() if one.network == self.network]
        if len(mine) < share:
            return
        # Newcomers do not take each other's place while there is another: a probe that has just come has yet to be read.
        reason, settled_at = "of an address that has its share", self.loop.time() - SETTLED_SECONDS
        if not _take_place(mine, reason, settled_at, from_newcomers=False):
            full = len(mine) >= share + max(share // 2, 1)
            if full and not _take_place(mine, reason, settled_at):
                self._cut_off("all connections that an address may have are busy")
                return
        # The place may have been one that is for probes alone, and stays that.
        self._only_probes = sum(not one._only_probes for one in mine if one in self.connections) >= share

    def _keep_to_limit(self, limit: int) -> None:
        """Take the place of a connection of the client that has the most that only wait for it."""
        waiting = Counter(one.network for one in self._others() if one.waits_for_client() is not None)
        if waiting:
            network, _ = waiting.most_common(1)[0]
            of_network = (one for one in self._others() if one.network == network)
            _take_place(of_network, "to make room", self.loop.time() - SETTLED_SECONDS)
        if len(self.connections) > limit + ADMIN_CONNECTIONS_BUSY_MAX:
            self._cut_off("all connections are busy")

    def _others(self) -> list[BoundedProtocol]:
        return [one for one in self.connections if isinstance(one, BoundedProtocol) and one is not self]

    def waits_for_client(self) -> tuple[Waits, float] | None:
        """What the client has to do, and since when by the loop's clock; None while the node has work to do."""
        if self.transport.is_closing():
            closing = self._note_closing()
            since = closing.when() - ADMIN_UNREAD_SECONDS_MAX
            return (Waits.UNREAD if self.transport.get_write_buffer_size() else Waits.CLOSING, since)
        if self._waits_for_request():
            if self._deadline is not None:
                return (Waits.IDLE, self._deadline.when() - ADMIN_REQUEST_SECONDS_MAX)
            keep_alive = self.timeout_keep_alive_task
            return (Waits.IDLE, float("inf") if keep_alive is None else keep_alive.when() - self.timeout_keep_alive)
        unread = self._unread_deadline
        return None if unread is None else (Waits.UNREAD, unread.when() - ADMIN_UNREAD_SECONDS_MAX)

    def give_place(self, waits: Waits, reason: str) -> None:
        """Close at once, for another connection."""
        if waits is Waits.CLOSING:
            self._abort()
        else:
            self._cut_off(f"{waits.name.lower()} for longest, {reason}")

    # ------------------------------------------------------------------------- requests

    def data_received(self, data: bytes) -> None:
        if self._deadline is None and self._waits_for_request():
            self._start()
        self._head_in_piece = False
        super().data_received(data)
        if self._head_in_piece or self._in_body:
            self._head_size_bytes = 0
            return
        self._head_size_bytes += len(data)
        if self._head_size_bytes > ADMIN_HEAD_SIZE_BYTES_MAX:
            self._refuse(HEAD_TOO_LARGE if self._waits_for_request() else b"", "the head of a request is too large")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._certificate_name is not None:
            self.scope["extensions"] = {CERTIFICATE_NAME: self._certificate_name}  # type: ignore[dict-item]

    def on_headers_complete(self) -> Any:
        self._end()
        self._head_in_piece = self._in_body = True
        self._body_size_bytes = 0
        if len(self.pipeline) >= ADMIN_PIPELINED_MAX:
            self._cut_off("too many requests wait for the answers to earlier ones")
            raise TooManyRequestsError
        limit = self.limit_concurrency
        if self.url.partition(b"?")[0] in PROBES:
            self.limit_concurrency = None
        elif self._only_probes:
            self.limit_concurrency = 0
        try:
            return super().on_headers_complete()
        finally:
            self.limit_concurrency = limit

    def on_body(self, body: bytes) -> None:
        self._body_size_bytes += len(body)
        if self._body_size_bytes <= ADMIN_BODY_SIZE_BYTES_MAX:
            super().on_body(body)
            return
        answered = self.pipeline or self.cycle.response_started
        self.cycle.disconnected = True
        self.cycle.message_event.set()
        self._refuse(b"" if answered else BODY_TOO_LARGE, "the body of a request is too large")

    def on_message_complete(self) -> None:
        self._in_body = False
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        if not self.transport.is_closing():
            super().send_400_response(msg)
            self._note_closing()

    def _waits_for_request(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    # ------------------------------------------------------------------------- answers

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, partial(self._answer, app, cycle))

    async def _answer(self, app: Any, cycle: RequestResponseCycle, scope: Any, receive: Any, send: Any) -> None:
        try:
            await _answer(app, cycle, self._client_left, scope, receive, send)
        finally:
            self.loop.call_soon(self._answered)  # the server closes after an application that failed

    def _client_left(self) -> None:
        if not self._was_cut_off:
            self._cut_offs.add(self.loop, "a client left before it had its answer")

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._unread_deadline is None:
            self._unread_deadline = self.loop.call_later(ADMIN_UNREAD_SECONDS_MAX, self._give_up_unread)

    def resume_writing(self) -> None:
        self._end_unread()
        super().resume_writing()

    def _answered(self) -> None:
        if self.transport.is_closing() and self in self.connections:
            self._note_closing()

    # ------------------------------------------------------------------------- ends

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._note_closing()

    def _note_closing(self) -> asyncio.TimerHandle:
        """Give the end of a connection its time: its client may take neither the last bytes nor the end."""
        if self._closing_deadline is None:
            self._closing_deadline = self.loop.call_later(ADMIN_UNREAD_SECONDS_MAX, self._abort)
        return self._closing_deadline

    def _refuse(self, answer: bytes, reason: str) -> None:
        """Close with this answer; empty where another answer is on its way."""
        if not self.transport.is_closing():
            self.transport.write(answer)
            self._cut_off(reason, at_once=False)

    def _cut_off(self, reason: str, *, at_once: bool = True) -> None:
        self._was_cut_off = True
        self._cut_offs.add(self.loop, f"a connection was cut off, {reason}")
        if at_once:
            self._abort()
        else:
            self._close()

    def _abort(self) -> None:
        self._was_cut_off = True
        self.connections.discard(self)  # the place is free now, and not in the loop's next step
        self.transport.abort()

    def _close(self) -> None:
        self.transport.close()
        self._note_closing()

    def _count_warning(self, kind: str) -> None:
        # What was cut off has been counted, and its parser complains as well.
        if not self.transport.is_closing():
            self._cut_offs.add(self.loop, kind)

    def _start(self) -> None:
        self._deadline = self.loop.call_later(ADMIN_REQUEST_SECONDS_MAX, self._give_up)

    def _end(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        self._deadline = None
        if not self.transport.is_closing():
            self._close()

    def _end_unread(self) -> None:
        if self._unread_deadline is not None:
            self._unread_deadline.cancel()
            self._unread_deadline = None

    def _give_up_unread(self) -> None:
        self._unread_deadline = None
        self._cut_off("nothing of an answer was taken")


async def _answer(
    app: Any, cycle: RequestResponseCycle, client_left: Callable[[], None], scope: Any, receive: Any, send: Any
) -> None:
    """Run the application for a client that may leave: what it sends then goes nowhere, and nothing fails."""
    told = False

    def leave() -> None:
        nonlocal told
        cycle.disconnected = True
        if not told:
            told = True
            client_left()

    async def sending(message: Any) -> None:
        if cycle.transport.is_closing() and not cycle.response_complete:
            leave()
        try:
            await send(message)
        except (RuntimeError, OSError):
            # The transport says so when it was closed while the answer waited to be taken.
            if not cycle.transport.is_closing():
                raise
            leave()

    await app(scope, receive, sending)


def _take_place(
    connections: Iterable[BoundedProtocol], reason: str, settled_at: float, *, from_newcomers: bool = True
) -> bool:
    """Close the one that can best be spared of those that wait for their client; False when there is none.

    First those that are closing, then what has waited since `settled_at`, then newcomers by their age alone.
    """
    waiting = []
    for number, one in enumerate(connections):
        where = one.waits_for_client()
        if where is None:
            continue
        waits, since = where
        is_newcomer = waits is not Waits.CLOSING and since > settled_at
        if from_newcomers or not is_newcomer:
            waiting.append((is_newcomer, Waits.IDLE if is_newcomer else waits, since, number, waits, one))
    if waiting:
        *_, waits, one = min(waiting)
        one.give_place(waits, reason)
    return bool(waiting)

"""A gateway's log lines on their way to the node, which writes them to its own logs with the gateway's number.

They go over the link with everything else, so they are bounded: when the node has shown no sign of life since so many of
them, further ones are dropped and counted. Records may come from any thread; the link is used on the event loop alone.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from metasrv.gateway.link import Link
from metasrv.gateway.messages import FromGateway, Message
from metasrv.model.limits import GATEWAY_LOG_FIELDS_MAX, GATEWAY_LOG_LINES_MAX
from metasrv.model.wire import mapping, string
from metasrv.process.logs_lines import fields_of
from metasrv.tracing.request_ids import current_request_id

TEXT_CHARACTERS_MAX = 8 * 1024
"""The longest line, the longest trace, and the longest value of a field."""
_PLAIN = frozenset((int, float, bool))
"""What a field may be beside a text."""


class LinkHandler(logging.Handler):
    """Sends records over a link."""

    def __init__(self, link: Link) -> None:
        super().__init__()
        self._link = link
        self._loop = asyncio.get_running_loop()
        self._sent = 0
        self._dropped = 0

    def heard(self) -> None:
        """The node has shown a sign of life."""
        self._sent = 0
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            text = f"{dropped} log lines of this gateway were dropped because the node did not take them"
            self._send((FromGateway.LOG, logging.WARNING, __name__, text, None, {}))

    def emit(self, record: logging.LogRecord) -> None:
        trace = None
        if record.exc_info and record.exc_info[0] is not None:
            trace = logging.Formatter().formatException(record.exc_info)[-TEXT_CHARACTERS_MAX:]
        text = record.getMessage()[:TEXT_CHARACTERS_MAX]
        message = (
            FromGateway.LOG,
            record.levelno,
            record.name,
            _printable(text),
            None if trace is None else _printable(trace),
            _fields_out(record),
        )
        try:
            self._loop.call_soon_threadsafe(self._send, message)
        except RuntimeError:  # the loop has ended, and the process is about to
            self._dropped += 1

    def _send(self, message: Message) -> None:
        if self._sent >= GATEWAY_LOG_LINES_MAX:
            self._dropped += 1
            return
        self._sent += 1
        self._link.send(message)


def _fields_out(record: logging.LogRecord) -> dict[str, Any]:
    given = fields_of(record)
    request_id = current_request_id()
    if request_id is not None:
        given = {"request_id": request_id, **given}
    fields = list(given.items())[:GATEWAY_LOG_FIELDS_MAX]
    return {
        name: value if type(value) in _PLAIN else _printable(str(value)[:TEXT_CHARACTERS_MAX]) for name, value in fields
    }


def fields_in(tree: Any) -> dict[str, Any]:
    """The fields of a line, as `extra` of a record has them; raises TypeError for anything else."""
    fields = mapping(tree)
    if len(fields) > GATEWAY_LOG_FIELDS_MAX:
        raise TypeError("more fields than a line has")
    return {string(name): value if type(value) in _PLAIN else string(value) for name, value in fields.items()}


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")

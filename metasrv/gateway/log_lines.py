"""A gateway's log lines on their way to the node, which writes them to its own logs with the gateway's number.

They go over the link with everything else, so they are bounded: when the node has shown no sign of life since so many of
them, further ones are dropped and counted. Records may come from any thread; the link is used on the event loop alone.
"""

from __future__ import annotations

import asyncio
import logging

from metasrv.gateway.link import Link
from metasrv.gateway.messages import FromGateway, Message
from metasrv.model.limits import GATEWAY_LOG_LINES_MAX

TEXT_CHARACTERS_MAX = 8 * 1024
"""The longest line, and the longest trace."""


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
            self._send((FromGateway.LOG, logging.WARNING, __name__, text, None))

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


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")

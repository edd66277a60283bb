"""Open streams of lines: what is published goes to all of them, and none keeps more than a few lines waiting.

A reader that is too slow is cut: what waits for it is dropped and its stream ends; the page connects anew and gets the
whole state. Lines are made once for all streams. Must not know HTTP. Runs on the event loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable

from metasrv.model.limits import CONSOLE_LINES_WAITING_MAX


class LineStream:
    """The lines that wait for one reader."""

    def __init__(self, lines: Iterable[bytes]) -> None:
        self._lines = deque(lines)
        self._changed = asyncio.Event()
        self.ended = False
        """No more lines come; those that wait are still to be read, unless the reader was too slow."""

    async def next(self) -> bytes | None:
        """All lines that wait, as one piece; None at the end."""
        while not self._lines:
            if self.ended:
                return None
            self._changed.clear()
            await self._changed.wait()
        piece = b"".join(self._lines)
        self._lines.clear()
        return piece

    def add(self, line: bytes) -> None:
        if self.ended:
            return
        if len(self._lines) >= CONSOLE_LINES_WAITING_MAX:
            self._lines.clear()
            self.end()
            return
        self._lines.append(line)
        self._changed.set()

    def end(self) -> None:
        self.ended = True
        self._changed.set()


class Streams:
    """All open streams."""

    def __init__(self) -> None:
        self._streams: set[LineStream] = set()

    def __len__(self) -> int:
        return len(self._streams)

    def open(self, lines: Iterable[bytes]) -> LineStream:
        """A stream that begins with these lines; `close` it in any case."""
        stream = LineStream(lines)
        self._streams.add(stream)
        return stream

    def close(self, stream: LineStream) -> None:
        stream.end()
        self._streams.discard(stream)

    def publish(self, line: bytes) -> None:
        for stream in self._streams:
            stream.add(line)

    def end_all(self) -> None:
        for stream in self._streams:
            stream.end()

"""What one connection sends: frames that are written in one step leave together, in one call to the system.

An answer is headers, messages and a status; each of them alone would cost a call to the system and wake its reader.
Runs on the event loop.
"""

from __future__ import annotations

import asyncio

GATHERED_SIZE_BYTES_MAX = 16 * 1024
"""So many bytes do not wait for those that follow in the step."""
CLOSING_SECONDS_MAX = 2.0
"""Until a peer must have taken what was sent before the end, and with TLS have answered the end."""


class Output:
    """Frames in the order in which they are written; they are dropped while there is no `transport`."""

    __slots__ = ("_gathered", "_gathered_bytes", "_loop", "transport")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.transport: asyncio.Transport | None = None
        self._gathered: list[bytes] = []
        self._gathered_bytes = 0

    def write(self, data: bytes) -> None:
        """Hand whole frames to the socket, after those that wait."""
        if self._gathered:
            self._gathered.append(data)
            self.flush()
        elif self.transport is not None:
            self.transport.write(data)

    def write_soon(self, data: bytes) -> None:
        """Let whole frames leave with the next that are written, at the latest when the loop turns."""
        if self.transport is None:
            return
        if not self._gathered:
            self._loop.call_soon(self.flush)
        self._gathered.append(data)
        self._gathered_bytes += len(data)
        if self._gathered_bytes >= GATHERED_SIZE_BYTES_MAX:
            self.flush()

    def write_joined(self, data: bytes, joined: list[Output]) -> None:
        """Let whole frames leave with others of this step, at whose end the caller flushes each of `joined`."""
        if self.transport is None:
            return
        if not self._gathered:
            joined.append(self)
        self._gathered.append(data)
        self._gathered_bytes += len(data)
        if self._gathered_bytes >= GATHERED_SIZE_BYTES_MAX:
            self.flush()

    def close(self) -> None:
        """Send what waits and close; a peer that takes neither that nor the end of TLS in time is cut off."""
        self.flush()
        # Closed a second time, a TLS stream of asyncio could not be cut off any more.
        if self.transport is not None and not self.transport.is_closing():
            self.transport.close()
            self._loop.call_later(CLOSING_SECONDS_MAX, self._cut_off)

    def _cut_off(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def flush(self) -> None:
        """Hand what waits to the socket."""
        gathered = self._gathered
        if not gathered:
            return
        self._gathered, self._gathered_bytes = [], 0
        if self.transport is not None:
            self.transport.write(gathered[0] if len(gathered) == 1 else b"".join(gathered))

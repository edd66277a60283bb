"""One directed link of a breakable network: its faults, and the pipes whose bytes they hit.

A TCP connection does not lose or reorder bytes by itself, so a lost packet shows as a delay, as for a real node. Bytes
that vanish, change or appear are the work of a broken middle box, and the nodes must notice. Runs on the test's event
loop; knows nothing of what the bytes mean.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

QUEUED_BYTES_MAX = 4 * 1024 * 1024
"""The sender is stopped while more than this is under way."""
RETRANSMISSION_SECONDS = 0.2
"""Delay of a lost packet: the least time after which systems send it again."""
GARBAGE_BYTES_MAX = 2048


@dataclass(frozen=True, slots=True)
class LinkFault:
    """What is wrong with a directed link. Shares are of chunks; a chunk is what arrived together."""

    held: bool = False
    """Hold everything back until the link is healed; then it arrives late."""
    swallows: bool = False
    """Take bytes and never deliver them."""
    refuse: bool = False
    """Reset new connections."""
    delay_s: float = 0.0
    jitter_s: float = 0.0
    """Up to this much more, chosen for each chunk; the order stays."""
    bytes_per_second: int | None = None
    loss: float = 0.0
    """Share that arrives one retransmission later."""
    corrupt: float = 0.0
    """Share in which one bit is flipped."""
    shorten: float = 0.0
    """Share that loses a part."""
    garbage: float = 0.0
    """Share that is followed by random bytes."""
    cut: float = 0.0
    """Share of which only a part arrives, and then a reset."""


SOUND = LinkFault()


class Stream(Protocol):
    """What a pipe needs of a transport."""

    def write(self, data: bytes, /) -> None: ...

    def is_closing(self) -> bool: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Link:
    """The state of a directed link; its pipes look at it for every chunk."""

    def __init__(self, source: random.Random, strikes: Counter[str]) -> None:
        self.fault = SOUND
        self.strikes = strikes
        self.random = source
        self.passing = asyncio.Event()
        self.passing.set()

    def set_fault(self, fault: LinkFault) -> None:
        self.fault = fault
        if fault.held:
            self.passing.clear()
        else:
            self.passing.set()

    def strikes_with(self, share: float, kind: str) -> bool:
        """Whether this kind of harm hits the chunk; counts it."""
        if share <= 0 or self.random.random() >= share:
            return False
        self.strikes[kind] += 1
        return True


class Pipe:
    """One direction of one connection: bytes from `source` to `target`, as the link lets them through."""

    def __init__(self, link: Link, source: Stream, target: Stream, reset: Callable[[], None]) -> None:
        self._link = link
        self._source = source
        self._target = target
        self._reset = reset
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._waiting_bytes = 0
        self._free_at = 0.0
        self._target_full = False
        self._reading = True
        self._worker: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()

    def feed(self, data: bytes) -> None:
        """Take bytes that arrived."""
        link = self._link
        if link.fault is SOUND and not self._waiting:
            self._write(data)
            return
        if link.fault.swallows:
            link.strikes["swallowed"] += 1
            return
        if link.strikes_with(link.fault.cut, "cut mid-frame"):
            self._write(data[: link.random.randrange(len(data)) if data else 0])
            self._loop.call_soon(self._reset)
            return
        self._queue(self._harmed(data))

    def set_target_full(self, full: bool) -> None:
        """The target's buffer is full, or no longer."""
        self._target_full = full
        self._adjust()

    def stop(self) -> None:
        """Drop what waits."""
        if self._worker is not None:
            self._worker.cancel()
        self._waiting.clear()
        self._waiting_bytes = 0

    def _harmed(self, data: bytes) -> bytes:
        link, source = self._link, self._link.random
        if data and link.strikes_with(link.fault.corrupt, "bit flipped"):
            changed = bytearray(data)
            changed[source.randrange(len(data))] ^= 1 << source.randrange(8)
            data = bytes(changed)
        if data and link.strikes_with(link.fault.shorten, "bytes missing"):
            start = source.randrange(len(data))
            data = data[:start] + data[start + source.randint(1, len(data)) :]
        if link.strikes_with(link.fault.garbage, "garbage inserted"):
            data += source.randbytes(source.randint(1, GARBAGE_BYTES_MAX))
        return data

    def _queue(self, data: bytes) -> None:
        fault, source = self._link.fault, self._link.random
        due = self._loop.time() + fault.delay_s + source.uniform(0.0, fault.jitter_s)
        if self._link.strikes_with(fault.loss, "lost, sent again"):
            due += RETRANSMISSION_SECONDS
        if fault.delay_s or fault.jitter_s:
            self._link.strikes["delayed"] += 1
        if fault.held:
            self._link.strikes["held back"] += 1
        if fault.bytes_per_second is not None:
            self._link.strikes["throttled"] += 1
            self._free_at = max(self._free_at, self._loop.time()) + len(data) / fault.bytes_per_second
            due = max(due, self._free_at)
        if self._waiting:
            due = max(due, self._waiting[-1][0])
        self._waiting.append((due, data))
        self._waiting_bytes += len(data)
        self._adjust()
        if self._worker is None or self._worker.done():
            self._worker = self._loop.create_task(self._deliver())

    async def _deliver(self) -> None:
        while self._waiting:
            await self._link.passing.wait()
            due, data = self._waiting[0]
            left = due - self._loop.time()
            if left > 0 and self._link.fault is not SOUND:
                await asyncio.sleep(min(left, 0.05))  # a link that heals meanwhile delivers at once
                continue
            self._waiting.popleft()
            self._waiting_bytes -= len(data)
            self._write(data)
            self._adjust()

    def _write(self, data: bytes) -> None:
        if not self._target.is_closing():
            self._target.write(data)

    def _adjust(self) -> None:
        """Stop reading while too much waits."""
        reading = not self._target_full and self._waiting_bytes < QUEUED_BYTES_MAX
        if reading == self._reading or self._source.is_closing():
            return
        self._reading = reading
        if reading:
            self._source.resume_reading()
        else:
            self._source.pause_reading()

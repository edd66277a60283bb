"""The slowest and the largest writes of a gateway's clients, on their way to the node, which keeps those of all gateways.

A gateway tells of those that it would keep itself, with its counts; how many that are at once is bounded as in
`node/slow_writes.py`. Runs on the event loops of both ends; must not know the link.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from metasrv.gateway.messages import Message, checked
from metasrv.model.limits import SLOW_WRITE_KEYS_MAX, SLOW_WRITES_KEPT_MAX
from metasrv.model.wire import string, unsigned
from metasrv.node.slow_writes import SlowWrites, Written


class SlowWritesToTell:
    """A gateway's end; implements `grpc_api.context.SlowWriteNotes`."""

    def __init__(self, clock: Callable[[], float], wall_ms: Callable[[], int]) -> None:
        self._clock, self._wall_ms = clock, wall_ms
        self._kept = SlowWrites(clock, wall_ms)
        """What the last minutes have: a write that is not kept here is not worth telling."""
        self._new = SlowWrites(clock, wall_ms)
        """Those of these that the node has not been told of."""

    def note(
        self,
        ended: float,
        seconds: float,
        size_bytes: int,
        method: str,
        describe: Callable[[], Written],
        failure: str | None,
    ) -> None:
        """A write has ended; see `SlowWrites.note`."""

        def described() -> Written:
            written = describe()
            self._new.note(ended, seconds, size_bytes, method, lambda: written, failure)
            return written

        self._kept.note(ended, seconds, size_bytes, method, described, failure)

    def taken(self) -> Message:
        """What was kept since the last call."""
        new = dict.fromkeys((*self._new.slowest(), *self._new.largest()))
        if new:
            self._new = SlowWrites(self._clock, self._wall_ms)
        return tuple(
            (
                write.seconds,
                write.size_bytes,
                write.method,
                write.written.keys,
                write.written.operations,
                None if write.failure is None else str(write.failure),
            )
            for write in new
        )


def note_told(slow_writes: SlowWrites, now: float, tree: Any) -> None:
    """The node's end: keep what a gateway tells as writes that end now. Raises CodecError."""
    checked(lambda: _note_told(slow_writes, now, tree))


def _note_told(slow_writes: SlowWrites, now: float, tree: Any) -> None:
    if len(tree) > 2 * SLOW_WRITES_KEPT_MAX:
        raise ValueError("more writes than a gateway keeps")
    for seconds, size_bytes, method, keys, operations, failure in tree:
        if type(seconds) is not float or not math.isfinite(seconds):
            raise TypeError("seconds were expected")
        describe = partial(Written, tuple(map(string, keys[:SLOW_WRITE_KEYS_MAX])), unsigned(operations))
        reason = None if failure is None else string(failure)
        slow_writes.note(now, seconds, unsigned(size_bytes), string(method), describe, reason)

"""Watches requests: keeps their stamps while they run, and tells of slow ones and of traced ones when they end.

One watch a node, for the requests of clients and for those that other nodes forward. Where neither the log of slow
requests nor tracing is on, no request gets anything. Runs on the event loop.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable
from typing import Protocol

from metasrv.tracing.request_ids import Header, begin_request, current_request_id
from metasrv.tracing.slow_requests import SlowRequest, SlowRequests
from metasrv.tracing.times import CURRENT, RequestEnd, RequestTimes, RequestTrace

CLOSE_SECONDS_MAX = 1.0
_LOOK_SECONDS = 0.02


class Tracer(Protocol):
    """Makes spans of requests (`spans.py`)."""

    def begin(self, name: str, traceparent: str, tracestate: str) -> RequestTrace | None:
        """The spans of a request that begins, None for one that is not sampled."""

    def carried(self, header: Header) -> tuple[str, str]:
        """The `traceparent` and `tracestate` of a request."""

    def close(self) -> threading.Thread:
        """Begin to send what waits; the thread ends once it is sent, or cannot be."""


class RequestWatch:
    """See the module. `term` is asked for a line that knows no other."""

    def __init__(self, node_id: int, term: Callable[[], int], tracer: Tracer | None = None) -> None:
        self.node_id = node_id
        self.term = term
        """The present one; may be asked on any thread."""
        self.on = False
        """Whether requests get stamps."""
        self._tracer: Tracer | None = None
        self._slow_seconds = math.inf
        self._slow = SlowRequests()
        self.tracer = tracer

    @property
    def tracer(self) -> Tracer | None:
        return self._tracer

    @tracer.setter
    def tracer(self, tracer: Tracer | None) -> None:
        self._tracer = tracer
        self._switch()

    @property
    def slow_seconds(self) -> float:
        """A request that takes longer gets a line; infinite for none."""
        return self._slow_seconds

    def set_slow_ms(self, slow_ms: int) -> None:
        """Write a line for requests that take longer; 0 for none."""
        self._slow_seconds = slow_ms / 1000 if slow_ms else math.inf
        self._switch()

    def _switch(self) -> None:
        self.on = self._slow_seconds < math.inf or self._tracer is not None

    def begin(self, now: float, method: str, header: Header, *, may_begin_trace: bool = True) -> RequestTimes | None:
        """The stamps of a request that begins in this task; None when nothing watches it.

        Lines of the log that are written for it carry its id from now on, that of its trace when it has one.
        `may_begin_trace` is False for a request that belongs to a trace only when it says so.
        """
        mark = begin_request(self.node_id, header)
        if not self.on:
            return None
        tracer = self._tracer
        times = RequestTimes(now)
        if tracer is not None:
            traceparent, tracestate = tracer.carried(header)
            if traceparent or may_begin_trace:
                times.trace = tracer.begin(method, traceparent, tracestate)
            if times.trace is not None:
                mark.rename(times.trace.trace_id)
        CURRENT.set(times)
        return times

    def end(self, times: RequestTimes, now: float, end: Callable[[], RequestEnd]) -> None:
        """The request has ended; `end` is asked only when somebody hears of it."""
        seconds = now - times.started_at
        if seconds < self._slow_seconds and times.trace is None:
            return
        known = end()
        if times.trace is not None:
            times.trace.end(known, times, now)
        if seconds < self._slow_seconds or not self._slow.takes_line(
            asyncio.get_running_loop().time(), known.method, seconds
        ):
            return
        batch = times.batch if times.forwarded_to is None else None
        self._slow.write(
            SlowRequest(
                method=known.method,
                request_id=current_request_id() or "",
                key=known.key(),
                client=known.client(),
                from_node=known.from_node,
                user=known.user,
                node_id=self.node_id,
                term=self.term() if batch is None else batch.term,
                outcome=known.outcome,
                forwarded_to=times.forwarded_to,
                log_index=None if batch is None else batch.index,
                stages=times.stages(now),
            )
        )

    async def close(self) -> None:
        """Write what the fold still holds; send the spans that wait, for a moment: a collector may be dead."""
        self._slow.report()
        if self.tracer is None:
            return
        sending, self.tracer = self.tracer.close(), None
        for _ in range(int(CLOSE_SECONDS_MAX / _LOOK_SECONDS)):
            if not sending.is_alive():
                return
            await asyncio.sleep(_LOOK_SECONDS)

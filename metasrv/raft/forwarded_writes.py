"""Writes that another node forwards to this leader: their times, their line when they are slow, their spans.

Also keeps which leaders know of traces, so that a cluster of several releases forwards as before. Runs on the event loop.
"""

from __future__ import annotations

import asyncio

from metasrv.consensus import Consensus
from metasrv.model.commands import Command, Reply
from metasrv.model.failure_reasons import reason_of
from metasrv.process.clock import Clock, SystemClock
from metasrv.tracing.command_keys import first_key
from metasrv.tracing.slow_requests import shown_key
from metasrv.tracing.times import ASKED_BY, RequestEnd
from metasrv.tracing.watch import RequestWatch

METHOD = "forward"
ASK_AGAIN_SECONDS = 600.0
"""A leader that knew nothing of traces may have been upgraded after this time."""


class ForwardedWrites:
    """Proposes what others forward. Without a `watch` no write gets stamps."""

    def __init__(self, consensus: Consensus, watch: RequestWatch | None = None, clock: Clock | None = None) -> None:
        self._consensus = consensus
        self._watch = watch
        self._clock = clock or SystemClock()

    async def propose(self, command: Command, timeout_ms: int, traceparent: str, tracestate: str) -> Reply:
        """As `Consensus.propose_local`; the trace's fields may be empty."""
        watch = self._watch
        if watch is None or not watch.on:
            return await self._consensus.propose_local(command, timeout_ms)
        headers = {"traceparent": traceparent, "tracestate": tracestate}
        times = watch.begin(self._clock.monotonic(), METHOD, headers.get, may_begin_trace=False)
        outcome = "client_gone"
        try:
            reply = await self._consensus.propose_local(command, timeout_ms)
            outcome = "ok"
            return reply
        except Exception as error:
            outcome = reason_of(error).value
            raise
        finally:
            if times is not None:
                asked_by = ASKED_BY.get()

                def end() -> RequestEnd:
                    return RequestEnd(
                        method=METHOD,
                        outcome=outcome,
                        from_node=asked_by,
                        key=lambda: shown_key(first_key(command)),
                    )

                watch.end(times, self._clock.monotonic(), end)


class TracedRequests:
    """Which nodes answer requests that carry a trace."""

    def __init__(self, method: str) -> None:
        self._method = method
        self._refused_at: dict[int, float] = {}

    def known(self, node_id: int) -> bool:
        """Whether the node may be asked with a trace."""
        refused_at = self._refused_at.get(node_id)
        return refused_at is None or asyncio.get_running_loop().time() - refused_at >= ASK_AGAIN_SECONDS

    def refused(self, node_id: int, sentence: str) -> bool:
        """Whether the node refused the method as one that it does not know; it is asked without for a while then."""
        if repr(self._method) not in sentence or "does not know" not in sentence:
            return False
        self._refused_at[node_id] = asyncio.get_running_loop().time()
        return True

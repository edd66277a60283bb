"""Asks the leader, another node, for what only it can do: to take a write, to name a read index.

Waits until a leader is known, and no longer for an answer than there is reason to. Puts the stamps of what it does into
the request's (`tracing/times.py`). What may have been executed is never asked twice (invariant 4). Runs on the event
loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from metasrv.model.commands import Command, Reply
from metasrv.model.errors import NoLeaderError, NotDoneError, UnknownOutcomeError
from metasrv.process.clock import Clock
from metasrv.raft.core.patience import READ_GRACE_SECONDS, WRITE_GRACE_SECONDS, LeaderLostError, Patience
from metasrv.raft.forwarding import Forwarding
from metasrv.tracing.times import CURRENT

NO_LEADER_WAIT_MS = 1_800
"""How long a request waits for a leader to become known: its caller has an answer within 2 s."""
_RETRY_SECONDS = 0.02


class AskingLeader:
    """One node's questions to the leader. `refuse_if_stopping` raises StoppingError once this node stops."""

    def __init__(
        self,
        clock: Clock,
        leader_id: Callable[[], int | None],
        forwarding: Forwarding,
        refuse_if_stopping: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._leader_id = leader_id
        self._forwarding = forwarding
        self._refuse_if_stopping = refuse_if_stopping
        self._patience = Patience(leader_id)

    async def known(self, deadline: float) -> int:
        """The leader, once one is known; raises NoLeaderError."""
        give_up = min(deadline, self._clock.monotonic() + NO_LEADER_WAIT_MS / 1000)
        while True:
            self._refuse_if_stopping()
            leader_id = self._leader_id()
            if leader_id is not None:
                return leader_id
            if self._clock.monotonic() + _RETRY_SECONDS >= give_up:  # the caller hears of it before its own deadline
                raise NoLeaderError
            await asyncio.sleep(_RETRY_SECONDS)

    async def pause(self, deadline: float, error: NotDoneError) -> None:
        """Wait a little before the same is asked again; raises `error` when there is no time for it."""
        if self._clock.monotonic() + _RETRY_SECONDS >= deadline:
            raise error
        await asyncio.sleep(_RETRY_SECONDS)

    async def propose(self, leader_id: int, command: Command, timeout_ms: int) -> Reply:
        """One hop; the other node keeps the deadline too, and says what became of the write."""
        times = CURRENT.get()
        trace = None
        if times is not None:
            times.forward(self._clock.monotonic(), leader_id)
            trace = None if times.trace is None else times.trace.forwarded(leader_id)
        asked = self._forwarding.propose(leader_id, command, timeout_ms, trace)
        try:
            reply = await self._patience.wait(asked, leader_id, timeout_ms / 1000, WRITE_GRACE_SECONDS)
        except LeaderLostError:
            raise UnknownOutcomeError(
                f"node {leader_id} was sent this write and is no longer the leader; it may still take effect"
            ) from None
        except TimeoutError:
            raise UnknownOutcomeError(
                f"node {leader_id} was sent this write and did not answer within {timeout_ms} ms"
            ) from None
        if times is not None:
            times.answered_at = self._clock.monotonic()
        return reply

    async def read_index(self, leader_id: int, timeout_ms: int) -> int:
        """The index that a read must have applied. Raises LeaderLostError, TimeoutError, and what the leader raises."""
        if (times := CURRENT.get()) is not None:
            times.forward(self._clock.monotonic(), leader_id)
        asked = self._forwarding.read_index(leader_id, timeout_ms)
        return await self._patience.wait(asked, leader_id, timeout_ms / 1000, READ_GRACE_SECONDS)

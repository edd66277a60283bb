"""A leader whose clock is far off its majority hands leadership over: its clock is the one that rules expiry.

Only to a voter whose clock agrees with the majority's, only after several rounds in a row, and not again and again: an
attempt is followed by a pause that doubles, until the clock has been well within the bound. Decides; `transfer.py` acts.
Runs on the leader's event loop, once a round of questions.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from metasrv.process.clock import Clock
from metasrv.raft.core.clock_offsets import ClockOffsets, Majority
from metasrv.raft.core.engine import Engine

logger = logging.getLogger(__name__)

ROUNDS_BEFORE = 3
"""The leader must be far off in this number of rounds in a row."""
PAUSE_ROUNDS_MIN = 30
PAUSE_ROUNDS_MAX = 1_800
"""Rounds after an attempt in which there is no other one; the pause doubles from the smaller to the larger number."""
CALM_SHARE = 0.5
"""A clock within this share of the bound is right again: only then the pause begins anew at its smallest."""


class ClockHandOver:
    """`transfer(node_id)` begins to move leadership there."""

    def __init__(
        self,
        *,
        clock: Clock,
        engine: Engine,
        offsets: ClockOffsets,
        leads: Callable[[], bool],
        transfer: Callable[[int], Awaitable[None]],
        answer_age_seconds_max: float,
    ) -> None:
        self._clock = clock
        self._engine = engine
        self._offsets = offsets
        self._leads = leads
        self._transfer = transfer
        self._answer_age_max = answer_age_seconds_max
        self._rounds_off = 0
        self._rounds_to_wait = 0
        self._pause_rounds = PAUSE_ROUNDS_MIN

    async def consider(self) -> None:
        """A round of questions is over: hand over if it is time."""
        self._rounds_to_wait = max(0, self._rounds_to_wait - 1)
        voters = self._engine.membership().voters
        majority = self._offsets.majority(voters)
        if majority is not None and abs(majority.offset_ms) <= self._offsets.bound_ms * CALM_SHARE:
            self._pause_rounds = PAUSE_ROUNDS_MIN
        if majority is None or not self._leads() or not self._is_far_off(majority):
            self._rounds_off = 0
            return
        self._rounds_off += 1
        if self._rounds_off < ROUNDS_BEFORE or self._rounds_to_wait:
            return
        target = self._target(majority)
        if target is None:
            return
        self._rounds_off = 0
        self._rounds_to_wait = self._pause_rounds
        self._pause_rounds = min(2 * self._pause_rounds, PAUSE_ROUNDS_MAX)
        logger.warning(
            "this leader's clock is %.3f s %s its majority's: leadership goes to node %d",
            abs(majority.offset_ms) / 1000,
            "behind" if majority.offset_ms > 0 else "ahead of",
            target,
        )
        await self._transfer(target)

    def _is_far_off(self, majority: Majority) -> bool:
        """Every clock of the majority is surely further from this node's than the bound."""
        if self._engine.own_id() in majority.node_ids:
            return False
        offsets = [self._offsets.offset(i) for i in majority.node_ids]
        return all(offset is not None and offset.surely_beyond(self._offsets.bound_ms) for offset in offsets)

    def _target(self, majority: Majority) -> int | None:
        """The voter with an agreeing clock that is most up to date, of those that answer this leader."""
        engine, now = self._engine, self._clock.monotonic()
        ready = [i for i in sorted(majority.node_ids) if now - engine.last_response(i) <= self._answer_age_max]
        return max(ready, key=engine.match_index, default=None)

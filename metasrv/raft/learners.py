"""Since when each learner learns, and whether it has ever caught up.

A node that joins is a learner first, and stays one if it cannot be reached. Nothing else shows that: it is a member, and
learners by design look the same. Looked at after each step; forgets with the process, so that an age is since this node
knows the learner. Runs on the event loop.
"""

from __future__ import annotations

from dataclasses import dataclass

from metasrv.model.types import Membership
from metasrv.process.clock import Clock
from metasrv.raft.core.engine import LEADER, Engine
from metasrv.raft.log.store import LogStore

CATCH_UP_LAG_ENTRIES = 64
"""A learner that lags by no more than this has caught up, and may vote."""


@dataclass(slots=True)
class _Learner:
    incarnation: str
    since: float
    caught_up: bool = False


class Learners:
    """What this node knows of the learners in the configuration in force, itself left out."""

    def __init__(self, clock: Clock, engine: Engine, store: LogStore) -> None:
        self._clock = clock
        self._engine = engine
        self._store = store
        self._seen: Membership | None = None
        self._leads = False
        self._known: dict[int, _Learner] = {}
        self._behind: list[tuple[int, _Learner]] = []

    def look(self) -> None:
        """Take over a new configuration; on a leader, see who has caught up."""
        leads = self._engine.role() == LEADER
        if self._engine.membership() is not self._seen or leads != self._leads:
            self._take_over(self._engine.membership(), begins_to_lead=leads and not self._leads)
            self._leads = leads
        if leads and self._behind:
            enough = self._store.last_index - CATCH_UP_LAG_ENTRIES
            for node_id, learner in self._behind:
                learner.caught_up = self._engine.match_index(node_id) >= max(1, enough)
            self._behind = [(node_id, learner) for node_id, learner in self._behind if not learner.caught_up]

    def learns_for_ms(self, node_id: int) -> int | None:
        """How long this node has known it as a learner; None when it is none."""
        learner = self._known.get(node_id)
        return None if learner is None else int((self._clock.monotonic() - learner.since) * 1000)

    def caught_up(self, node_id: int) -> bool | None:
        """Whether the learner has caught up since this node leads; None for others, and off the leader."""
        learner = self._known.get(node_id)
        return None if learner is None or not self._leads else learner.caught_up

    def _take_over(self, membership: Membership, *, begins_to_lead: bool) -> None:
        known, now = self._known, self._clock.monotonic()
        self._seen, self._known = membership, {}
        for node_id, member in membership.learners.items():
            if node_id == self._engine.own_id():
                continue
            before = known.get(node_id)
            if before is None or before.incarnation != member.incarnation:
                before = _Learner(member.incarnation, now)
            if begins_to_lead:
                before.caught_up = False
            self._known[node_id] = before
        self._behind = [(node_id, learner) for node_id, learner in self._known.items() if not learner.caught_up]

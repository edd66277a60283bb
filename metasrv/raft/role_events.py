"""Tells of elections, leaders, step-downs, members that come and go, and stalls of the disk, as events.

It looks at the engine with each tick of the driver's timer, forty times a second, and compares; nothing is called for a
message or an entry. What began and ended between two looks is told from what it left behind. Changes nothing. Runs on
the event loop.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from metasrv.model.events import EventKind, Severity
from metasrv.model.types import Membership
from metasrv.process.event_ring import EventRing
from metasrv.raft.core.engine import LEADER, Engine
from metasrv.raft.core.guards import Guards
from metasrv.raft.disk_stall import DiskStall
from metasrv.raft.replica import Replica
from metasrv.state.machine import StateMachine

logger = logging.getLogger(__name__)


class RoleEvents:
    """Compares what is now with what was at the last look."""

    def __init__(
        self,
        *,
        node_id: int,
        engine: Engine,
        guards: Guards,
        machine: StateMachine,
        disk: DiskStall,
        events: EventRing,
        last_contact: Callable[[int], float | None],
        timeouts_seconds: tuple[float, float],
    ) -> None:
        """`last_contact` gives monotonic seconds; `timeouts_seconds` are the shortest and longest of an election."""
        self._node_id = node_id
        self._engine = engine
        self._guards = guards
        self._machine = machine
        self._disk = disk
        self._events = events
        self._last_contact = last_contact
        self._timeout_min, self._timeout_max = timeouts_seconds
        self._leads = False
        self._leader_id: int | None = None
        self._term = engine.term()
        self._electing = False
        self._previous_leader_id: int | None = None
        """Who led last, as far as this node knows."""
        self._heard_at: float | None = None
        """When that leader was last heard; the guards forget it when the connection breaks."""
        self._leaderless_at: float | None = None
        """Since when no leader is known."""
        self._quorum_missing = False
        self._stalled = False
        self._stalled_seconds = 0.0
        self._membership = machine.membership

    @classmethod
    def of(cls, replica: Replica) -> RoleEvents:
        """Those of this node."""
        resources = replica.resources
        settings = resources.settings
        return cls(
            node_id=replica.node_id,
            engine=replica.engine,
            guards=replica.guards,
            machine=replica.machine,
            disk=replica.disk,
            events=resources.events,
            last_contact=replica.peers.transport.last_contact,
            timeouts_seconds=(settings.election_timeout_min_ms / 1000, settings.election_timeout_max_ms / 1000),
        )

    def after(self, first: Callable[[float], None]) -> Callable[[float], None]:
        """Calls `first`, then looks."""

        def both(now: float) -> None:
            first(now)
            self.look(now)

        return both

    def look(self, now: float) -> None:
        """Tell what is new; `now` in monotonic seconds."""
        engine, guards = self._engine, self._guards
        leads, electing, term = engine.role() == LEADER, guards.electing, engine.term()
        leader_id = self._node_id if leads else engine.leader_id()
        if leader_id == self._node_id and not leads:
            leader_id = None
        if electing and not self._electing:
            self._tell_election(now)
        if self._leads and not leads:
            self._tell_step_down(now, term)
        if leader_id is not None and (leader_id != self._leader_id or term != self._term):
            self._tell_leader(leader_id, term, now)
        heard_at = guards.leader_heard_at()
        if heard_at is not None and not leads:
            self._heard_at = heard_at
        self._leads, self._electing = leads, electing
        if leader_id is not None:  # a leader that comes back in its own term is no news
            self._leader_id, self._term = leader_id, term
        self._look_at_quorum(leader_id is None or electing, now)
        self._look_at_disk()
        if self._machine.membership is not self._membership:
            before, self._membership = self._membership, self._machine.membership
            self._tell_members(before, self._membership)

    # ------------------------------------------------------------------ elections

    def _tell_election(self, now: float) -> None:
        text = f"node {self._node_id} begins an election: {self._why(now)}"
        logger.warning("%s", text)
        self._record(EventKind.ELECTION, Severity.WARNING, text)

    def _why(self, now: float) -> str:
        leader_id = self._previous_leader_id
        if leader_id is None:
            return "no leader has been heard since this node started"
        if leader_id == self._node_id:
            return "this node has led last, and no leader has been heard since"
        if self._guards.leader_heard_at() is None:
            return f"the connection of leader {leader_id} was lost"
        if self._heard_at is None:
            return f"leader {leader_id} was not heard"
        return f"leader {leader_id} not heard for {(now - self._heard_at) * 1000:,.0f} ms"

    def _voters_heard(self, now: float) -> int:
        """This node among them."""
        heard = 0
        for node_id in self._engine.membership().voters:
            contact = self._last_contact(node_id)
            heard += node_id == self._node_id or (contact is not None and now - contact < self._timeout_max)
        return heard

    # ------------------------------------------------------------------ leaders

    def _tell_leader(self, leader_id: int, term: int, now: float) -> None:
        text = f"node {leader_id} leads in term {term}"
        previous = self._previous_leader_id
        if leader_id == self._node_id and previous not in (None, leader_id) and not self._electing:
            heard_at = self._guards.leader_heard_at()
            planned = heard_at is not None and now - heard_at < self._timeout_min
            text += f"; node {previous} handed over" if planned else f"; {self._why(now)}"
        if leader_id != self._node_id:
            logger.info("%s", text)
        self._record(EventKind.LEADER, Severity.INFO, text, term)
        self._previous_leader_id, self._heard_at = leader_id, None

    def _tell_step_down(self, now: float, term: int) -> None:
        text, severity = f"node {self._node_id} no longer leads", Severity.WARNING
        heard, voters = self._voters_heard(now), len(self._engine.membership().voters)
        if self._disk.part is not None:
            text += f": {self._disk.sentence()}"
        elif term > self._term:
            text, severity = f"{text}: term {term} has begun", Severity.INFO
        elif heard < self._engine.membership().majority:
            text, severity = f"{text}: {heard} of {voters} voters heard, writes are refused", Severity.CRITICAL
        else:
            text += ": no majority of the voters answered in time"
        self._record(EventKind.STEP_DOWN, severity, text, self._term)

    # ------------------------------------------------------------------ members and disk

    def _tell_members(self, before: Membership, after: Membership) -> None:
        for node_id in sorted({*after.voters, *after.learners} - {*before.voters, *before.learners}):
            role = "voter" if node_id in after.voters else "learner"
            member = after.member(node_id)
            place = f", at {member.endpoint}" if member is not None else ""
            self._record(EventKind.JOIN, Severity.INFO, f"node {node_id} joined as a {role}{place}")
        for node_id in sorted(set(after.voters) & set(before.learners)):
            self._record(EventKind.JOIN, Severity.INFO, f"node {node_id} votes from now on")
        for node_id in sorted({*before.voters, *before.learners} - {*after.voters, *after.learners}):
            severity = Severity.CRITICAL if node_id == self._node_id else Severity.WARNING
            self._record(EventKind.LEAVE, severity, f"node {node_id} left the cluster")

    def _look_at_quorum(self, leaderless: bool, now: float) -> None:
        """Tell once that too few voters are heard, when that has lasted for the longest election timeout."""
        if not leaderless:
            self._leaderless_at, self._quorum_missing = None, False
            return
        if self._leaderless_at is None:
            self._leaderless_at = now
        membership = self._engine.membership()
        if self._quorum_missing or now - self._leaderless_at < self._timeout_max or not self._guards.is_voter():
            return
        heard = self._voters_heard(now)
        if heard < membership.majority:
            self._quorum_missing = True
            text = f"{heard} of {len(membership.voters)} voters heard, writes are refused"
            logger.warning("%s", text)
            self._record(EventKind.QUORUM, Severity.CRITICAL, text)

    def _look_at_disk(self) -> None:
        stalled = self._disk.part is not None
        if stalled:
            self._stalled_seconds = self._disk.seconds()
        if stalled and not self._stalled:
            self._record(EventKind.DISK, Severity.CRITICAL, str(self._disk.sentence()))
        elif self._stalled and not stalled:
            text = f"the disk answers again, after {self._stalled_seconds:.1f} s"
            self._record(EventKind.DISK, Severity.INFO, text)
        self._stalled = stalled

    def _record(self, kind: EventKind, severity: Severity, text: str, term: int | None = None) -> None:
        self._events.record(kind, severity, text, self._engine.term() if term is None else term)
